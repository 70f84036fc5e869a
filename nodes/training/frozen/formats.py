"""The number formats that a model's weights are stored in."""

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
