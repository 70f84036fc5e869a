"""One forward of a host model over a batch, as training and its checks need it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..frozen.attention import training_attention
from ..frozen.carried import training_options
from ..samples.data import Sample, collate, main_captions, seeded
from . import objectives


def denoise(base: Any, noisy: torch.Tensor, sigmas: torch.Tensor, conds: Mapping[str, Any],
            options: Mapping[str, Any]) -> torch.Tensor:
    """The model's x0 estimate for a batch, one row per sample, in one forward.

    Args:
        options: the transformer options of the MODEL, from `carried.training_options`.
    """
    given = {**options, "optimized_attention_override": training_attention, "cond_or_uncond": [0],
             "sigmas": sigmas}
    return base.apply_model(noisy, sigmas, transformer_options=given, **conds)


def probe(model: Any, sample: Sample, conds: Mapping[str, Any] | None = None) -> torch.Tensor:
    """Prediction error of a loaded MODEL on one photo, with fixed noise at the middle level.

    Args:
        conds: of another text than the photo's first caption.
    """
    sampling, device = model.model.model_sampling, model.load_device
    with torch.no_grad():
        batch = collate([sample], main_captions([sample]), device)
        sigmas = sampling.sigmas[len(sampling.sigmas) // 2].reshape(1).to(device, torch.float32)
        noise = torch.randn(batch.latents.shape, generator=seeded(0, "probe")).to(device)
        noisy = sampling.noise_scaling(sigmas, noise, batch.latents)
        estimate = denoise(model.model, noisy, sigmas, conds or batch.conds,
                           training_options(model.model_options, device))
        return objectives.residual(sampling, sigmas, estimate, batch.latents).float().cpu()
