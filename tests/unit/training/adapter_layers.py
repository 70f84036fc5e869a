"""Recipes, layers and learned values of every technique for the adapters' tests."""

from __future__ import annotations

from typing import Any

import comfy.lora
import comfy.ops
import torch
import training_models
from likeness.nodes.training.adapters.attach import attach
from likeness.nodes.training.adapters.group import LAYERS, Adapters
from likeness.nodes.training.adapters.layer import AdapterLayer
from likeness.nodes.training.frozen.scope import Scope
from likeness.nodes.training.recipes.adapters import (
    AdapterRecipe,
    DoRARecipe,
    LoHaRecipe,
    LoKrRecipe,
    LoRARecipe,
    OFTRecipe,
)
from likeness.nodes.training.recipes.whole import DreamBoothRecipe

RECIPES = {"lora": LoRARecipe, "dora": DoRARecipe, "loha": LoHaRecipe, "lokr": LoKrRecipe,
           "oft": OFTRecipe, "dreambooth": DreamBoothRecipe}
ADAPTERS = tuple(name for name in RECIPES if name != "dreambooth")
CONVOLUTIONS = (
    {"kernel_size": 3, "padding": 1}, {"kernel_size": 3, "padding": 1, "stride": 2},
    {"kernel_size": 1}, {"kernel_size": (3, 1), "padding": "same", "dilation": 2},
    {"kernel_size": 3, "padding": 1, "padding_mode": "circular"})


def make_recipe(technique: str, rank: int = 2, **fields: Any) -> Any:
    """A recipe of a technique; one without ranks has blocks of 4."""
    if issubclass(RECIPES[technique], AdapterRecipe):
        fields = {"rank": rank, "alpha": 0.7 * rank, **fields}
    if technique == "oft":
        fields = {"block_size": 4, **fields}
    return RECIPES[technique](**fields)


def make_linear(ops: Any = comfy.ops.disable_weight_init, inputs: int = 24, outputs: int = 40,
                dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """A frozen dense layer of the host with random weights."""
    layer = ops.Linear(inputs, outputs, dtype=dtype)
    training_models.fill(layer)
    return layer.requires_grad_(False)


def make_conv(ops: Any = comfy.ops.disable_weight_init, dims: int = 2, inputs: int = 8,
              outputs: int = 12, **settings: Any) -> torch.nn.Module:
    """A frozen convolution of the host with random weights."""
    layer = getattr(ops, f"Conv{dims}d")(inputs, outputs, **settings)
    training_models.fill(layer)
    return layer.requires_grad_(False)


def make_adapter(technique: str, module: torch.nn.Module, rank: int = 2,
                 **fields: Any) -> AdapterLayer:
    """A layer's learned part, far from its start."""
    layer = LAYERS[technique]("layer", module, make_recipe(technique, rank, **fields),
                              torch.Generator().manual_seed(3), training_models.CPU)
    return learn(layer)


def learn(module: Any, size: float = 0.1) -> Any:
    """Add random values to every learned tensor, in place."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=size)
    return module


def make_adapters(technique: str, network: torch.nn.Module, target: str, rank: int = 2,
                  **fields: Any) -> Adapters:
    """The learned parts of a network, at their start."""
    return Adapters(network, make_recipe(technique, rank, target=target, **fields),
                    torch.Generator().manual_seed(7), training_models.CPU)


def file_tensors(model: Any, adapters: Adapters, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """A file with kohya's keys; the generic ones where the host knows no such name."""
    known = comfy.lora.model_lora_keys_unet(model.model, {})
    tensors = {}
    for path, layer in adapters.layers.items():
        kohya = f"lora_unet_{path.replace('.', '_')}"
        prefix = kohya if known.get(kohya) == f"diffusion_model.{path}.weight" else (
            f"diffusion_model.{path}")
        tensors |= {f"{prefix}.{suffix}": value for suffix, value in layer.to_file(dtype).items()}
    return tensors


def predict(model: Any, adapters: Adapters | None = None, checkpointing: bool = False,
            seed: int = 0, change: bool = True) -> torch.Tensor:
    """The x0 estimate of a tiny model for fixed inputs, with adapters or as it is."""
    generator = torch.Generator().manual_seed(seed)
    width, pooled, channels = training_models.TEXT[model.likeness_name]
    conds = {"c_crossattn": torch.randn(1, 6, width, generator=generator)}
    if pooled:
        extra = 6 * 256 if model.likeness_name == "sdxl" else 0
        conds["y"] = torch.randn(1, pooled + extra, generator=generator)
    if model.likeness_name == "flux":
        conds["guidance"] = torch.ones(1)
    latents, sigmas = torch.randn(1, channels, 8, 8, generator=generator), torch.tensor([0.7])
    if adapters is None and not change:
        return model.model.apply_model(latents, sigmas, **conds)
    with Scope() as scope:
        attach(scope, model.model, model.model.diffusion_model, adapters, checkpointing)
        y = model.model.apply_model(latents, sigmas, **conds)
        if y.requires_grad:
            y.float().square().sum().backward()
        return y.detach()
