"""Tiny real UNets of SD1.5 and SDXL wiring, and random face adapters of the real file layout."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sample
import comfy.supported_models
import numpy as np
import pytest
import torch
from likeness.nodes.sockets import Photo, Subject

# The attention layout of the real checkpoints, at a tenth of their channels.
_COMMON = {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32,
           "use_spatial_transformer": True, "legacy": False, "use_checkpoint": False,
           "use_temporal_attention": False, "use_temporal_resblock": False}
_SD15 = {"num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4],
         "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
         "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "context_dim": 768,
         "use_linear_in_transformer": False, "adm_in_channels": None}
_SDXL = {"num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4],
         "transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_middle": 10,
         "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "context_dim": 2048,
         "use_linear_in_transformer": True, "num_classes": "sequential", "adm_in_channels": 2816}


def build_unet(family: str) -> comfy.model_patcher.ModelPatcher:
    """A MODEL with random weights, seeded."""
    config_class, sizes = {"sd15": (comfy.supported_models.SD15, _SD15),
                           "sdxl": (comfy.supported_models.SDXL, _SDXL)}[family]
    config = config_class({**_COMMON, **sizes})
    config.set_inference_dtype(torch.float32, None)
    network = config.get_model({}, "")
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in network.diffusion_model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
            else:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(network, load_device=cpu, offload_device=cpu)


def transformer_blocks(model: Any) -> list[torch.nn.Module]:
    """The UNet's transformer blocks in adapter order, from the modules' names alone."""
    parts = {"input_blocks": [], "output_blocks": [], "middle_block": []}
    for name, module in model.model.diffusion_model.named_modules():
        if hasattr(module, "attn2"):
            parts[name.split(".")[0]].append(module)
    return [block for part in parts.values() for block in part]


def build_adapter(model: Any, *, id_width: int = 512, tokens: int = 4, lora: bool = True,
                  plus: bool = False, clip_width: int = 96, seed: int = 3) -> dict[str, dict]:
    """A random face adapter with the two sections of a `.bin` file, for a model's UNet."""
    blocks = transformer_blocks(model)
    context = blocks[0].attn2.to_k.in_features
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * shape[-1] ** -0.5

    projection = {"proj.0.weight": draw(2 * id_width, id_width), "proj.0.bias": draw(2 * id_width),
                  "proj.2.weight": draw(tokens * context, 2 * id_width),
                  "proj.2.bias": draw(tokens * context),
                  "norm.weight": 1 + 0.1 * draw(context), "norm.bias": draw(context)}
    if plus:
        projection |= _perceiver(draw, context, clip_width)
    attention = {}
    layers = [layer for block in blocks for layer in (block.attn1, block.attn2)]
    for number, layer in enumerate(layers):
        if lora:
            for part, linear in (("q", layer.to_q), ("k", layer.to_k), ("v", layer.to_v),
                                 ("out", layer.to_out[0])):
                key = f"{number}.to_{part}_lora"
                attention[f"{key}.down.weight"] = draw(2, linear.in_features)
                attention[f"{key}.up.weight"] = draw(linear.out_features, 2)
        if number % 2:
            for part in ("k", "v"):
                attention[f"{number}.to_{part}_ip.weight"] = draw(layer.to_q.out_features, context)
    return {"image_proj": projection, "ip_adapter": attention}


def _perceiver(draw: Callable[..., torch.Tensor], width: int,
               clip_width: int) -> dict[str, torch.Tensor]:
    weights = {"proj_in.weight": draw(width, clip_width), "proj_in.bias": draw(width),
               "proj_out.weight": draw(width, width), "proj_out.bias": draw(width),
               "norm_out.weight": 1 + 0.1 * draw(width), "norm_out.bias": draw(width)}
    for layer in range(4):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            weights[f"layers.{layer}.{norm}.weight"] = 1 + 0.1 * draw(width)
            weights[f"layers.{layer}.{norm}.bias"] = draw(width)
        weights |= {f"layers.{layer}.0.to_q.weight": draw(width, width),
                    f"layers.{layer}.0.to_kv.weight": draw(2 * width, width),
                    f"layers.{layer}.0.to_out.weight": draw(width, width),
                    f"layers.{layer}.1.1.weight": draw(4 * width, width),
                    f"layers.{layer}.1.3.weight": draw(width, 4 * width)}
    return {f"perceiver_resampler.{key}": value for key, value in weights.items()}


def denoise(model: Any, *, steps: int = 2, cfg: float = 4.0, seed: int = 5) -> torch.Tensor:
    """Sample a small latent with the host's own sampler."""
    context = model.model.diffusion_model.input_blocks
    width = next(block.attn2.to_k.in_features for block in context.modules()
                 if hasattr(block, "attn2"))
    generator = torch.Generator().manual_seed(seed)
    options = {"pooled_output": torch.randn(1, 1280, generator=generator)}
    positive = [[torch.randn(1, 9, width, generator=generator), dict(options)]]
    negative = [[torch.randn(1, 9, width, generator=generator), dict(options)]]
    latent = torch.zeros(2, 4, 16, 16)
    noise = torch.randn(latent.shape, generator=generator)
    return comfy.sample.sample(model, noise, steps, cfg, "euler", "normal", positive, negative,
                               latent, disable_pbar=True, seed=seed)


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Seed torch, and take loaded models off: the host leaves a clone's LoRA in the weights."""
    torch.manual_seed(0)
    comfy.model_management.unload_all_models()


@pytest.fixture(scope="session")
def sd15() -> Any:
    """A MODEL of SD1.5 wiring; 16 cross-attentions."""
    return build_unet("sd15")


@pytest.fixture(scope="session")
def sdxl() -> Any:
    """A MODEL of SDXL wiring; 70 cross-attentions."""
    return build_unet("sdxl")


@pytest.fixture(scope="session")
def tools() -> MappingProxyType:
    """The builders above, for tests that need more than the shared models."""
    return MappingProxyType({"unet": build_unet, "adapter": build_adapter, "denoise": denoise,
                             "blocks": transformer_blocks, "subject": build_subject})


def build_subject(embeddings: np.ndarray, recogniser: str = "buffalo_l",
                  held_out: int = 0) -> Subject:
    """A subject whose photos are only names; `embeddings` (references + held_out, D)."""
    photos = tuple(Photo(file=None, name=f"photo{index}.jpg") for index in range(len(embeddings)))
    split = len(photos) - held_out
    return Subject(name="Ada", trigger="adatok", class_noun="woman", references=photos[:split],
                   held_out=photos[split:], embeddings={recogniser: embeddings}, spread={},
                   mesh=np.zeros((478, 3), np.float32))
