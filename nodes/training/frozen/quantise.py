"""Frozen weights in 8 or 4 bits while others learn, the model's own left where they lie.

fp8: e4m3 with one power of two per output row as its scale. Against a scale per tensor that keeps
rows of small weights (error per row 0.026, not 0.25, where rows differ a thousandfold); against an
exact scale it costs 0.2 % of the error, makes dequantising exact in every number format and takes
weights over unchanged that are stored as e4m3 already.

NF4: QLoRA's 4-bit format with double quantisation (https://arxiv.org/abs/2305.14314).
"""

from __future__ import annotations

import functools
import importlib
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.lora
import torch
from torch import nn

from ... import runtime
from ...errors import LikenessError
from ..recipes.fields import BaseWeights
from . import layers as frozen
from .formats import is_packed, stored_bytes
from .scope import Scope

logger = logging.getLogger("likeness")

BLOCK = 64  # weights under one NF4 scale
_SCALES = 256  # NF4 scales under one scale of their own
_PIECE = 1 << 22  # weights quantised at once, a multiple of BLOCK; bounds what lies in memory
_E4M3_MAX = 448.0
# Large layers alone are worth a code; the convolutions that touch the latent are small and matter.
_SMALLEST_LINEAR, _SMALLEST_CONV = 4096, 65536
# Quantiles of a normal distribution, scaled to [-1, 1] with an exact zero (QLoRA, appendix E).
_NF4 = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
        0.7229568362236023, 1.0)


@dataclass(frozen=True, eq=False)
class QuantisedWeight:
    """One weight as codes and scales."""

    kind: BaseWeights
    shape: tuple[int, ...]
    codes: torch.Tensor  # e4m3 in `shape`, or (numel / 2,) uint8: two 4-bit codes, first one high
    scales: torch.Tensor  # (rows,) float32, or (blocks,) uint8
    outer: torch.Tensor | None = None  # NF4: (blocks / 256, 2) float32, step and middle of scales

    @property
    def bytes(self) -> int:
        """What the codes and scales take."""
        return sum(part.nbytes for part in (self.codes, self.scales, self.outer)
                   if part is not None)

    def dequantise(self, dtype: torch.dtype, device: torch.device | None = None) -> torch.Tensor:
        """The weight in `shape`, on the codes' device or another."""
        if self.kind is BaseWeights.FP8:
            ones = (1,) * (len(self.shape) - 1)
            weight = self.codes.to(dtype) * self.scales.to(dtype).view(-1, *ones)
        else:
            scales = self._block_scales()
            kernel = _kernel(self.codes.device)
            expand = _expand if kernel is None else functools.partial(_run_kernel, kernel)
            weight = expand(self.codes, scales, self.shape, dtype)
        return weight if device is None else weight.to(device)

    def _block_scales(self) -> torch.Tensor:
        """The NF4 blocks' scales (blocks,) in float32."""
        step, middle = self.outer.repeat_interleave(_SCALES, 0)[:len(self.scales)].unbind(1)
        return (self.scales.float() - 128).mul_(step).add_(middle)


@torch.no_grad()
def quantise(weight: torch.Tensor, kind: BaseWeights, device: torch.device) -> QuantisedWeight:
    """Codes of a weight on a device.

    Raises:
        LikenessError: the weight holds values that are no numbers.
    """
    weight = weight.detach().to(device, torch.float32)
    if not weight.isfinite().all():
        raise LikenessError("A weight of the model holds values that are no numbers, so it cannot "
                            "be quantised; load another file of the model.")
    made = _fp8 if kind is BaseWeights.FP8 else _nf4
    return made(weight)


def _fp8(weight: torch.Tensor) -> QuantisedWeight:
    highest = weight.reshape(len(weight), -1).abs().amax(1)
    mantissa, exponent = torch.frexp(highest / _E4M3_MAX)
    # The smallest power of two that is not below; frexp gives 2^n as 0.5 * 2^(n+1).
    exponent = (exponent - (mantissa == 0.5).int()).clamp_(-126, 126)
    scales = torch.where(highest > 0, torch.exp2(exponent.float()), torch.ones_like(highest))
    codes = (weight / scales.view(-1, *(1,) * (weight.ndim - 1))).to(torch.float8_e4m3fn)
    return QuantisedWeight(BaseWeights.FP8, tuple(weight.shape), codes, scales)


def _nf4(weight: torch.Tensor) -> QuantisedWeight:
    flat = weight.reshape(-1)
    flat = nn.functional.pad(flat, (0, -flat.numel() % BLOCK))
    levels = torch.tensor(_NF4, device=flat.device)
    middles = (levels[1:] + levels[:-1]) / 2
    codes, highest = [], []
    for piece in flat.split(_PIECE):
        blocks = piece.view(-1, BLOCK)
        highest.append(blocks.abs().amax(1))
        unit = blocks / highest[-1].clamp(min=torch.finfo(torch.float32).tiny)[:, None]
        # Values on the exact middle go down, as in bitsandbytes.
        index = torch.bucketize(unit, middles, out_int32=True).to(torch.uint8).view(-1, 2)
        codes.append(index[:, 0] << 4 | index[:, 1])
    scales, outer = _quantise_scales(torch.cat(highest))
    return QuantisedWeight(BaseWeights.NF4, tuple(weight.shape), torch.cat(codes), scales, outer)


def _quantise_scales(highest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales (blocks,) as bytes, with step and middle of each 256 of them."""
    missing = -len(highest) % _SCALES
    # The last scale again, so that filling widens no range.
    rows = torch.cat([highest, highest[-1:].expand(missing)]).view(-1, _SCALES)
    low, high = rows.amin(1), rows.amax(1)
    middle = (low + high) / 2
    step = (high - low).div_(2 * 127).clamp_(min=torch.finfo(torch.float32).tiny)
    scales = ((rows - middle[:, None]) / step[:, None]).round_().add_(128).clamp_(1, 255)
    scales = scales.to(torch.uint8).view(-1)[:len(highest)].clone()
    return scales, torch.stack([step, middle], 1)


def _expand(codes: torch.Tensor, scales: torch.Tensor, shape: tuple[int, ...],
            dtype: torch.dtype) -> torch.Tensor:
    """The weight of NF4 codes and their blocks' scales (blocks,)."""
    levels = torch.tensor(_NF4, device=codes.device)
    pairs = torch.stack([levels.repeat_interleave(16), levels.repeat(16)], 1)
    values = nn.functional.embedding(codes.int(), pairs).view(-1, BLOCK)
    values.mul_(scales[:, None])
    return values.view(-1)[:math.prod(shape)].view(shape).to(dtype)


def _run_kernel(functional: Any, codes: torch.Tensor, scales: torch.Tensor, shape: tuple[int, ...],
                dtype: torch.dtype) -> torch.Tensor:
    """The same by bitsandbytes, whose layout this is."""
    padded = 2 * codes.numel()
    state = functional.QuantState(
        absmax=scales, shape=torch.Size((padded,)), dtype=dtype, blocksize=BLOCK, quant_type="nf4",
        code=torch.tensor(_NF4, device=codes.device))
    flat = functional.dequantize_4bit(codes.view(-1, 1), state).reshape(-1)
    return flat[:math.prod(shape)].view(shape)


@functools.cache
def _kernel(device: torch.device) -> Any | None:
    """bitsandbytes' functions where they run on a GPU; None: torch alone."""
    if device.type != "cuda":
        return None
    try:
        functional = importlib.import_module("bitsandbytes.functional")
        codes = torch.arange(BLOCK // 2, dtype=torch.uint8, device=device) * 7
        sample = codes, torch.full((1,), 0.5, device=device), (BLOCK,), torch.float32
        if torch.allclose(_run_kernel(functional, *sample), _expand(*sample)):
            return functional
    except (ImportError, RuntimeError, OSError, AttributeError, TypeError) as err:
        logger.info("4-bit weights are read by torch alone (bitsandbytes: %s).", err)
    return None


@dataclass(frozen=True)
class QuantisedLayers:
    """What lies on the compute device while a scope lasts."""

    kind: BaseWeights
    layers: int  # that are codes
    parameters: int  # weights in them
    bytes: int  # of their codes and scales
    kept_bytes: int  # of everything else: norms, biases, small layers
    error: float  # Frobenius norm of what was lost over that of the weights


def set_objects(scope: Scope, patcher: Any) -> None:
    """Put a patcher's object patches in place, as the host does when it loads the weights.

    What another clone has left on the model they share is taken back as long.
    """
    for path, value in {**patcher.object_patches_backup, **patcher.object_patches}.items():
        scope.set_object(patcher.model, path, value)


def device_bytes(patcher: Any, network: nn.Module, kind: BaseWeights,
                 skip: Collection[nn.Module] = ()) -> int:
    """What `quantise_layers` will put on the compute device: codes, and copies of the rest."""
    large = {module for module in network.modules() if _is_large(module)} - set(skip)
    total = 0
    for path, module in patcher.model.named_modules():
        if module in skip or isinstance(module, nn.Embedding):
            continue
        codes = module in large and not _is_small_already(patcher, f"{path}.weight", module, kind)
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if codes and name == "weight":
                total += _code_bytes(parameter.shape, kind)
            elif f"{path}.{name}" in patcher.patches:
                total += _copy_format(parameter).itemsize * parameter.numel()
            else:
                total += stored_bytes(parameter)
        total += sum(buffer.nbytes for buffer in module._buffers.values() if buffer is not None)
    return total


def _code_bytes(shape: Sequence[int], kind: BaseWeights) -> int:
    size = math.prod(shape)
    if kind is BaseWeights.FP8:
        return size + 4 * shape[0]
    blocks = math.ceil(size / BLOCK)
    return blocks * BLOCK // 2 + blocks + 8 * math.ceil(blocks / _SCALES)


@torch.no_grad()
def quantise_layers(scope: Scope, patcher: Any, network: nn.Module, kind: BaseWeights,
                    device: torch.device, skip: Collection[nn.Module] = ()) -> QuantisedLayers:
    """Make the large layers of a host model compute from codes until the scope ends.

    Codes are built from the patched weights (upstream LoRAs included), whether or not the model is
    loaded, and never from ones that the host has rounded. Everything small gets a copy on the
    device, so the model itself can stay where it is offloaded. Call it before `attach`, outside
    inference mode.

    Args:
        patcher: the MODEL or the encoder's patcher; only read.
        network: the part of `patcher.model` whose layers become codes.
        skip: layers that are left as they are, because they learn.

    Raises:
        LikenessError: another extension wraps the weights, or they hold no numbers.
    """
    if getattr(patcher, "weight_wrapper_patches", None):
        raise LikenessError("The MODEL carries wrapped weights of another node, which cannot be "
                            "quantised; set `base_weights` to as loaded or remove that node.")
    large = {module for module in network.modules() if _is_large(module)} - set(skip)
    layers, parameters, held_bytes, kept, lost, size = 0, 0, 0, 0, 0.0, 0.0
    for path, module in patcher.model.named_modules():
        if module in skip or isinstance(module, nn.Embedding):
            continue
        runtime.throw_if_cancelled()
        for name in ("weight_function", "bias_function"):
            if getattr(module, name, ()):  # the patches they apply are in the copies
                scope.set_attribute(module, name, [])
        codes = module in large and not _is_small_already(patcher, f"{path}.weight", module, kind)
        if codes:
            weight = _patched(patcher, module, "weight", f"{path}.weight", device)
            made = quantise(weight, kind, device)
            size += float(weight.square().sum())
            lost += float(weight.sub_(made.dequantise(torch.float32)).square_().sum())
            scope.set_attribute(module, frozen.QUANTISED, made)
            layers, parameters = layers + 1, parameters + weight.numel()
            held_bytes += made.bytes
        kept += _copy_small(scope, patcher, path, module, device, codes)
    return QuantisedLayers(kind, layers, parameters, held_bytes, kept,
                           math.sqrt(lost / size) if size else 0.0)


def _is_large(module: nn.Module) -> bool:
    if frozen.is_linear(module):
        return module.in_features * module.out_features >= _SMALLEST_LINEAR
    return frozen.is_conv(module) and module.weight.numel() >= _SMALLEST_CONV


def _is_small_already(patcher: Any, key: str, module: nn.Module, kind: BaseWeights) -> bool:
    """Whether fp8 would gain nothing over the format that the weight is stored in."""
    return (kind is BaseWeights.FP8 and _is_coded(module.weight)
            and key not in patcher.patches)


def _is_coded(parameter: torch.Tensor) -> bool:
    return is_packed(parameter) or parameter.element_size() == 1


def _copy_format(parameter: torch.Tensor) -> torch.dtype:
    """The number format of a parameter's patched copy, which is never rounded to codes again."""
    return torch.float32 if _is_coded(parameter) else parameter.dtype


def _stored(patcher: Any, module: nn.Module, name: str, key: str) -> torch.Tensor:
    """A parameter before the host patched it in place."""
    kept: Mapping[str, Any] = patcher.backup
    return (kept[key].weight if key in kept else module._parameters[name]).detach()


def _patched(patcher: Any, module: nn.Module, name: str, key: str,
             device: torch.device) -> torch.Tensor:
    """A parameter's patched value in float32, a tensor of its own."""
    stored = _stored(patcher, module, name, key).to(device)
    if is_packed(stored):
        stored = stored.dequantize()
    value = stored.to(torch.float32, copy=True)
    scale = getattr(module, "scale_weight", None)
    if name == "weight" and scale is not None:
        value *= scale.to(value)
    if key in patcher.patches:
        value = comfy.lora.calculate_weight(patcher.patches[key], value, key)
    return value


def _copy_small(scope: Scope, patcher: Any, path: str, module: nn.Module, device: torch.device,
                codes: bool) -> int:
    """Put copies of a module's own tensors on the device; how many bytes they take."""
    taken = 0
    for name, parameter in list(module._parameters.items()):
        if parameter is None or (codes and name == "weight"):
            continue
        key = f"{path}.{name}"
        if name == "scale_weight" and f"{path}.weight" in patcher.patches:
            copy = torch.ones_like(parameter, device=device)  # the patched weight is scaled already
        elif key in patcher.patches:
            copy = _patched(patcher, module, name, key, device).to(_copy_format(parameter))
        else:
            copy = _stored(patcher, module, name, key).to(device, copy=True)
        scope.swap_parameter(module, name, copy)
        taken += stored_bytes(copy)
    for name, buffer in list(module._buffers.items()):
        if buffer is not None:
            scope.swap_buffer(module, name, buffer.detach().to(device, copy=True))
            taken += buffer.nbytes
    return taken
