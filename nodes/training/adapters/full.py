"""Layers that learn in full: their own float32 weights in the place of the frozen ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from ..frozen import layers as frozen
from ..recipes.whole import DreamBoothRecipe
from .layer import AdapterLayer, take
from .operation import bias_gradient, input_gradient, operate, padded, weight_gradient


class FullLayer(AdapterLayer):
    """A float32 copy of a layer's weight, and of its bias if it has one.

    It is used instead of the host's own, which stays as it is: what samples or saves the cached
    model meanwhile sees nothing of the training.
    """

    additive = False

    def __init__(self, path: str, module: nn.Module, recipe: DreamBoothRecipe,
                 generator: torch.Generator, device: torch.device) -> None:
        super().__init__(module)
        weight, bias, stream = frozen.read_weight(module, torch.empty(0, device=device))
        self.weight = nn.Parameter(_copy(weight, module.weight).reshape(self.shape))
        self.bias = None if bias is None else nn.Parameter(_copy(bias, module.bias))
        frozen.release(module, weight, bias, stream)

    def difference(self, weight: torch.Tensor,
                   rounded_to: torch.dtype = torch.float32) -> torch.Tensor:
        return self.weight.to(rounded_to).float() - weight

    def to_file(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        return {name: value.detach().to("cpu", dtype).contiguous()
                for name, value in self.named_parameters()}

    def from_file(self, tensors: Mapping[str, torch.Tensor]) -> None:
        take(dict(self.named_parameters()), tensors)

    def forward(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x, padding = padded(module, x)
        return _OwnWeight.apply(x, self.weight, self.bias, module, padding)


def _copy(value: torch.Tensor, stored: torch.Tensor) -> torch.Tensor:
    """A float32 copy of a value, on the grid of the format that its file keeps it in.

    The host rounds a patched weight when it loads it whole, and does not when it streams it; what
    is learned must start from the same values either way.
    """
    value = value.detach()
    if stored.dtype in (torch.float16, torch.bfloat16):
        value = value.to(stored.dtype)
    return value.to(torch.float32, copy=True)


class _OwnWeight(torch.autograd.Function):
    """The layer's operation with a float32 weight that is cast anew in the backward pass."""

    @staticmethod
    def forward(ctx, x, weight, bias, module, padding):
        ctx.module, ctx.padding = module, padding
        ctx.save_for_backward(x, weight)
        return operate(module, x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype),
                       padding)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        module, padding = ctx.module, ctx.padding
        grad_x = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = input_gradient(module, grad, weight.to(grad.dtype), x.shape, padding)
        if ctx.needs_input_grad[2]:
            grad_bias = bias_gradient(module, grad)
        grad_weight = weight_gradient(module, grad, x, weight.shape, padding)
        return grad_x, grad_weight.to(weight.dtype), grad_bias, None, None
