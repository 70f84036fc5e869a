"""A layer's operation with another weight than its own, and the gradients of that."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..frozen import layers as frozen
from ..frozen.dense import dense, dense_input_gradient

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TO_INPUT = {1: nn.grad.conv1d_input, 2: nn.grad.conv2d_input, 3: nn.grad.conv3d_input}
_TO_WEIGHT = {1: nn.grad.conv1d_weight, 2: nn.grad.conv2d_weight, 3: nn.grad.conv3d_weight}


def padded(module: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """A convolution's input and what is left to pad; a dense layer's as it is."""
    return (x, None) if frozen.is_linear(module) else frozen.pad_input(module, x)


def operate(module: nn.Module, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None,
            padding: Any) -> torch.Tensor:
    """The layer's output for x (..., in), or (B, C, ...), as a tensor of its own and no view."""
    if frozen.is_linear(module):
        return dense(x, weight, bias)
    return CONVOLVE[x.ndim - 2](x, weight, bias, module.stride, padding, module.dilation)


def input_gradient(module: nn.Module, grad: torch.Tensor, weight: torch.Tensor, size: torch.Size,
                   padding: Any) -> torch.Tensor:
    """The gradient of an input of some size from that of the output."""
    if frozen.is_linear(module):
        return dense_input_gradient(grad, weight)
    return _TO_INPUT[grad.ndim - 2](size, weight, grad, module.stride, padding, module.dilation)


def weight_gradient(module: nn.Module, grad: torch.Tensor, x: torch.Tensor,
                    shape: tuple[int, ...], padding: Any) -> torch.Tensor:
    """The gradient of a weight of some shape from that of the output."""
    if frozen.is_linear(module):
        return grad.reshape(-1, grad.shape[-1]).t() @ x.reshape(-1, x.shape[-1])
    return _TO_WEIGHT[grad.ndim - 2](x, shape, grad, module.stride, padding, module.dilation)


def bias_gradient(module: nn.Module, grad: torch.Tensor) -> torch.Tensor:
    """The gradient of a bias (out,), float32, from that of the output."""
    channel = grad.ndim - 1 if frozen.is_linear(module) else 1
    return grad.sum([dim for dim in range(grad.ndim) if dim != channel], dtype=torch.float32)
