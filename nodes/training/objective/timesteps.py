"""Noise levels for training, drawn on the model's own schedule."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..parametrisation import is_flow
from ..recipes.base import Recipe
from ..recipes.fields import Timesteps

_MODE_SCALE = 1.29  # of the mode density, arXiv 2403.03206, section 3.1
# FLUX.1's shift: log of k at 256 and at 4096 image tokens (black-forest-labs/flux, sampling.py).
_FLUX_SHIFT = ((256, 0.5), (4096, 1.15))


def shifted(sigma: torch.Tensor, shift: float) -> torch.Tensor:
    """Move flow noise levels towards noise: k s / (1 + (k - 1) s), as in the SD3 paper
    (https://arxiv.org/abs/2403.03206, section 5.3.2).
    """
    return shift * sigma / (1 + (shift - 1) * sigma)


def resolution_shift(tokens: int) -> float:
    """The shift that FLUX.1 samples with at a number of image tokens (latent h x w / 4)."""
    (few, low), (many, high) = _FLUX_SHIFT
    return math.exp(low + (high - low) * (tokens - few) / (many - few))


def density(recipe: Recipe, count: int, logit_normal: bool,
            generator: torch.Generator) -> torch.Tensor:
    """Draw (count,) places between clean, 0, and noise, 1, before any shift.

    Mode: u' = 1 - u - s (cos^2(pi u / 2) - 1 + u), arXiv 2403.03206, equation 20.
    """
    if recipe.timesteps is Timesteps.MODE:
        u = torch.rand(count, generator=generator)
        return 1 - u - _MODE_SCALE * ((math.pi * u / 2).cos().square() - 1 + u)
    if logit_normal:
        drawn = torch.randn(count, generator=generator)
        return (recipe.logit_mean + recipe.logit_std * drawn).sigmoid()
    return torch.rand(count, generator=generator)


def draw_sigmas(sampling: Any, recipe: Recipe, count: int, generator: torch.Generator,
                tokens: int = 0) -> torch.Tensor:
    """Draw one noise level per sample, (count,) float32 on the CPU.

    Noise- and velocity-predicting models draw from their table of levels, uniformly unless told
    otherwise. Flow models draw logit-normal places and send them through a time shift: their own,
    the recipe's, or the one that belongs to the latent's size.

    Args:
        tokens: latent h x w / 4, for the shift by resolution.
    """
    flow = is_flow(sampling)
    logit_normal = recipe.timesteps is Timesteps.LOGIT_NORMAL or (
        recipe.timesteps is Timesteps.AUTO and flow)
    if not flow:
        table = sampling.sigmas.detach().float().cpu()
        if recipe.timesteps in (Timesteps.AUTO, Timesteps.UNIFORM):
            return table[torch.randint(len(table), (count,), generator=generator)]
        places = density(recipe, count, logit_normal, generator) * len(table)
        return table[places.long().clamp(0, len(table) - 1)]
    u = density(recipe, count, logit_normal, generator).clamp(min=1e-4, max=1.0)
    if recipe.shift_by_resolution:
        return shifted(u, resolution_shift(tokens))
    if recipe.shift > 0:
        return shifted(u, recipe.shift)
    return sampling.sigma(u * getattr(sampling, "multiplier", 1.0)).float().cpu()
