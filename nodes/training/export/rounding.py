"""Rounding that keeps small changes on average, where rounding to the nearest would lose them."""

from __future__ import annotations

import torch


def round_evenly(value: torch.Tensor, dtype: torch.dtype,
                 generator: torch.Generator) -> torch.Tensor:
    """Round float32 values up or down to a format's next ones, as likely as they are near.

    A change of a hundredth of a unit then moves one weight of a hundred by a unit, and the sum is
    as it was (stochastic rounding, https://arxiv.org/abs/1502.02551). What the format holds
    exactly stays as it is.

    Args:
        dtype: float16 or bfloat16; others keep the values.

    Returns:
        The rounded values in float32, on the CPU.
    """
    value = value.detach().to("cpu", torch.float32)
    if dtype not in (torch.float16, torch.bfloat16):
        return value
    info = torch.finfo(dtype)
    # A float32's power of two, exact: its exponent alone, without sign and fraction.
    power = (value.view(torch.int32) & 0x7F800000).view(torch.float32).clamp_(min=info.tiny)
    unit = power.mul_(info.eps)
    steps = value / unit
    low = steps.floor()
    drawn = torch.rand(value.shape, generator=generator)
    return low.add_(drawn < steps - low).mul_(unit).clamp_(info.min, info.max)
