"""LoRA files that diffusers' `load_lora_weights` and ComfyUI load with the same result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import comfy.model_base
import comfy.utils
import torch

from ...errors import LikenessError
from ..adapters.group import Adapters
from ..adapters.layer import AdapterLayer
from .keys import KeyStyle, text_keys

_LORA = {"lora_down.weight", "lora_up.weight", "alpha"}
# Names that the host's one table of FLUX-like layers has for FLUX.2 alone, and for the others alone
# in the same place: a layer has one name in a family.
_FLUX2_BLOCK = ("ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out")
_FLUX1_BLOCK = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")
_FLUX2_SINGLE = ("attn.to_qkv_mlp_proj", "attn.to_out")
_FLUX1_SINGLE = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp", "proj_out")


@dataclass(frozen=True)
class Part:
    """One of diffusers' layers inside a layer of ComfyUI's."""

    name: str  # diffusers' path
    rows: tuple[int, int] | None = None  # first and number in the fused layer; None: all of them
    reorder: Callable[[torch.Tensor], torch.Tensor] | None = None  # its own inverse


def network_parts(model: Any, paths: Iterable[str]) -> dict[str, tuple[Part, ...]]:
    """Diffusers' layers of each layer of a MODEL's network, from the host's own tables.

    Raises:
        LikenessError: diffusers' loader has no name for a layer of this model.
    """
    parts: dict[str, list[Part]] = {}
    for name, place in _table(model).items():
        # A second name of the same SDXL layer, which belongs to another family.
        if not name.endswith(".weight") or name.startswith("class_embedding."):
            continue
        if _is_of_another_family(model, name.removesuffix(".weight")):
            continue
        target, span, reorder = (*((place,) if isinstance(place, str) else place), None, None)[:3]
        rows = None if span is None else (span[1], span[2])
        parts.setdefault(target.removesuffix(".weight"), []).append(
            Part(name.removesuffix(".weight"), rows, reorder))
    found = {path: tuple(parts.get(path, ())) for path in paths}
    lost = next((path for path, names in found.items() if not names), None)
    if lost is not None:
        raise LikenessError(f"Diffusers' loader has no name for layer `{lost}` of this model; "
                            "save with the keys `kohya` or choose a smaller `target`.")
    for path, names in found.items():
        _check_once(path, names)
    return found


def _check_once(path: str, names: tuple[Part, ...]) -> None:
    """Refuse a layer that the host's table names twice, before anything is trained.

    Raises:
        LikenessError: two parts share a row.
    """
    end = 0
    for first, count in sorted((0, math.inf) if part.rows is None else part.rows
                               for part in names):
        if first < end:
            raise LikenessError(f"ComfyUI names layer `{path}` twice for diffusers' files "
                                f"({', '.join(part.name for part in names)}); save with the keys "
                                "`kohya`.")
        end = first + count


def network_tensors(model: Any, adapters: Adapters, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """A LoRA of a diffusion model as file tensors with diffusers' keys.

    A fused layer's LoRA is cut exactly: its parts share `down` and take their rows of `up`. Alpha
    is folded into the factors, so that every loader's scale is 1.

    Raises:
        LikenessError: what is learned is no LoRA, or a layer has no name.
    """
    unet = _is_unet(model)
    tensors = {}
    for path, parts in network_parts(model, adapters.layers).items():
        down, up = _factors(path, adapters.layers[path])
        for part in parts:
            rows = up if part.rows is None else up.narrow(0, *part.rows)
            rows = rows if part.reorder is None else part.reorder(rows)
            key_down, key_up = _unet_keys(part.name) if unet else _transformer_keys(part.name)
            # Copies: safetensors refuses tensors that share memory.
            tensors[key_down] = down.to(dtype, copy=True).contiguous()
            tensors[key_up] = rows.to(dtype, copy=True).contiguous()
    return tensors


def text_tensors(clip: Any, adapters: Adapters, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """A LoRA of CLIP text encoders as file tensors with diffusers' keys.

    Raises:
        LikenessError: what is learned is no LoRA, or diffusers loads nothing for an encoder (T5).
    """
    tensors = {}
    for path, key in text_keys(clip, adapters.layers, KeyStyle.DIFFUSERS).items():
        for name, part in zip(("down", "up"), _factors(path, adapters.layers[path]), strict=True):
            tensors[f"{key}.lora_linear_layer.{name}.weight"] = part.to(dtype, copy=True)
    return tensors


def take_over_network(tensors: Mapping[str, torch.Tensor], model: Any, adapters: Adapters) -> None:
    """Give adapters the values of `network_tensors`, the parts of fused layers joined again.

    Raises:
        KeyError: a layer is missing.
        RuntimeError: a layer has another shape.
    """
    unet = _is_unet(model)
    for path, parts in network_parts(model, adapters.layers).items():
        layer = adapters.layers[path]
        down, up = (torch.zeros_like(factor) for factor in _factors(path, layer))
        for part in parts:
            key_down, key_up = _unet_keys(part.name) if unet else _transformer_keys(part.name)
            rows = tensors[key_up].float()
            rows = rows if part.reorder is None else part.reorder(rows)
            (up if part.rows is None else up.narrow(0, *part.rows)).copy_(rows.reshape(
                len(rows), *up.shape[1:]))
            down = tensors[key_down].float()
        _give(layer, down, up)


def take_over_text(tensors: Mapping[str, torch.Tensor], clip: Any, adapters: Adapters) -> None:
    """Give adapters the values of `text_tensors`.

    Raises:
        KeyError: a layer is missing.
        RuntimeError: a layer has another shape.
    """
    for path, key in text_keys(clip, adapters.layers, KeyStyle.DIFFUSERS).items():
        down, up = (tensors[f"{key}.lora_linear_layer.{name}.weight"].float()
                    for name in ("down", "up"))
        _give(adapters.layers[path], down, up)


def _factors(path: str, layer: AdapterLayer) -> tuple[torch.Tensor, torch.Tensor]:
    """Down and up in float32 with the scale in them."""
    tensors = layer.to_file(torch.float32)
    if set(tensors) != _LORA:
        raise LikenessError("Only LoRA has a file in diffusers' layout, and layer "
                            f"`{path}` learns in another way; save with the keys `kohya`.")
    down, up = tensors["lora_down.weight"], tensors["lora_up.weight"]
    root = _root(tensors)
    return down * root, up * root


def _root(tensors: Mapping[str, torch.Tensor]) -> float:
    """The scale goes half to each: one of them alone would have half-precision values at zero."""
    return (float(tensors["alpha"]) / len(tensors["lora_down.weight"])) ** 0.5


def _give(layer: AdapterLayer, down: torch.Tensor, up: torch.Tensor) -> None:
    root = _root(layer.to_file(torch.float32))
    layer.from_file({"lora_down.weight": down / root, "lora_up.weight": up / root})


def _is_of_another_family(model: Any, name: str) -> bool:
    """Whether one of the host's names of FLUX-like layers is not used by this model's family."""
    if not isinstance(model.model, comfy.model_base.Flux):
        return False
    second = isinstance(model.model, getattr(comfy.model_base, "Flux2", ()))
    block, _, rest = name.partition(".")
    inside = rest.partition(".")[2]
    match block:
        case "transformer_blocks":
            return inside in (_FLUX1_BLOCK if second else _FLUX2_BLOCK)
        case "single_transformer_blocks":
            return inside in (_FLUX1_SINGLE if second else _FLUX2_SINGLE)
    return False


def _is_unet(model: Any) -> bool:
    return bool(comfy.utils.unet_to_diffusers(model.model.model_config.unet_config))


def _table(model: Any) -> Mapping[str, Any]:
    config = model.model.model_config.unet_config
    if isinstance(model.model, comfy.model_base.SD3):
        return comfy.utils.mmdit_to_diffusers(config)
    if isinstance(model.model, comfy.model_base.Flux):
        return comfy.utils.flux_to_diffusers(config)
    table = comfy.utils.unet_to_diffusers(config)
    if not table:
        raise LikenessError(f"`{type(model.model).__name__}` has no file in diffusers' layout "
                            "here; save with the keys `kohya`.")
    return table


def _unet_keys(name: str) -> tuple[str, str]:
    """Keys of a UNet layer as diffusers wrote them before PEFT.

    ComfyUI knows a UNet's attention under these alone; diffusers loads both.
    """
    if ".to_" in name:
        stem = f"unet.{name.replace('.to_', '.processor.to_').removesuffix('.0')}_lora"
    else:
        stem = f"unet.{name}.lora"
    return f"{stem}.down.weight", f"{stem}.up.weight"


def _transformer_keys(name: str) -> tuple[str, str]:
    return f"transformer.{name}.lora_A.weight", f"transformer.{name}.lora_B.weight"
