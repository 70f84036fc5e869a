"""Tiny models as the host makes them of 8-bit files: a quantised layer each, or cast on loading."""

from __future__ import annotations

import json
from typing import Any

import comfy.ops
import comfy.sd
import torch
import training_models
from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor

E4M3 = torch.float8_e4m3fn
_SMALLEST = 4096  # weights of a layer that quantised files hold as codes


def formats() -> list[str]:
    """Formats of quantised weights that this host reads, as files name them."""
    return [name for name in ("float8_e4m3fn", "int8_tensorwise", "nvfp4", "mxfp8")
            if name in QUANT_ALGOS]


def mixed_precision(name: str = "flux", seed: int = 0, kind: str = "float8_e4m3fn") -> Any:
    """A MODEL over the host's mixed-precision layers, from a file's tensors and metadata.

    Dense layers of the blocks are codes with their scales, as quantised FLUX.1 files are.

    Args:
        kind: one of `formats`.
    """
    tensors = training_models.make_model(name, seed=seed).model.diffusion_model.state_dict()
    tensors = {key: value.clone() for key, value in tensors.items()}
    layers = {}
    for key in [key for key in tensors if key.endswith(".weight") and "blocks." in key]:
        weight = tensors[key]
        if weight.ndim == 2 and weight.numel() >= _SMALLEST:
            tensors |= _codes(key, weight, kind)
            layers[key.removesuffix(".weight")] = {"format": kind}
    said = {"_quantization_metadata": json.dumps({"layers": layers})}
    model = comfy.sd.load_diffusion_model_state_dict(tensors, metadata=said)
    model.likeness_name = name
    return model


def _codes(key: str, weight: torch.Tensor, kind: str) -> dict[str, torch.Tensor]:
    if kind == "float8_e4m3fn":
        scale = weight.abs().amax() / torch.finfo(E4M3).max
        return {key: (weight / scale).to(E4M3),
                f"{key.removesuffix('.weight')}.weight_scale": scale.float()}
    layout = QUANT_ALGOS[kind]["comfy_tensor_layout"]
    return QuantizedTensor.from_float(weight.to(torch.bfloat16), layout).state_dict(key)


def cast_on_loading(name: str = "flux", seed: int = 0) -> Any:
    """A MODEL as Load Diffusion Model makes it with `weight_dtype` fp8_e4m3fn."""
    tensors = training_models.make_model(name, seed=seed).model.diffusion_model.state_dict()
    model = comfy.sd.load_diffusion_model_state_dict(
        {key: value.half() for key, value in tensors.items()}, model_options={"dtype": E4M3})
    model.likeness_name = name
    return model


def scaled_layer(columns: int, rows: int) -> tuple[torch.nn.Module, torch.Tensor]:
    """A dense layer without bias as the host makes it of e4m3 codes with one scale, and its weight.

    Hosts since 0.14 make such layers packed ones.
    """
    scale = torch.tensor(0.037)
    codes = torch.randn(rows, columns).to(E4M3)
    if hasattr(comfy.ops, "scaled_fp8_ops"):
        layer = comfy.ops.scaled_fp8_ops(override_dtype=E4M3).Linear(columns, rows, bias=False)
        layer.weight = torch.nn.Parameter(codes, requires_grad=False)
        layer.scale_weight = torch.nn.Parameter(scale, requires_grad=False)
    else:
        operations = comfy.ops.mixed_precision_ops({}, torch.float32)
        layer = operations.Linear(columns, rows, bias=False)
        layer.load_state_dict({"weight": codes, "weight_scale": scale, "comfy_quant": torch.tensor(
            list(json.dumps({"format": "float8_e4m3fn"}).encode()), dtype=torch.uint8)})
    return layer, codes.float() * scale


def quantised_layers(model: Any) -> dict[str, torch.nn.Module]:
    """The layers whose weight is the host's own quantised kind."""
    return {path: module for path, module in model.model.diffusion_model.named_modules()
            if isinstance(getattr(module, "weight", None), QuantizedTensor)}
