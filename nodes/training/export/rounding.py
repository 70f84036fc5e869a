"""The number formats that weights are stored in, and rounding that keeps small changes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

_PACKED = torch.float8_e4m3fn  # stands for the formats of packed weights, and is the usual one


def is_packed(weight: torch.Tensor) -> bool:
    """Whether a weight is codes and scales in one tensor of a class of the host's own.

    Such a tensor's `dtype` tells nothing: by the host's version it is that of the codes or the one
    that they are computed in.
    """
    return type(weight) not in (torch.Tensor, nn.Parameter)


def stored_bytes(weight: torch.Tensor) -> int:
    """What a weight takes as it is stored; of a packed one, its codes and scales."""
    if not hasattr(weight, "__tensor_flatten__"):
        return weight.nbytes
    names, _ = weight.__tensor_flatten__()
    return sum(stored_bytes(getattr(weight, name)) for name in names)


def coarsest_format(weights: Iterable[torch.Tensor]) -> torch.dtype:
    """The stored number format with the largest rounding; float32 without floating weights.

    Packed weights count as e4m3, also those of 4 bits or of integers.
    """
    kinds = {_PACKED if is_packed(weight) else weight.dtype for weight in weights}
    return max((kind for kind in kinds if kind.is_floating_point),
               key=lambda kind: torch.finfo(kind).eps, default=torch.float32)


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
