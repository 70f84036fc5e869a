"""Tiny models as the host makes them of 8-bit files: a quantised layer each, or cast on loading."""

from __future__ import annotations

import json
from typing import Any

import comfy.sd
import torch
import training_models
from comfy.quant_ops import QuantizedTensor

E4M3 = torch.float8_e4m3fn
_SMALLEST = 4096  # weights of a layer that quantised files hold as codes


def mixed_precision(name: str = "flux", seed: int = 0) -> Any:
    """A MODEL over the host's mixed-precision layers, from a file's tensors and metadata.

    Dense layers of the blocks are e4m3 with a scale per tensor, as quantised FLUX.1 files are.
    """
    tensors = training_models.make_model(name, seed=seed).model.diffusion_model.state_dict()
    tensors = {key: value.clone() for key, value in tensors.items()}
    layers = {}
    for key in [key for key in tensors if key.endswith(".weight") and "blocks." in key]:
        weight = tensors[key]
        if weight.ndim == 2 and weight.numel() >= _SMALLEST:
            scale = weight.abs().amax() / torch.finfo(E4M3).max
            tensors[key] = (weight / scale).to(E4M3)
            tensors[f"{key.removesuffix('.weight')}.weight_scale"] = scale.float()
            layers[key.removesuffix(".weight")] = {"format": "float8_e4m3fn"}
    said = {"_quantization_metadata": json.dumps({"layers": layers})}
    model = comfy.sd.load_diffusion_model_state_dict(tensors, metadata=said)
    model.likeness_name = name
    return model


def cast_on_loading(name: str = "flux", seed: int = 0) -> Any:
    """A MODEL as Load Diffusion Model makes it with `weight_dtype` fp8_e4m3fn."""
    tensors = training_models.make_model(name, seed=seed).model.diffusion_model.state_dict()
    model = comfy.sd.load_diffusion_model_state_dict(
        {key: value.half() for key, value in tensors.items()}, model_options={"dtype": E4M3})
    model.likeness_name = name
    return model


def quantised_layers(model: Any) -> dict[str, torch.nn.Module]:
    """The layers whose weight is the host's own quantised kind."""
    return {path: module for path, module in model.model.diffusion_model.named_modules()
            if isinstance(getattr(module, "weight", None), QuantizedTensor)}
