"""What a model predicts, and how it mixes picture and noise, asked of its own `model_sampling`."""

from __future__ import annotations

from typing import Any

import torch


def is_flow(sampling: Any) -> bool:
    """Whether a `model_sampling` mixes signal with noise (rectified flow) or adds noise to it."""
    half, one = torch.tensor([0.5]), torch.ones(1, 1)
    signal = sampling.noise_scaling(half, torch.zeros(1, 1), one)
    return bool((signal - one).abs().max() > 1e-6)


def is_velocity(sampling: Any) -> bool:
    """Whether a model that adds noise predicts velocity: its slope is 1 / sqrt(SNR + 1)."""
    one = torch.ones(1)
    slope = prediction_slope(sampling, one, 1).square() * (signal_to_noise(sampling, one, 1) + 1)
    return not is_flow(sampling) and bool((slope - 1).abs().max() < 1e-4)


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


def noise_level(sampling: Any, sigma: torch.Tensor) -> torch.Tensor:
    """Place of each noise level on the model's own schedule, (B,) in 0 (clean) to 1 (noise)."""
    if is_flow(sampling):
        return sigma.clamp(0, 1)
    table = sampling.sigmas.to(sigma)
    return torch.searchsorted(table, sigma.clamp(max=float(table[-1]))) / (len(table) - 1)
