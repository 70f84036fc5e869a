"""Training losses from the x0 estimate that a ComfyUI model returns, whatever it predicts inside.

A host model turns its network's output into x0 = a x + b output, so dividing the error of x0 by b
gives back the error of the network's own target: noise, velocity or flow, without a switch.
"""

from __future__ import annotations

from typing import Any

import torch


def prediction_slope(sampling: Any, sigma: torch.Tensor, dimensions: int) -> torch.Tensor:
    """b in x0 = a x + b output for each sample, shaped (B, 1, 1, ...)."""
    ones = torch.ones((len(sigma),) + (1,) * (dimensions - 1), device=sigma.device)
    return sampling.calculate_denoised(sigma, ones, torch.zeros_like(ones))


def signal_to_noise(sampling: Any, sigma: torch.Tensor, dimensions: int) -> torch.Tensor:
    """Signal-to-noise ratio of the noised latent for each sample, shaped (B, 1, 1, ...)."""
    ones = torch.ones((len(sigma),) + (1,) * (dimensions - 1), device=sigma.device)
    zeros = torch.zeros_like(ones)
    signal = sampling.noise_scaling(sigma, zeros.clone(), ones)
    noise = sampling.noise_scaling(sigma, ones.clone(), zeros)
    return (signal / noise) ** 2


def target_error(sampling: Any, sigma: torch.Tensor, estimate: torch.Tensor,
                 latent: torch.Tensor) -> torch.Tensor:
    """Squared error of the network's own target, element by element.

    Args:
        sigma: (B,) noise levels.
        estimate: (B, C, ...) x0 as the model returned it.
        latent: (B, C, ...) the true x0 at the model's scale.
    """
    return ((estimate - latent) / prediction_slope(sampling, sigma, latent.ndim)).square()


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

    Without the division a small face would train with a small learning rate.

    Args:
        error: (B, C, ..., h, w).
        weight: (B, h, w).
    """
    weight = weight.reshape(len(weight), *(1,) * (error.ndim - 3), *weight.shape[-2:])
    each = tuple(range(1, error.ndim))
    return (error * weight).mean(each) / weight.mean(each)


def face_share(mask: torch.Tensor, background: float) -> float:
    """The part of a photo's whole loss weight that lies on its face, from a mask (h, w)."""
    weight = face_weight(mask, background)
    return float((weight * mask).sum() / weight.sum())
