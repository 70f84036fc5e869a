"""Training losses from the x0 estimate that a ComfyUI model returns, whatever it predicts inside.

A host model turns its network's output into x0 = a x + b output, so dividing the error of x0 by b
gives back the error of the network's own target: noise, velocity or flow, without a switch.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from ...errors import LikenessError
from ..parametrisation import (
    is_flow,
    is_velocity,
    noise_level,
    prediction_slope,
    signal_to_noise,
)
from ..recipes.base import Recipe
from ..recipes.fields import HuberSchedule, Loss, Weighting


def residual(sampling: Any, sigma: torch.Tensor, estimate: torch.Tensor,
             wanted: torch.Tensor) -> torch.Tensor:
    """Error of the network's own target, element by element.

    Args:
        sigma: (B,) noise levels.
        estimate: (B, C, ...) x0 as the model returned it.
        wanted: (B, C, ...) the true x0 at the model's scale, or another estimate.
    """
    return (estimate - wanted) / prediction_slope(sampling, sigma, wanted.ndim)


def element_loss(error: torch.Tensor, recipe: Recipe, sampling: Any,
                 sigma: torch.Tensor) -> torch.Tensor:
    """What each element of a residual costs: squared, or linear beyond a width.

    The pseudo-Huber forms and their schedules are those of sd-scripts (arXiv 2403.16728): 2 c
    (sqrt(e^2 + c^2) - c), and without the leading c for smooth L1.
    """
    if recipe.loss is Loss.SQUARED:
        return error.square()
    width = _huber_width(recipe, sampling, sigma, error.ndim)
    rounded = 2 * ((error.square() + width.square()).sqrt() - width)
    return rounded * width if recipe.loss is Loss.HUBER else rounded


def _huber_width(recipe: Recipe, sampling: Any, sigma: torch.Tensor,
                 dimensions: int) -> torch.Tensor:
    least = recipe.huber_width
    shape = (len(sigma),) + (1,) * (dimensions - 1)
    match recipe.huber_schedule:
        case HuberSchedule.EXPONENTIAL:
            return least ** noise_level(sampling, sigma).reshape(shape)
        case HuberSchedule.SNR:
            ratio = signal_to_noise(sampling, sigma, dimensions).rsqrt()  # noise over signal
            return (1 - least) / (1 + ratio).square() + least
    return torch.full(shape, least, device=sigma.device)


def check_weighting(sampling: Any, recipe: Recipe) -> None:
    """Refuse a weighting that is defined for the other kind of model.

    Raises:
        LikenessError: a flow weighting for a noise- or velocity-predicting model, or the reverse.
    """
    flow = is_flow(sampling)
    if flow and recipe.weighting is Weighting.DEBIASED:
        raise LikenessError("`weighting` debiased is defined for noise- and velocity-predicting "
                            "models, this one predicts flow; choose auto.")
    if not flow and recipe.weighting in (Weighting.SIGMA_SQRT, Weighting.COSMAP):
        raise LikenessError(f"`weighting` {recipe.weighting.value} is defined for flow models, "
                            "this one predicts noise or velocity; choose auto.")


def uses_min_snr(sampling: Any, recipe: Recipe) -> bool:
    """Whether a recipe's min-SNR gamma weighs the losses of a model."""
    return recipe.weighting is Weighting.AUTO and recipe.min_snr > 0 and not is_flow(sampling)


def weighting(sampling: Any, sigma: torch.Tensor, recipe: Recipe,
              dimensions: int) -> torch.Tensor:
    """Weight of each sample's target error, shaped (B, 1, 1, ...).

    Debiased: 1 / sqrt(SNR) on noise (arXiv 2310.08442), 1 / (SNR + 1) on velocity, SNR at most
    1000, as in sd-scripts. Sigma sqrt and cosmap: arXiv 2403.03206, section 3.1.
    """
    shaped = sigma.reshape((len(sigma),) + (1,) * (dimensions - 1))
    match recipe.weighting:
        case Weighting.AUTO if uses_min_snr(sampling, recipe):
            return min_snr_weight(sampling, sigma, recipe.min_snr, dimensions)
        case Weighting.DEBIASED:
            snr = signal_to_noise(sampling, sigma, dimensions).clamp(max=1000)
            return 1 / (snr + 1) if is_velocity(sampling) else snr.rsqrt()
        case Weighting.SIGMA_SQRT:
            return shaped ** -2.0
        case Weighting.COSMAP:
            return 2 / (math.pi * (1 - 2 * shaped + 2 * shaped.square()))
    return torch.ones_like(shaped)


def min_snr_weight(sampling: Any, sigma: torch.Tensor, gamma: float,
                   dimensions: int) -> torch.Tensor:
    """Min-SNR weight of the target's error, (B, 1, 1, ...) (https://arxiv.org/abs/2303.09556).

    The paper weights the x0 error by min(SNR, gamma). With b^2 it becomes min(SNR, gamma) / SNR on
    noise and min(SNR, gamma) / (SNR + 1) on velocity.
    """
    snr = signal_to_noise(sampling, sigma, dimensions)
    return snr.clamp(max=gamma) * prediction_slope(sampling, sigma, dimensions).square()


def face_weight(mask: torch.Tensor, background: float) -> torch.Tensor:
    """Loss weight from a face mask in [0, 1]: 1 on the face, `background` elsewhere."""
    return background + (1 - background) * mask


def masked_mean(error: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean over everything but the batch, (B,): sum(e w) / sum(w).

    Without the division a small face would train with a small learning rate. A sample without
    any weight gives 0.

    Args:
        error: (B, C, ..., h, w).
        weight: (B, h, w).
    """
    weight = weight.reshape(len(weight), *(1,) * (error.ndim - 3), *weight.shape[-2:])
    each = tuple(range(1, error.ndim))
    return (error * weight).mean(each) / weight.mean(each).clamp(min=1e-8)


def face_share(mask: torch.Tensor, background: float) -> float:
    """The part of a photo's whole loss weight that lies on its face, from a mask (h, w)."""
    weight = face_weight(mask, background)
    return float((weight * mask).sum() / weight.sum())
