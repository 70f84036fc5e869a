"""The seeded order in which photos train: mixed shapes, poses in balance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from . import conds
from .data import Sample, seeded

# Edges of head poses in degrees: profile, three-quarter, frontal; chin up, level, down.
_YAW, _PITCH = (-45.0, -15.0, 15.0, 45.0), (-12.0, 12.0)
# One profile among thirty frontal photos must not fill half of the run: it would be learned by
# heart.
_MOST_REPEATS = 3


def pose_bin(sample: Sample) -> tuple[int, int]:
    """Which way the head is turned, as (yaw, pitch) numbers of a bin."""
    return (sum(sample.item.yaw > edge for edge in _YAW),
            sum(sample.item.pitch > edge for edge in _PITCH))


def repeats(samples: Sequence[Sample], balance: bool) -> list[int]:
    """How often each sample comes in an epoch: rare poses as often as common ones, up to 3 times.

    Without this a set of mostly frontal photos teaches a frontal face.
    """
    if not balance:
        return [1] * len(samples)
    bins = [pose_bin(sample) for sample in samples]
    most = max(bins.count(kind) for kind in set(bins))
    return [min(_MOST_REPEATS, round(most / bins.count(kind))) for kind in bins]


def group_samples(samples: Sequence[Sample]) -> list[list[int]]:
    """Indices of samples that can share a batch: same latent shape, stackable conditionings."""
    groups: list[list[int]] = []
    for index, sample in enumerate(samples):
        for group in groups:
            first = samples[group[0]]
            if first.latent.shape == sample.latent.shape and conds.compatible(
                    first.conds[first.captions[0]], sample.conds[sample.captions[0]]):
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def batch_order(groups: Sequence[Sequence[int]], batch_size: int, seed: int,
                times: Sequence[int] | None = None) -> Iterator[tuple[int, ...]]:
    """Endless full batches, each from one group.

    Every sample comes in an epoch as often as `times` says, once without it. What does not fill a
    batch waits for the next epoch, so that no photo trains less because of its shape.
    """
    waiting: list[list[int]] = [[] for _ in groups]
    epoch = 0
    while True:
        ready = []
        generator = seeded(seed, "order", epoch)
        for queue, group in zip(waiting, groups, strict=True):
            due = [place for place in group for _ in range(times[place] if times else 1)]
            queue += [due[place] for place in torch.randperm(len(due), generator=generator)]
            while len(queue) >= batch_size:
                ready.append(tuple(queue[:batch_size]))
                del queue[:batch_size]
        for place in torch.randperm(len(ready), generator=generator).tolist():
            yield ready[place]
        epoch += 1
