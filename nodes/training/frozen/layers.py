"""Layers of the base model that run without learning and leave nothing of themselves in the graph.

Autograd would keep every frozen weight, or its cast copy, until the backward pass. These functions
read the weight again when its gradient is asked for, so low-VRAM offload really offloads, stored
formats (fp16, fp8, scaled fp8, quantised) are cast for one layer at a time, and weights born under
inference mode never have to be saved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.ops
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from ... import runtime
from ...errors import LikenessError
from .dense import dense, dense_input_gradient
from .formats import is_packed

# Attribute of layers whose weight is held as codes beside it: see `quantise.quantise_layers`.
QUANTISED = "likeness_quantised"

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_INPUT = {1: nn.grad.conv1d_input, 2: nn.grad.conv2d_input, 3: nn.grad.conv3d_input}
# Blocks of ComfyUI's architectures that are not, or not all, direct members of a module list.
_BLOCKS = ("ResBlock", "VideoResBlock", "BasicTransformerBlock", "JointBlock", "DoubleStreamBlock",
           "SingleStreamBlock")
_FRAME = "SpatialTransformer"  # what stands round blocks of U-Nets


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a dense layer; the host's mixed-precision one is no `nn.Linear`."""
    return isinstance(module, nn.Linear) or (
        hasattr(module, "in_features") and hasattr(module, "weight_function"))


def is_conv(module: nn.Module) -> bool:
    """Whether a module is a convolution that is not transposed."""
    return isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a single normalisation, the host's own kinds included."""
    return "Norm" in type(module).__name__ and not any(module.children())


def blocks(root: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a diffusion model, none inside another.

    What stands round a single block of a U-Net (its norm and projections) belongs to it.
    """
    found: list[nn.Module] = []
    covered: set[nn.Module] = set()
    known = [module for module in root.modules() if type(module).__name__ in _BLOCKS]
    listed = [member for group in root.modules() if isinstance(group, nn.ModuleList)
              for member in group if _is_block(member)]
    # Inner lists hold blocks too where an outer one holds whole stages: the smallest come first.
    for block in known + sorted(listed, key=lambda block: sum(1 for _ in block.modules())):
        inside = set(block.modules())
        if not inside & covered:
            found.append(block)
            covered |= inside
    for frame in (module for module in root.modules() if type(module).__name__ == _FRAME):
        held = [block for block in found if block in set(frame.modules())]
        if len(held) == 1:
            found[found.index(held[0])] = frame
    return found


def _is_block(module: nn.Module) -> bool:
    """Whether a member of a list is worth running twice; a resampling layer or a norm is not."""
    return any(module.children()) and any(is_norm(inner) for inner in module.modules())


def check_layer(path: str, module: nn.Module) -> None:
    """Refuse layers whose stored format this code cannot read.

    Raises:
        LikenessError: the layer comes from another extension.
    """
    if type(module).__module__.split(".")[0] not in ("torch", "comfy"):
        raise LikenessError(
            f"Layer `{path}` is a {type(module).__name__} of another extension, whose weights "
            "cannot be read for training; load the model with a core loader.")


def read_weight(module: nn.Module, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None,
                                                                 Any]:
    """Weight and bias as they take part in a product with `like`: cast, dequantised, patched.

    The third value goes to `release` after the last use.
    """
    codes = vars(module).get(QUANTISED)
    if codes is not None:
        bias = None if module.bias is None else module.bias.to(like.device, like.dtype)
        return codes.dequantise(like.dtype, like.device), bias, None
    weight, bias = module.weight, module.bias
    functions = getattr(module, "weight_function", ()) or getattr(module, "bias_function", ())
    scale = getattr(module, "scale_weight", None)
    stored_as_used = (type(weight) in (torch.Tensor, nn.Parameter) and weight.dtype == like.dtype
                      and weight.device == like.device)
    if stored_as_used and not functions and scale is None:
        return weight, bias, None
    if not hasattr(module, "weight_function"):
        cast = {"device": like.device, "dtype": like.dtype}
        return weight.to(**cast), None if bias is None else bias.to(**cast), None
    weight, bias, stream = comfy.ops.cast_bias_weight(
        module, dtype=like.dtype, device=like.device, bias_dtype=like.dtype, offloadable=True)
    if is_packed(weight):  # cast to another format it still is codes, whose products round more
        weight = weight.dequantize().to(like.dtype)
    if scale is not None:
        # The host multiplies scaled fp8 weights outside its cast.
        weight = weight * scale.to(device=weight.device, dtype=weight.dtype)
    return weight, bias, stream


def release(module: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None,
            stream: Any) -> None:
    """Tell the host that a weight from `read_weight` is no longer needed."""
    if stream is not None:
        comfy.ops.uncast_bias_weight(module, weight, bias, stream)


def product(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The layer's product with x (..., in) -> (..., out)."""
    weight, bias, stream = read_weight(module, x)
    y = dense(x, weight, bias)
    release(module, weight, bias, stream)
    return y


class _FrozenLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, module):
        ctx.module = module
        return product(module, x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        weight, bias, stream = read_weight(ctx.module, grad)
        grad_x = dense_input_gradient(grad, weight)
        release(ctx.module, weight, bias, stream)
        return grad_x, None


class _FrozenConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, module, padding):
        ctx.module, ctx.padding, ctx.size = module, padding, x.shape
        return _convolve(module, x, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        module = ctx.module
        weight, bias, stream = read_weight(module, grad)
        grad_x = _CONV_INPUT[grad.ndim - 2](ctx.size, weight, grad, module.stride, ctx.padding,
                                            module.dilation, module.groups)
        release(module, weight, bias, stream)
        return grad_x, None, None


def _convolve(module: nn.Module, x: torch.Tensor, padding: Any) -> torch.Tensor:
    weight, bias, stream = read_weight(module, x)
    y = _CONV[x.ndim - 2](x, weight, bias, module.stride, padding, module.dilation, module.groups)
    release(module, weight, bias, stream)
    return y


def pad_input(module: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """Carry out the padding that a plain convolution cannot; return x and what is left to pad."""
    if module.padding_mode == "zeros" and not isinstance(module.padding, str):
        return x, module.padding
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    return padded, (0,) * (x.ndim - 2)


def frozen_linear(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The layer's product with x (..., in), differentiable in x alone."""
    runtime.throw_if_cancelled()
    if x.requires_grad:
        return _FrozenLinear.apply(x, module)
    return product(module, x)


def frozen_conv(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The convolution of x (B, C, ...), differentiable in x alone."""
    runtime.throw_if_cancelled()
    x, padding = pad_input(module, x)
    if x.requires_grad:
        return _FrozenConv.apply(x, module, padding)
    return _convolve(module, x, padding)


def run(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The frozen layer's output for x (..., in), or (B, C, ...) of a convolution."""
    return frozen_linear(module, x) if is_linear(module) else frozen_conv(module, x)


def norm_on_copy(module: nn.Module) -> Callable[..., Any]:
    """A norm's forward that saves a copy of its input.

    FLUX and its relatives add to the residual stream in place. A norm saves its input, so without
    the copy its gradient is refused, or under checkpointing silently computed from later values.
    Queries and keys that come by head, mostly parts of a larger tensor that the graph keeps for its
    values, are no such stream.
    """
    original = type(module).forward.__get__(module)
    by_head = "RMSNorm" in type(module).__name__

    def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        stream = x.requires_grad and not (by_head and x.ndim == 4)
        return original(x.clone() if stream else x, *args, **kwargs)

    return forward


def checkpointed(original: Callable[..., Any]) -> Callable[..., Any]:
    """A block's forward made one that keeps only its inputs and runs again in the backward pass.

    The block gets copies of its inputs both times: it may write into them, and the second run must
    start from what the first one saw.
    """
    def copy(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.clone()
        return dict(value) if isinstance(value, dict) else value

    def forward(*args: Any, **kwargs: Any) -> Any:
        # Transformer options name the running block and change before the second run.
        args = [dict(value) if isinstance(value, dict) else value for value in args]
        kwargs = {name: dict(value) if isinstance(value, dict) else value
                  for name, value in kwargs.items()}

        def run() -> Any:
            return original(*map(copy, args), **{name: copy(value)
                                                 for name, value in kwargs.items()})

        if not torch.is_grad_enabled():
            return run()
        return checkpoint(run, use_reentrant=False, preserve_rng_state=False)

    return forward
