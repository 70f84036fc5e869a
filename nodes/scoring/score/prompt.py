"""Prompt adherence: CLIP-T, the cosine of what a picture shows and what was asked for.

A full CLIP has two towers that end in one space. The host's CLIP_VISION gives the projected
picture (`image_embeds`); of its CLIP, the text tower ends in `text_projection`, which the encoder
of Stable Diffusion 1.5 leaves out unless asked (`projected_pooled`), and which many checkpoints do
not hold: the host then leaves the memory as it was. So both towers must have the same width, and a
photo of a face must be nearer to texts of faces than to others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from ...errors import LikenessError
from ...faces.detect import crop_round
from ...media.images import read_photo, to_image
from ...sockets import Subject

_CHUNK = 8  # pictures that CLIP sees at once
_OF_FACES = ("a photo of a person", "a close-up of the face of a person", "a portrait photo")
_OF_OTHERS = ("a photo of a bridge", "a bowl of soup", "a red car", "a page of printed text")
_MARGIN = 0.03  # of cosine; towers that belong together differ by two or three times as much


@dataclass(frozen=True, eq=False)
class PromptFit:
    """How well the pictures of a batch show what a prompt says."""

    prompt: str  # as judged, without words that CLIP cannot know
    encoder: str  # which text encoder was compared
    cosines: tuple[float, ...]  # of each picture, in the order of the batch
    seen: np.ndarray  # (N, D) what CLIP sees of the pictures, unit vectors


@dataclass(frozen=True, eq=False)
class Clip:
    """The two towers of one CLIP."""

    vision: Any  # core CLIP_VISION
    text: Any  # core CLIP


def prompt_fit(images: torch.Tensor, towers: Clip, prompt: str, subject: Subject,
               on_chunk: Callable[[], None] = lambda: None) -> PromptFit:
    """Compare each picture of an IMAGE batch (B, H, W, 3) with the prompt.

    CLIP-T as in DreamBooth (arXiv 2208.12242): the mean of its cosines is the batch's.

    Args:
        on_chunk: called before each few pictures; may raise to cancel.

    Raises:
        LikenessError: an empty prompt, or towers that do not belong together.
    """
    judged = plain_prompt(prompt, subject)
    if not judged:
        raise LikenessError("`prompt` is empty, but `clip` and `clip_vision` are connected; enter "
                            "the prompt that the pictures were made with.")
    seen = image_embeddings(towers.vision, images, on_chunk)
    encoder = _encoder_of_width(towers.text, seen.shape[1])
    check_towers(towers, _a_face(subject, images), encoder)
    text = text_embedding(towers.text, encoder, judged)
    return PromptFit(judged, encoder, tuple(float(value) for value in seen @ text),
                     seen.numpy())


def plain_prompt(prompt: str, subject: Subject) -> str:
    """The prompt with the trigger, which no CLIP knows, as the class noun alone."""
    trigger, noun = re.escape(subject.trigger), subject.class_noun
    prompt = re.sub(rf"\b{trigger}\s+{re.escape(noun)}\b", noun, prompt)
    return re.sub(rf"\b{trigger}\b", noun, prompt).strip()


def image_embeddings(vision: Any, images: torch.Tensor,
                     on_chunk: Callable[[], None] = lambda: None) -> torch.Tensor:
    """CLIP's projected embeddings of pictures (B, H, W, 3): (B, D) float32 unit vectors.

    Raises:
        LikenessError: the vision model gives none.
    """
    rows = []
    for part in images[..., :3].split(_CHUNK):
        on_chunk()
        embedded = vision.encode_image(part)["image_embeds"]
        if embedded is None or embedded.ndim != 2:
            raise LikenessError("The connected CLIP_VISION gives no projected embedding that "
                                "texts could be compared with; connect the vision tower of CLIP-L "
                                "or CLIP-G.")
        rows.append(normalize(embedded.detach().float().cpu(), dim=1))
    return torch.cat(rows)


def text_embedding(clip: Any, encoder: str, text: str) -> torch.Tensor:
    """CLIP's projected embedding of a text: (D,) float32, a unit vector.

    Weights in brackets count for nothing, and of a text longer than 77 tokens the first 77 are
    read, as CLIP does.

    Args:
        encoder: the text tower's name in the host's CLIP, such as clip_l.
    """
    tokens = clip.tokenize(text)[encoder.removeprefix("clip_")][0]
    clip.load_model()
    whole, tower = clip.cond_stage_model, getattr(clip.cond_stage_model, encoder)
    whole.reset_clip_options()
    try:
        tower.set_clip_options({"projected_pooled": True})
        pooled = tower.encode([[entry[0] for entry in tokens]])[1]
    finally:
        whole.reset_clip_options()
    return normalize(pooled[0].detach().float().cpu(), dim=0)


def check_towers(towers: Clip, face: torch.Tensor, encoder: str) -> None:
    """Refuse a text tower that does not know what the vision tower sees of a face (1, H, W, 3)."""
    seen = image_embeddings(towers.vision, face)[0]
    near, far = (float(np.mean([float(seen @ text_embedding(towers.text, encoder, text))
                                for text in texts])) for texts in (_OF_FACES, _OF_OTHERS))
    if not near > far + _MARGIN:  # also where one is no number
        raise LikenessError(
            f"The connected CLIP and CLIP_VISION do not belong together: a photo of the subject is "
            f"no nearer to texts of faces ({near:.3f}) than to others ({far:.3f}), as when the "
            "CLIP comes from a checkpoint without its text projection; load the text encoder of "
            "the same CLIP from a file of its own.")


def _encoder_of_width(clip: Any, width: int) -> str:
    """The text tower whose projection ends in the width of the vision tower's.

    Raises:
        LikenessError: there is none.
    """
    found = dict(_towers(clip))
    for name, own in found.items():
        if own == width:
            return name
    has = ", ".join(f"{name} of width {own}" for name, own in found.items()) or "no CLIP text tower"
    raise LikenessError(f"The connected CLIP_VISION has embeddings of width {width}, the connected "
                        f"CLIP has {has}; connect the vision tower and the text encoder of the "
                        "same CLIP.")


def _towers(clip: Any) -> Iterator[tuple[str, int]]:
    for name in ("clip_l", "clip_g", "clip_h"):
        tower = getattr(clip.cond_stage_model, name, None)
        projection = getattr(getattr(tower, "transformer", None), "text_projection", None)
        if projection is not None:
            yield name, projection.weight.shape[0]


def _a_face(subject: Subject, images: torch.Tensor) -> torch.Tensor:
    """A real photo's face and shoulders, or the first picture where no file is left."""
    for photo in subject.photos:
        if photo.face is not None and photo.file.is_file():
            try:
                pixels = read_photo(photo.file)
            except OSError:
                continue  # the report of copies lists it
            return to_image(crop_round(pixels, photo.face.box, margin=0.5)[0])
    return images[:1]


def mean(cosines: Sequence[float]) -> float:
    """CLIP-T of a batch."""
    return float(np.mean(cosines))
