"""A training set in memory, ready for one model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...errors import LikenessError
from ...incoming import require_latent, require_text
from ...sockets import TrainingItem, TrainingSet
from ...tensors import read_conditioning, read_latent
from ..recipes.base import Recipe
from . import conds

EMPTY_CAPTION = ""  # the key of its encoding


@dataclass(frozen=True, eq=False)
class Sample:
    """One photo as the model trains on it; everything in main memory."""

    item: TrainingItem
    latent: torch.Tensor  # (C, ..., h, w) at the model's scale, float32
    mask: torch.Tensor  # (h, w) face weight 0..1
    captions: tuple[str, ...]  # keys of its captions, any of which a step may take
    conds: Mapping[str, conds.ModelConds]  # by key: its captions, the class caption, the empty one

    @property
    def photo(self) -> str:
        """The photo's name."""
        return self.item.photo


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one shape on the compute device, one row each."""

    samples: tuple[Sample, ...]
    captions: tuple[str, ...]  # the key of each row's caption
    latents: torch.Tensor  # (B, C, ..., h, w)
    masks: torch.Tensor  # (B, h, w)
    conds: Mapping[str, Any]

    @property
    def photos(self) -> tuple[str, ...]:
        """The photos' names."""
        return tuple(sample.photo for sample in self.samples)


def seeded(seed: int, *names: object) -> torch.Generator:
    """A generator for one purpose: any step's draws can be made without those before it."""
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def load_samples(base: Any, training_set: TrainingSet, recipe: Recipe, device: torch.device,
                 of_class: bool = False) -> list[Sample]:
    """Read a training set's latents, masks and encodings for a host model.

    Args:
        of_class: the photos show the class and not the person, so their captions name it alone.

    Raises:
        LikenessError: the set is empty, its files are gone or hold NaN, or it was made for another
            model.
    """
    if not training_set.items:
        raise LikenessError("The training set has no photos; prepare one from a subject with at "
                            "least one reference photo.")
    if recipe.caption_dropout > 0 and EMPTY_CAPTION not in training_set.conditionings:
        raise LikenessError("The training set holds no encoding of the empty caption; prepare it "
                            "again or set `caption_dropout` to 0.")
    if not of_class and recipe.class_word_weight > 0 and not all(
            item.class_key for item in training_set.items):
        raise LikenessError("The training set holds no captions with the class word alone; prepare "
                            "it again or set `class_word_weight` to 0.")
    try:
        texts = {key: require_text(read_conditioning(path), training_set.texts.get(key, key))
                 for key, path in training_set.conditionings.items()}
        known: dict[str, conds.ModelConds] = {}
        return [_sample(base, item, texts, recipe, device, known) for item in training_set.items]
    except (OSError, KeyError) as err:
        raise LikenessError(f"The training set in {training_set.folder} is incomplete ({err}); "
                            "queue the workflow again, and Prepare Training or Class Photos makes "
                            "what is missing.") from err


def _sample(base: Any, item: TrainingItem, texts: Mapping[str, Any], recipe: Recipe,
            device: torch.device, known: dict[str, conds.ModelConds]) -> Sample:
    raw, mask = read_latent(item.latent_file)
    require_latent(raw, item.photo)
    channels = base.latent_format.latent_channels
    if raw.shape[0] != channels:
        raise LikenessError(f"The latent of {item.photo} has {raw.shape[0]} channels, the model "
                            f"takes {channels}; prepare the training set with this model's VAE.")
    if mask.shape != raw.shape[-2:]:
        raise LikenessError(f"The mask of {item.photo} does not fit its latent; run Prepare "
                            "Training again.")
    latent = base.process_latent_in(raw[None].float()).detach().clone()

    def encode(key: str) -> conds.ModelConds:
        text = texts[key]
        try:
            made = conds.model_conds(base, text, item, latent, recipe.guidance, device)
            # Shares the text alone: what says a photo's size belongs to that photo.
            own = conds.stored(made, known.get(key))
            known.setdefault(key, own)
            return own
        except KeyError as err:
            raise LikenessError(f"The captions' encoding lacks {err}, which this model needs; run "
                                "Prepare Training with its own CLIP.") from err
        except AttributeError as err:
            if text[0][1].get("pooled_output", text) is not None:
                raise
            raise LikenessError("The captions' encoding has no pooled text, which this model "
                                "needs; run Prepare Training with its own CLIP.") from err

    captions = (item.conditioning_key, *item.variants)
    others = [EMPTY_CAPTION] if recipe.caption_dropout > 0 else []
    others += [item.class_key] if item.class_key else []
    return Sample(item, latent[0], mask.clone(), captions,
                  {key: encode(key) for key in dict.fromkeys([*captions, *others])})


def choose_captions(samples: Sequence[Sample], recipe: Recipe,
                    generator: torch.Generator) -> tuple[str, ...]:
    """Draw each row's caption among the sample's own, or the empty one by the recipe's dropout."""
    chosen = []
    for sample in samples:
        dropped = bool(torch.rand((), generator=generator) < recipe.caption_dropout)
        place = int(torch.randint(len(sample.captions), (), generator=generator))
        chosen.append(EMPTY_CAPTION if dropped else sample.captions[place])
    first = samples[0].conds[chosen[0]]
    # Encodings of other lengths cannot share a batch with some text encoders.
    if all(conds.compatible(first, sample.conds[key])
           for sample, key in zip(samples, chosen, strict=True)):
        return tuple(chosen)
    return tuple(EMPTY_CAPTION if chosen[0] == EMPTY_CAPTION else sample.captions[0]
                 for sample in samples)


def collate(samples: Sequence[Sample], captions: Sequence[str], device: torch.device,
            live: Mapping[str, Any] | None = None) -> Batch:
    """Stack samples of one group, with these captions, on the compute device.

    Args:
        live: conditionings that carry gradients, in place of the stored ones.
    """
    if live is None:
        rows = [sample.conds[key] for sample, key in zip(samples, captions, strict=True)]
        live = conds.batch(rows, device)
    return Batch(tuple(samples), tuple(captions),
                 torch.stack([sample.latent for sample in samples]).to(device),
                 torch.stack([sample.mask for sample in samples]).to(device), live)


def main_captions(samples: Sequence[Sample]) -> tuple[str, ...]:
    """The first caption of each sample."""
    return tuple(sample.captions[0] for sample in samples)
