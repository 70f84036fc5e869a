"""Random ControlNets and FaceID adapters in the layouts that people download. Runs in the host."""

from __future__ import annotations

import re
from collections.abc import Mapping

import comfy.cldm.cldm
import comfy.cldm.mmdit
import comfy.ldm.flux.controlnet
import comfy.ops
import comfy.utils
import torch

from .checkpoints import StateDict, empty_unet, model_config
from .random_weights import fill, seeded

_ADAPTER_LORA_RANK = 4
_ADAPTER_TOKENS = 4


def unet_controlnet(name: str, kind: str) -> StateDict:
    """A ControlNet for a U-Net checkpoint (sd15, sdxl, demo) in the original `.pth` layout.

    Args:
        kind: makes the weights of two ControlNets for one checkpoint differ.
    """
    config = dict(model_config(name).unet_config)
    config.pop("out_channels")
    config["dtype"] = torch.float32
    net = comfy.cldm.cldm.ControlNet(
        **config, hint_channels=3, device="meta", operations=comfy.ops.disable_weight_init)
    weights = fill(net.state_dict(), torch.float16, f"control.{kind}.")
    return {f"control_model.{key}": value for key, value in weights.items()}


def _in_diffusers_names(shapes: Mapping[str, torch.Tensor],
                        names: Mapping[str, str | tuple]) -> dict[str, torch.Tensor]:
    """Rename a state dict of ComfyUI's to diffusers' names, splitting joined projections.

    Args:
        names: ComfyUI's own table, diffusers name -> name or (name, (axis, start, length), ...).
    """
    renamed, used = {}, set()
    for theirs, ours in names.items():
        key, part = (ours, None) if isinstance(ours, str) else (ours[0], ours[1])
        if key in shapes:
            used.add(key)
            renamed[theirs] = shapes[key] if part is None else shapes[key].narrow(*part)
    return {**renamed, **{key: value for key, value in shapes.items() if key not in used}}


def sd3_controlnet(kind: str) -> StateDict:
    """A ControlNet for the small SD3 in diffusers' layout."""
    config = dict(model_config("sd3").unet_config)
    net = comfy.cldm.mmdit.ControlNet(
        num_blocks=1, control_latent_channels=16, device="meta",
        operations=comfy.ops.disable_weight_init, **config)
    names = comfy.utils.mmdit_to_diffusers({"depth": config["depth"], "num_blocks": 1})
    shapes = _in_diffusers_names(net.state_dict(), names)
    return fill(shapes, torch.float16, f"control.{kind}.")


def flux_union_controlnet(kind: str) -> StateDict:
    """A union ControlNet for the small FLUX in InstantX's layout, with its seven modes."""
    config = dict(model_config("flux").unet_config)
    net = comfy.ldm.flux.controlnet.ControlNetFlux(
        latent_input=True, num_union_modes=7, control_latent_channels=16, device="meta",
        operations=comfy.ops.disable_weight_init, **config)
    names = comfy.utils.flux_to_diffusers(config)
    shapes = _in_diffusers_names(net.state_dict(), names)
    return fill(shapes, torch.float16, f"control.{kind}.")


def _attention_layers(unet: torch.nn.Module) -> list[tuple[torch.nn.Module, torch.nn.Module]]:
    """Every transformer block's (self, cross) attention in diffusers' order: down, up, middle."""
    found: dict[str, list[tuple[torch.nn.Module, torch.nn.Module]]] = {
        "input_blocks": [], "output_blocks": [], "middle_block": []}
    for name, module in unet.named_modules():
        if re.search(r"transformer_blocks\.\d+$", name):
            found[name.split(".", 1)[0]].append((module.attn1, module.attn2))
    return [pair for part in found.values() for pair in part]


def face_adapter(name: str, id_width: int) -> StateDict:
    """An IP-Adapter FaceID for a U-Net checkpoint: projection, image keys and values, LoRA.

    Layers are numbered over all attentions, self then cross, so cross-attentions are odd.

    Args:
        id_width: length of the face embedding, 128 for dlib and 512 for ArcFace.
    """
    pairs = _attention_layers(empty_unet(name))
    context = pairs[0][1].to_k.weight.shape[1]
    hidden = 2 * id_width
    shapes: dict[str, tuple[int, ...]] = {
        "image_proj.proj.0.weight": (hidden, id_width),
        "image_proj.proj.0.bias": (hidden,),
        "image_proj.proj.2.weight": (context * _ADAPTER_TOKENS, hidden),
        "image_proj.proj.2.bias": (context * _ADAPTER_TOKENS,),
        "image_proj.norm.weight": (context,),
        "image_proj.norm.bias": (context,),
    }
    for index, attention in enumerate(layer for pair in pairs for layer in pair):
        layers = {"q": attention.to_q, "k": attention.to_k, "v": attention.to_v,
                  "out": attention.to_out[0]}
        for part, layer in layers.items():
            wide, narrow = layer.weight.shape
            lora = f"ip_adapter.{index}.to_{part}_lora"
            shapes[f"{lora}.down.weight"] = (_ADAPTER_LORA_RANK, narrow)
            shapes[f"{lora}.up.weight"] = (wide, _ADAPTER_LORA_RANK)
        if index % 2:
            inner = attention.to_k.weight.shape[0]
            shapes[f"ip_adapter.{index}.to_k_ip.weight"] = (inner, context)
            shapes[f"ip_adapter.{index}.to_v_ip.weight"] = (inner, context)
    return {key: seeded(f"adapter.{key}", shape, gain=0.3 if "_lora" in key else 1.0).half()
            for key, shape in shapes.items()}
