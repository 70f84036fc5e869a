"""Low-rank adapters: `W x + scale * up (down x)`.

Where the rank is large for the layer the product `up down` is cheaper than the two thin ones, and
such layers add it to W instead.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from ... import runtime
from ...errors import LikenessError
from .. import frozen
from ..recipes.adapters import LoRARecipe
from .layer import AdapterLayer


class LoRALayer(AdapterLayer):
    """One adapter: down (rank, in) random, up (out, rank) zero.

    Raises:
        LikenessError: the rank exceeds what the layer can hold.
    """

    def __init__(self, path: str, module: nn.Module, recipe: LoRARecipe,
                 generator: torch.Generator, device: torch.device) -> None:
        super().__init__()
        # A quantised layer's stored tensor need not have the layer's shape.
        linear = frozen.is_linear(module)
        inputs = module.in_features if linear else module.in_channels
        outputs = module.out_features if linear else module.out_channels
        rank = recipe.rank_of(path)
        if rank > min(inputs, outputs):
            raise LikenessError(f"`rank` {rank} is larger than layer `{path}` ({inputs} to "
                                f"{outputs}); lower it to {min(inputs, outputs)} or less.")
        self.scale = recipe.scale_of(rank)
        self.shape = (outputs, inputs) + (() if linear else tuple(module.kernel_size))
        # Kaiming-uniform with a = sqrt(5), as PEFT and kohya do; random here and zero in `up`
        # trains better at large rates than the reverse (https://arxiv.org/abs/2406.08447).
        bound = inputs ** -0.5
        down = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(down.to(device))
        self.up = nn.Parameter(torch.zeros(outputs, rank, device=device))
        self.materialise = linear and 3 * rank * (inputs + outputs) >= inputs * outputs

    def difference(self, weight: torch.Tensor,
                   rounded_to: torch.dtype = torch.float32) -> torch.Tensor:
        up, down = (part.to(rounded_to).float() for part in (self.up, self.down))
        return (self.scale * (up @ down)).reshape(self.shape)

    def to_file(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        ones = (1,) * (len(self.shape) - 2)  # kohya stores a convolution's parts in 4 dimensions
        tensors = {}
        for name, part in (("down", self.down), ("up", self.up)):
            part = part.detach().to("cpu", dtype)
            tensors[f"lora_{name}.weight"] = part.reshape(*part.shape, *ones).contiguous()
        # The loader divides by the rank; half would round 0.3.
        return {**tensors, "alpha": torch.tensor(self.scale * len(self.down))}

    @torch.no_grad()
    def from_file(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, own in (("down", self.down), ("up", self.up)):
            own.copy_(tensors[f"lora_{name}.weight"].reshape(own.shape))

    def forward(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        runtime.throw_if_cancelled()
        if not frozen.is_linear(module):
            return self._pointwise(module, x)
        # In half precision a sum of weight and small difference would round the difference away.
        if self.materialise and x.dtype == torch.float32:
            return _MaterialisedLinear.apply(x, self.down, self.up, self.scale, module)
        return _LowRankLinear.apply(x, self.down, self.up, self.scale, module)

    def _pointwise(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        ones = (1,) * (x.ndim - 2)
        down, up = (part.to(x.dtype).reshape(*part.shape, *ones) for part in (self.down, self.up))
        convolve = F.conv2d if x.ndim == 4 else F.conv3d if x.ndim == 5 else F.conv1d
        hidden = convolve(x, down, stride=module.stride)
        return frozen.frozen_conv(module, x) + convolve(hidden * self.scale, up)


class _LowRankLinear(torch.autograd.Function):
    """Base and side path in one node: saves x and the thin product, nothing of the base."""

    @staticmethod
    def forward(ctx, x, down, up, scale, module):
        flat = x.reshape(-1, x.shape[-1])
        hidden = flat @ down.to(x.dtype).t()
        y = frozen.product(module, x)
        y.view(-1, y.shape[-1]).addmm_(hidden, up.to(x.dtype).t(), alpha=scale)
        ctx.save_for_backward(x, hidden, down, up)
        ctx.scale, ctx.module = scale, module
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, hidden, down, up = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        thin = (flat @ up.to(grad.dtype)).mul_(ctx.scale)
        grad_up = (flat.t() @ hidden).to(up.dtype).mul_(ctx.scale)
        grad_down = (thin.t() @ x.reshape(-1, x.shape[-1])).to(down.dtype)
        grad_x = None
        if ctx.needs_input_grad[0]:
            weight, bias, stream = frozen.read_weight(ctx.module, grad)
            grad_x = (flat @ weight).addmm_(thin, down.to(grad.dtype)).view(x.shape)
            frozen.release(ctx.module, weight, bias, stream)
        return grad_x, grad_down, grad_up, None, None


class _MaterialisedLinear(torch.autograd.Function):
    """The product with `W + scale * up down`, which is formed again in the backward pass."""

    @staticmethod
    def forward(ctx, x, down, up, scale, module):
        ctx.save_for_backward(x, down, up)
        ctx.scale, ctx.module = scale, module
        return frozen.product(module, x, (up @ down).mul_(scale))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, down, up = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        grad_weight = (flat.t() @ x.reshape(-1, x.shape[-1])).mul_(ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            weight, bias, stream = frozen.read_weight(ctx.module, grad)
            grad_x = (flat @ torch.addmm(weight, up, down, alpha=ctx.scale)).view(x.shape)
            frozen.release(ctx.module, weight, bias, stream)
        return grad_x, up.t() @ grad_weight, grad_weight @ down.t(), None, None
