"""A frozen layer with a product of two thin factors beside it: `W x + scale * up (down x)`."""

from __future__ import annotations

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from ..frozen import layers as frozen
from ..frozen.dense import dense_input_gradient
from .operation import CONVOLVE


def low_rank(module: nn.Module, x: torch.Tensor, down: torch.Tensor, up: torch.Tensor,
             scale: float, columns: torch.Tensor | None = None) -> torch.Tensor:
    """The layer's output for x (..., in), or (B, C, ...), with a side path of thin products.

    Args:
        down: (rank, in) of a dense layer, (rank, in, ...) of a convolution.
        up: (out, rank).
        columns: (in,), what the input's channels are multiplied by before all else.
    """
    if frozen.is_linear(module):
        return _LowRankLinear.apply(x, down, up, scale, module, columns)
    if columns is not None:
        x = scaled(x, columns, 1)
    wide, padding = frozen.pad_input(module, x)
    convolve, ones = CONVOLVE[x.ndim - 2], (1,) * (x.ndim - 2)
    hidden = convolve(wide, down.to(x.dtype), None, module.stride, padding, module.dilation)
    return frozen.frozen_conv(module, x) + convolve(
        hidden * scale, up.to(x.dtype).reshape(*up.shape, *ones))


def scaled(x: torch.Tensor, columns: torch.Tensor, channel: int) -> torch.Tensor:
    """x with the channels of one dimension multiplied by float32 factors, rounded only then."""
    sizes = [1] * x.ndim
    sizes[channel] = -1
    return (x * columns.reshape(sizes)).to(x.dtype)


class _LowRankLinear(torch.autograd.Function):
    """Base and side path in one node: saves x and the thin product, nothing of the base."""

    @staticmethod
    def forward(ctx, x, down, up, scale, module, columns):
        ctx.scale, ctx.module = scale, module
        used = x if columns is None else scaled(x, columns, -1)
        flat = used.reshape(-1, x.shape[-1])
        hidden = flat @ down.to(x.dtype).t()
        y = frozen.product(module, used)
        y.view(-1, y.shape[-1]).addmm_(hidden, up.to(x.dtype).t(), alpha=scale)
        ctx.save_for_backward(x, hidden, down, up, columns)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, hidden, down, up, columns = ctx.saved_tensors
        scale, used = ctx.scale, x if columns is None else scaled(x, columns, -1)
        flat = grad.reshape(-1, grad.shape[-1])
        # Libraries are several times faster where the long dimension of a thin factor lies close.
        thin = flat @ up.t().to(grad.dtype).contiguous().t()
        grad_up = _times((hidden.t() @ flat).t().to(up.dtype).contiguous(), scale)
        grad_down = _times((thin.t() @ used.reshape(-1, x.shape[-1])).to(down.dtype), scale)
        grad_x = grad_columns = None
        if ctx.needs_input_grad[0] or columns is not None:
            weight, bias, stream = frozen.read_weight(ctx.module, grad)
            grad_x = dense_input_gradient(flat, weight).addmm_(
                thin, down.to(grad.dtype), alpha=scale).view(x.shape)
            frozen.release(ctx.module, weight, bias, stream)
        if columns is not None:
            grad_columns = (grad_x * x).reshape(-1, x.shape[-1]).sum(0, dtype=columns.dtype)
            grad_x = scaled(grad_x, columns, -1)
        return grad_x, grad_down, grad_up, None, None, grad_columns


def _times(gradient: torch.Tensor, scale: float) -> torch.Tensor:
    return gradient if scale == 1 else gradient.mul_(scale)
