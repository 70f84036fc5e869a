"""Low-rank adapters beside frozen layers, and how they are hung on a diffusion model.

A layer with an adapter computes `W x + scale * up (down x)`. Where the rank is large for the layer
the product `up down` is cheaper than the two thin ones, and such layers add it to W instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from .. import runtime
from ..errors import LikenessError
from . import frozen
from .recipes import LoRARecipe, Target
from .scope import Scope

_CROSS_ATTENTION = ("cross_attn", "attn2")
_FEED_FORWARD = ("ff", "ffn", "mlp", "img_mlp", "txt_mlp", "feed_forward")
# FLUX-like single blocks hold attention and feed-forward in the same two layers.
_FUSED = ("linear1", "linear2")
# Joint-attention models have an `attn2` too, where no text takes part.
_JOINT = ("x_block", "context_block")


def is_target(path: str, target: Target) -> bool:
    """Whether a dense layer of a diffusion model belongs to a preset, told from its path."""
    parts = path.split(".")
    if target is Target.ALL_LINEAR:
        return True
    if target is Target.CROSS_ATTENTION:
        return any(part in _CROSS_ATTENTION for part in parts) and not any(
            part in _JOINT for part in parts)
    # Embedders have an `mlp` too; what repeats has its block's number before that.
    number = next((at for at, part in enumerate(parts) if part.isdigit()), len(parts))
    inside = parts[number:]
    if any("attn" in part or "attention" in part for part in inside) or (
            "single_blocks" in parts and parts[-1] in _FUSED):
        return True
    return target is Target.ATTENTION_FEED_FORWARD and any(part in _FEED_FORWARD for part in inside)


def target_layers(model: nn.Module, target: Target) -> dict[str, nn.Module]:
    """The layers of a diffusion model that a preset trains, by path.

    Raises:
        LikenessError: the architecture has no layer of this kind.
    """
    found = {}
    for path, module in model.named_modules():
        dense = frozen.is_linear(module) or (
            frozen.is_conv(module) and set(module.kernel_size) == {1} and module.groups == 1)
        if dense and is_target(path, target) and (
                frozen.is_linear(module) or target is Target.ALL_LINEAR):
            found[path] = module
    if not found:
        raise LikenessError(f"{type(model).__name__} has no layers of the preset "
                            f"`{target.value}`; choose `{Target.ALL_LINEAR.value}`.")
    return found


class LoRALayer(nn.Module):
    """One adapter: down (rank, in) Kaiming-uniform, up (out, rank) zero, both float32.

    Raises:
        LikenessError: the rank exceeds what the layer can hold.
    """

    def __init__(self, path: str, module: nn.Module, rank: int, scale: float,
                 generator: torch.Generator, device: torch.device) -> None:
        super().__init__()
        # A quantised layer's stored tensor need not have the layer's shape.
        linear = frozen.is_linear(module)
        inputs = module.in_features if linear else module.in_channels
        outputs = module.out_features if linear else module.out_channels
        if rank > min(inputs, outputs):
            raise LikenessError(f"`rank` {rank} is larger than layer `{path}` ({inputs} to "
                                f"{outputs}); lower it to {min(inputs, outputs)} or less.")
        self.scale = scale
        self.shape = (outputs, inputs) + (() if linear else tuple(module.kernel_size))
        # Kaiming-uniform with a = sqrt(5), as PEFT and kohya do; random here and zero in `up`
        # trains better at large rates than the reverse (https://arxiv.org/abs/2406.08447).
        bound = inputs ** -0.5
        down = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(down.to(device))
        self.up = nn.Parameter(torch.zeros(outputs, rank, device=device))
        self.materialise = linear and 3 * rank * (inputs + outputs) >= inputs * outputs

    def difference(self, rounded_to: torch.dtype = torch.float32) -> torch.Tensor:
        """What the adapter, rounded to a number format, adds to the layer's weight; float32."""
        up, down = (part.to(rounded_to).float() for part in (self.up, self.down))
        return (self.scale * (up @ down)).reshape(self.shape)

    def linear(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """The adapted layer's product with x (..., in)."""
        runtime.throw_if_cancelled()
        # In half precision a sum of weight and small difference would round the difference away.
        if self.materialise and x.dtype == torch.float32:
            return _MaterialisedLinear.apply(x, self.down, self.up, self.scale, module)
        return _LowRankLinear.apply(x, self.down, self.up, self.scale, module)

    def pointwise(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """The adapted 1x1 convolution of x (B, C, ...)."""
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


class LoRA(nn.Module):
    """Every adapter of a run, by the path of its layer in the diffusion model."""

    def __init__(self, model: nn.Module, recipe: LoRARecipe, generator: torch.Generator,
                 device: torch.device) -> None:
        super().__init__()
        self.layers = {path: LoRALayer(path, module, recipe.rank, recipe.scale, generator, device)
                       for path, module in target_layers(model, recipe.target).items()}
        # Registered under numbers because a module's name may not contain a dot.
        self.registered = nn.ModuleList(self.layers.values())

    def tensors(self) -> dict[str, torch.Tensor]:
        """The learned values by name, detached, on the CPU."""
        return {f"{path}.{name}": parameter.detach().cpu().clone()
                for path, layer in self.layers.items()
                for name, parameter in layer.named_parameters()}

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `tensors` gave, in place, so that an optimiser keeps its parameters."""
        with torch.no_grad():
            for path, layer in self.layers.items():
                for name, parameter in layer.named_parameters():
                    parameter.copy_(tensors[f"{path}.{name}"])

    def forwards(self, model: nn.Module) -> Iterator[tuple[nn.Module, Callable]]:
        """The adapted layers with what they run instead of their own forward."""
        for path, layer in self.layers.items():
            module = model.get_submodule(path)
            run = layer.linear if frozen.is_linear(module) else layer.pointwise
            yield module, lambda x, run=run, module=module: run(module, x)


def attach(scope: Scope, base: nn.Module, adapters: LoRA | None, checkpointing: bool) -> None:
    """Make a host model run frozen, with adapters beside some layers, until the scope ends.

    Args:
        base: the host's model object, whose `diffusion_model` is the network.

    Raises:
        LikenessError: a layer that cannot be read, or that something else has replaced.
    """
    model = base.diffusion_model
    adapted = dict(adapters.forwards(model)) if adapters is not None else {}
    large = []
    for path, module in model.named_modules():
        linear = frozen.is_linear(module)
        if linear or frozen.is_conv(module):
            frozen.check_layer(path, module)
            large.append(module)
            run = frozen.frozen_linear if linear else frozen.frozen_conv
            scope.override_forward(module, adapted.get(module) or (
                lambda x, run=run, module=module: run(module, x)))
        elif frozen.is_norm(module):
            scope.override_forward(module, frozen.norm_on_copy(module))
    scope.borrow_small_tensors(base, large)
    if checkpointing:
        for block in frozen.blocks(model):
            scope.override_forward(block, frozen.checkpointed(block))


def set_compute_type(scope: Scope, base: nn.Module, dtype: torch.dtype) -> None:
    """Make a host model compute in another number format until the scope ends."""
    scope.set_attribute(base, "manual_cast_dtype", dtype)
    for module in base.diffusion_model.modules():
        # Norms and embeddings cast their weights to the input only when told to.
        if hasattr(module, "comfy_cast_weights"):
            scope.set_attribute(module, "comfy_cast_weights", True)
