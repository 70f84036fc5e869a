"""What one optimiser step did, or that it came to no number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import LikenessError


@dataclass(frozen=True)
class StepResult:
    """What one optimiser step did; one entry per sample where there are several."""

    step: int  # finished steps, from 1
    loss: float
    terms: Mapping[str, float]  # weighted means whose sum is the loss
    learning_rate: float
    gradient_norm: float  # before clipping
    seconds: float
    photos: tuple[str, ...]
    sigmas: tuple[float, ...]
    levels: tuple[float, ...]  # places of the sigmas on the model's schedule, 0 to 1
    sample_losses: tuple[float, ...]  # of the photos themselves


class NotANumber(LikenessError):
    """A loss or gradient is no number; the state before that step may be lost already."""
