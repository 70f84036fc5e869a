"""Layers that learn in full: their own float32 weights in the place of the frozen ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from .. import frozen
from ..recipes.whole import DreamBoothRecipe
from .layer import AdapterLayer, frozen_weight, take
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
        self.weight = nn.Parameter(frozen_weight(module, device))
        bias = None if module.bias is None else frozen.read_weight(module, self.weight)[1]
        self.bias = None if bias is None else nn.Parameter(bias.detach().float().clone())

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
