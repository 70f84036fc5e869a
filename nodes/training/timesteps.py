"""Noise levels for training, drawn on the model's own schedule."""

from __future__ import annotations

from typing import Any

import torch

from .recipes.base import Recipe
from .recipes.fields import Timesteps


def is_flow(sampling: Any) -> bool:
    """Whether a `model_sampling` mixes signal with noise (rectified flow) or adds noise to it."""
    half, one = torch.tensor([0.5]), torch.ones(1, 1)
    signal = sampling.noise_scaling(half, torch.zeros(1, 1), one)
    return bool((signal - one).abs().max() > 1e-6)


def shifted(sigma: torch.Tensor, shift: float) -> torch.Tensor:
    """Move flow noise levels towards noise: k s / (1 + (k - 1) s), as in the SD3 paper
    (https://arxiv.org/abs/2403.03206, section 5.3.2).
    """
    return shift * sigma / (1 + (shift - 1) * sigma)


def draw_sigmas(sampling: Any, recipe: Recipe, count: int,
                generator: torch.Generator) -> torch.Tensor:
    """Draw one noise level per sample, (count,) float32 on the CPU.

    Noise- and velocity-predicting models draw uniformly from their table of levels. Flow models
    draw u from the logit-normal distribution and send it through their own time shift.
    """
    logit_normal = recipe.timesteps is Timesteps.LOGIT_NORMAL or (
        recipe.timesteps is Timesteps.AUTO and is_flow(sampling))
    if not is_flow(sampling):
        table = sampling.sigmas.detach().float().cpu()
        if logit_normal:
            places = torch.randn(count, generator=generator).sigmoid() * len(table)
            return table[places.long().clamp(max=len(table) - 1)]
        return table[torch.randint(len(table), (count,), generator=generator)]
    if logit_normal:
        u = torch.randn(count, generator=generator).sigmoid()
    else:
        u = torch.rand(count, generator=generator).clamp(min=1e-4)
    if recipe.shift > 0:
        return shifted(u, recipe.shift)
    return sampling.sigma(u * getattr(sampling, "multiplier", 1.0)).float().cpu()
