"""A new word that starts from what CLIP vision sees in the references.

CLIP's picture and text towers end in one space, so a word can be sought whose text lies where the
pictures lie, by the text tower alone: optimisation-based textual inversion (SEARLE, arXiv
2303.15247; PALAVRA, arXiv 2204.01694). No diffusion model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import normalize

from ...brackets import literal_tokens
from ...errors import LikenessError
from ...faces.align import FFHQ_512, align, five_points
from ...media.images import reread_photo, to_image
from ...sockets import Photo
from ..frozen.scope import Scope
from ..text.encoders import TextEncoders
from ..text.host_clip import Encoder

TEMPLATES = ("a photo of {}", "a portrait of {}", "a close-up photo of {}", "a picture of {}")
# What tells whether two towers belong together: a face is nearer to texts of faces.
_OF_FACES = ("a photo of a {}", "a close-up of the face of a {}", "a portrait photo")
_OF_OTHERS = ("a photo of a bridge", "a bowl of soup", "a red car", "a page of printed text")
_MARGIN = 0.03  # of cosine; towers that belong together differ by two or three times as much

# AdamW moves every number of a row by about this share of a usual word's numbers in each step.
RATE = 0.1
LENGTH_WEIGHT = 0.1  # of the rows' length penalty beside a cosine


@dataclass(frozen=True)
class Seen:
    """How near the new word's texts came to the pictures in one encoder's space."""

    before: float  # cosine with the initial word
    after: float


def image_embedding(clip_vision: Any, photos: Sequence[Photo]) -> torch.Tensor:
    """CLIP's projected embedding of the faces, a (D,) mean of unit vectors.

    Faces are cut as FFHQ's pictures are, with hair and chin.

    Raises:
        LikenessError: no photos, a photo without a known face or that is gone, or an encoder that
            gives no projected embedding.
    """
    if not photos:
        raise LikenessError("The subject has no reference photos to look at; keep at least one.")
    size, found = clip_vision.image_size, []
    for photo in photos:
        if photo.face is None:
            raise LikenessError(f"`{photo.name}` has no known face to show to CLIP; leave it out.")
        crop = align(reread_photo(photo.file, photo.name), five_points(photo.face),
                     FFHQ_512 * (size / 512), size)
        embedded = clip_vision.encode_image(to_image(crop))["image_embeds"]
        if embedded is None or embedded.ndim != 2:
            raise LikenessError("The connected CLIP_VISION gives no projected embedding, which "
                                "texts could be compared with; connect the vision tower of CLIP-L "
                                "or CLIP-G.")
        found.append(normalize(embedded[0].float().cpu(), dim=0))
    with torch.inference_mode(False):
        return normalize(torch.stack([row.clone() for row in found]).mean(dim=0), dim=0)


def comparable(text: TextEncoders, image: torch.Tensor,
               class_noun: str) -> tuple[list[str], dict[str, str]]:
    """The encoders whose texts can be compared with an image embedding (D,), and why others not.

    Widths that agree do not prove that two towers belong together, so the picture of a face must
    be nearer to texts of faces than to others.

    Raises:
        LikenessError: no encoder's can.
    """
    image = image.to(text.device)
    found, reasons = [], {}
    with torch.inference_mode(False), torch.no_grad(), Scope() as scope:
        _attach(scope, text)
        for encoder in text.tokens.encoders:
            projection = getattr(encoder.model.transformer, "text_projection", None)
            width = None if projection is None else projection.weight.shape[0]
            if width is None:
                reasons[encoder.name] = "is no CLIP"
            elif width != len(image):
                reasons[encoder.name] = f"has width {width}, the vision tower {len(image)}"
            else:
                near, far = (_mean_cosine(text, encoder, image, texts)
                             for texts in ([form.format(class_noun) for form in _OF_FACES],
                                           _OF_OTHERS))
                if near > far + _MARGIN:  # also false where one is no number
                    found.append(encoder.name)
                else:
                    # Many checkpoints leave it out, and the host puts nothing in its place.
                    reasons[encoder.name] = (
                        f"finds the faces no nearer to texts of faces ({near:.3f}) than to others "
                        f"({far:.3f}), as when it lacks its text projection or belongs to another "
                        "vision tower")
    if not found:
        raise LikenessError(
            "No text encoder shares a space with the connected CLIP_VISION: "
            f"{'; '.join(f'{name} {why}' for name, why in reasons.items())}. Connect the vision "
            "tower of CLIP-L or CLIP-G, and a CLIP whose file holds its text projection.")
    return found, reasons


def look(text: TextEncoders, image: torch.Tensor, names: Sequence[str], steps: int,
         on_step: Callable[[int], None] = lambda done: None) -> dict[str, Seen]:
    """Move the new word's rows, in place, to where its texts lie nearest to an image embedding.

    Minimises 1 - cos(text, image), averaged over prompts in turn, and the penalty of the rows'
    length of `text.tokens`, by AdamW.

    Args:
        text: encoders whose new word has its initial rows.
        image: (D,) from `image_embedding`.
        names: of the encoders that are `comparable`.
    """
    fits = [encoder for encoder in text.tokens.encoders if encoder.name in names]
    with torch.inference_mode(False), torch.enable_grad(), Scope() as scope:
        image = image.detach().to(text.device).clone()  # one from a prompt's mode cannot be saved
        _attach(scope, text)
        before = _nearness(text, fits, image)
        _optimise(text, fits, image, steps, on_step)
        after = _nearness(text, fits, image)
    return {name: Seen(before[name], after[name]) for name in before}


def _attach(scope: Scope, text: TextEncoders) -> None:
    text.prepare()
    text.attach(scope)
    for encoder in text.tokens.encoders:
        scope.set_attribute(encoder.model, "return_projected_pooled", True)


def _mean_cosine(text: TextEncoders, encoder: Encoder, image: torch.Tensor,
                 texts: Sequence[str]) -> float:
    return float(torch.stack([_embedded(encoder, literal_tokens(text.clip, words)) @ image
                              for words in texts]).mean())


def _nearness(text: TextEncoders, fits: Sequence[Encoder], image: torch.Tensor) -> dict[str, float]:
    with torch.no_grad():
        return {encoder.name: float(torch.stack([
            _embedded(encoder, text.tokens.tokens(form.format(text.trigger))) @ image
            for form in TEMPLATES]).mean()) for encoder in fits}


def _optimise(text: TextEncoders, fits: Sequence[Encoder], image: torch.Tensor, steps: int,
              on_step: Callable[[int], None]) -> None:
    words = text.tokens
    optimizer = torch.optim.AdamW(
        [{"params": [words.rows[encoder.name]],
          "lr": RATE * words.usual[encoder.name] / encoder.width ** 0.5} for encoder in fits],
        weight_decay=0.0)
    for step in range(steps):
        tokens = words.tokens(TEMPLATES[step % len(TEMPLATES)].format(text.trigger))
        distance = sum(1 - _embedded(encoder, tokens) @ image for encoder in fits)
        optimizer.zero_grad()
        (distance + LENGTH_WEIGHT * words.penalty()).backward()
        optimizer.step()
        on_step(step + 1)
    for rows in words.rows.values():
        rows.grad = None


def _embedded(encoder: Encoder, tokens: Mapping[str, Any]) -> torch.Tensor:
    """The projected embedding (D,) of a text's first section, as a unit vector."""
    _, pooled, *_ = encoder.model([[entry[0] for entry in tokens[encoder.key][0]]])
    return normalize(pooled[0].float(), dim=0)
