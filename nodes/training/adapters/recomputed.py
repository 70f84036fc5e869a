"""Changes of a frozen layer that are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from ..frozen import layers as frozen
from .operation import input_gradient, operate, padded, weight_gradient


def changed(module: nn.Module, x: torch.Tensor, form: Callable[..., torch.Tensor],
            *parameters: torch.Tensor) -> torch.Tensor:
    """The layer with `W + form(*parameters)` as its weight; the graph keeps x and parameters.

    Args:
        form: gives what the weight gains, in the weight's shape and float32.
    """
    x, padding = padded(module, x)
    return _Changed.apply(x, module, padding, form, *parameters)


def beside(module: nn.Module, x: torch.Tensor, run: Callable[..., torch.Tensor],
           *parameters: torch.Tensor) -> torch.Tensor:
    """The layer's output plus `run(x, *parameters)`; the graph keeps x and parameters.

    Args:
        run: gives what the output gains, in x's number format; of a convolution it gets x as the
            layer does, before padding.
    """
    return frozen.run(module, x) + _Again.apply(x, run, *parameters)


def _differentiate(form: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor],
                   ) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A function's value with a graph of its own, and the leaves of that."""
    with torch.enable_grad():
        leaves = [value.detach().requires_grad_() for value in inputs]
        return form(*leaves), leaves


class _Changed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, module, padding, form, *parameters):
        ctx.module, ctx.padding, ctx.form = module, padding, form
        ctx.save_for_backward(x, *parameters)
        weight, bias, stream = frozen.read_weight(module, x)
        first, second = _summands(weight, form(*parameters))
        y = operate(module, x, first, bias, padding)
        if second is not None:
            y += operate(module, x, second, None, padding)
        frozen.release(module, weight, bias, stream)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, *parameters = ctx.saved_tensors
        module, padding = ctx.module, ctx.padding
        difference, leaves = _differentiate(ctx.form, parameters)
        grad_weight = weight_gradient(module, grad, x, difference.shape, padding)
        gradients = torch.autograd.grad(difference, leaves, grad_weight.to(difference.dtype))
        grad_x = None
        if ctx.needs_input_grad[0]:
            weight, bias, stream = frozen.read_weight(module, grad)
            first, second = _summands(weight, difference.detach())
            grad_x = input_gradient(module, grad, first, x.shape, padding)
            if second is not None:
                grad_x += input_gradient(module, grad, second, x.shape, padding)
            frozen.release(module, weight, bias, stream)
        return grad_x, None, None, None, *gradients


def _summands(weight: torch.Tensor, difference: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """One weight to work with; two in half precision, whose sum would lose a small difference."""
    if weight.dtype == torch.float32:
        return weight + difference, None
    return weight, difference.to(weight.dtype)


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, run, *parameters):
        ctx.run = run
        ctx.save_for_backward(x, *parameters)
        return run(x, *parameters)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        value, leaves = _differentiate(ctx.run, ctx.saved_tensors)
        grad_x, *gradients = torch.autograd.grad(value, leaves, grad)
        return grad_x, None, *gradients
