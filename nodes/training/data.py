"""A training set in memory, ready for one model, and the seeded order of its batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import LikenessError
from ..sockets import TrainingItem, TrainingSet
from ..tensors import read_conditioning, read_latent
from . import conds
from .recipes.base import Recipe


@dataclass(frozen=True, eq=False)
class Sample:
    """One photo as the model trains on it."""

    photo: str
    latent: torch.Tensor  # (C, ..., h, w) at the model's scale, float32 on the CPU
    mask: torch.Tensor  # (h, w) face weight 0..1
    conds: conds.ModelConds
    empty_conds: conds.ModelConds | None  # of the empty caption, for caption dropout


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one shape on the compute device, one row each."""

    photos: tuple[str, ...]
    latents: torch.Tensor  # (B, C, ..., h, w)
    masks: torch.Tensor  # (B, h, w)
    conds: Mapping[str, Any]


def seeded(seed: int, *names: object) -> torch.Generator:
    """A generator for one purpose: any step's draws can be made without those before it."""
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def load_samples(base: Any, training_set: TrainingSet, recipe: Recipe,
                 device: torch.device) -> list[Sample]:
    """Read a training set's latents, masks and encodings for a host model.

    Raises:
        LikenessError: the set is empty, its files are gone, or it was made for another model.
    """
    if not training_set.items:
        raise LikenessError("The training set has no photos; prepare one from a subject with at "
                            "least one reference photo.")
    if recipe.caption_dropout > 0 and "" not in training_set.conditionings:
        raise LikenessError("The training set holds no encoding of the empty caption; prepare it "
                            "again or set `caption_dropout` to 0.")
    try:
        texts = {key: read_conditioning(path) for key, path in training_set.conditionings.items()}
        return [_sample(base, item, texts, recipe, device) for item in training_set.items]
    except (OSError, KeyError) as err:
        raise LikenessError(f"The training set in {training_set.folder} is incomplete ({err}); "
                            "change a setting of Prepare Training or restart ComfyUI, so that it "
                            "runs again.") from err


def _sample(base: Any, item: TrainingItem, texts: Mapping[str, Any], recipe: Recipe,
            device: torch.device) -> Sample:
    raw, mask = read_latent(item.latent_file)
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
            return conds.model_conds(base, text, item, latent, recipe.guidance, device)
        except KeyError as err:
            raise LikenessError(f"The captions' encoding lacks {err}, which this model needs; run "
                                "Prepare Training with its own CLIP.") from err

    empty = encode("") if recipe.caption_dropout > 0 else None
    return Sample(item.photo, latent[0], mask.clone(), encode(item.conditioning_key), empty)


def group_samples(samples: Sequence[Sample]) -> list[list[int]]:
    """Indices of samples that can share a batch: same latent shape, stackable conditionings."""
    groups: list[list[int]] = []
    for index, sample in enumerate(samples):
        for group in groups:
            first = samples[group[0]]
            if first.latent.shape == sample.latent.shape and conds.compatible(
                    first.conds, sample.conds):
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def batch_order(groups: Sequence[Sequence[int]], batch_size: int,
                seed: int) -> Iterator[tuple[int, ...]]:
    """Endless full batches, each from one group.

    Every sample comes once in an epoch. What does not fill a batch waits for the next epoch, so
    that all photos train equally often however their shapes are spread.
    """
    waiting: list[list[int]] = [[] for _ in groups]
    epoch = 0
    while True:
        ready = []
        generator = seeded(seed, "order", epoch)
        for queue, group in zip(waiting, groups, strict=True):
            places = torch.randperm(len(group), generator=generator).tolist()
            queue += [group[place] for place in places]
            while len(queue) >= batch_size:
                ready.append(tuple(queue[:batch_size]))
                del queue[:batch_size]
        for place in torch.randperm(len(ready), generator=generator).tolist():
            yield ready[place]
        epoch += 1


def collate(samples: Sequence[Sample], empty_caption: bool, device: torch.device) -> Batch:
    """Stack samples of one group on the compute device."""
    rows = [sample.empty_conds if empty_caption else sample.conds for sample in samples]
    return Batch(tuple(sample.photo for sample in samples),
                 torch.stack([sample.latent for sample in samples]).to(device),
                 torch.stack([sample.mask for sample in samples]).to(device),
                 conds.batch(rows, device))
