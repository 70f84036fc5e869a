"""Random checkpoints of SD1.5, SDXL, SD3 and FLUX in the layout that people download.

Shapes and names come from ComfyUI's own modules, built on the meta device, and the checkpoint
layout from ComfyUI's own saving code, so no list of keys is kept here. Runs inside the host.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import comfy.ldm.flux.model
import comfy.sd1_clip
import comfy.supported_models
import comfy.taesd.taesd
import torch
from comfy.supported_models_base import BASE

from .architectures import ARCHITECTURES, register
from .networks import NETWORKS, flux_sizes, network_config
from .random_weights import fill

StateDict = dict[str, torch.Tensor]

_UNET = {"use_checkpoint": False, "image_size": 32, "use_spatial_transformer": True,
         "legacy": False, "in_channels": 4, "out_channels": 4, "use_temporal_resblock": False,
         "use_temporal_attention": False}

# The block layout of the real SD1.5 and, with fewer transformers in a block, of the real SDXL.
_SD15 = {"num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4],
         "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
         "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0]}
_SDXL = {"num_classes": "sequential", "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4],
         "transformer_depth": [0, 0, 1, 1, 2, 2], "transformer_depth_middle": 2,
         "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2]}
# The smallest layout with the widths of the real SD1.5, which an unmodified ComfyUI recognises.
_DEMO = {"num_res_blocks": [1, 1], "channel_mult": [1, 1], "transformer_depth": [1, 1],
         "transformer_depth_middle": 1, "transformer_depth_output": [1, 1, 1, 1]}


def unet_config(name: str) -> dict[str, Any]:
    """The diffusion model's configuration: sd15, sdxl, sd3, flux or demo, which have checkpoints,
    or a name of `networks.NETWORKS`, which are built in a process alone.
    """
    if name in NETWORKS:
        return network_config(name)
    if name == "demo":
        return {**_UNET, **_DEMO, **comfy.supported_models.SD15.unet_config}
    sizes = dict(ARCHITECTURES[name].sizes)
    if name in ("sd15", "sdxl"):
        return {**_UNET, **(_SD15 if name == "sd15" else _SDXL), **sizes}
    if name == "sd3":
        depth = 2  # ComfyUI takes 64 channels and one attention head for each block
        return {"patch_size": 2, "out_channels": 16, "depth": depth, "input_size": None,
                "context_embedder_config": {"target": "torch.nn.Linear", "params": {
                    "in_features": 4096, "out_features": 64 * depth}},
                "num_patches": 64 * 64, "pos_embed_max_size": 64, "qk_norm": "rms",
                "x_block_self_attn_layers": [0], **sizes}
    known = flux_sizes(comfy.ldm.flux.model.FluxParams, {
        "mlp_ratio": 4.0, "theta": 10000, "in_channels": 16, "out_channels": 16,
        "qkv_bias": True, "context_in_dim": 64, "vec_in_dim": 64, "patch_size": 2,
        "depth": 2, "depth_single_blocks": 2})
    return {**known, **sizes}


def model_config(name: str) -> BASE:
    """ComfyUI's description of one of the checkpoints or networks."""
    classes: dict[str, type[BASE]] = {**register(), "demo": comfy.supported_models.SD15}
    if name in NETWORKS:
        classes[name] = getattr(comfy.supported_models, NETWORKS[name].kind)
    config = classes[name](unet_config(name))
    config.set_inference_dtype(torch.float32, None)
    return config


def empty_unet(name: str) -> torch.nn.Module:
    """The diffusion model of a checkpoint on the meta device: names and shapes only."""
    return model_config(name).get_model({}, "", device="meta").diffusion_model


def _text_encoder(config: BASE, name: str) -> Mapping[str, torch.Tensor]:
    if name == "demo":
        return comfy.sd1_clip.SD1ClipModel(device="meta", dtype=torch.float32).state_dict()
    # ComfyUI asks the checkpoint which encoders it holds.
    present = {f"text_encoders.{encoder}.transformer.text_model.final_layer_norm.weight": None
               for encoder in ("clip_l", "clip_g")}
    encoder = config.clip_target(present).clip(device="meta", dtype=torch.float32)
    return encoder.state_dict()


def checkpoint(name: str) -> StateDict:
    """Build a whole checkpoint: diffusion model, a small VAE (TAESD's layout) and text encoders.

    The demo's text encoder has CLIP-L's full size; most of its rows are zero, so that the file
    takes a third of its length on disk.
    """
    config = model_config(name)
    half = torch.float16
    vae = comfy.taesd.taesd.TAESD(latent_channels=config.latent_format.latent_channels)
    live_rows = 64 if name == "demo" else None
    text = fill(_text_encoder(config, name), half, "text.", live_rows=live_rows)
    unet = fill(empty_unet(name).state_dict(), half, "unet.")
    return {
        **config.process_unet_state_dict_for_saving(unet),
        **config.process_vae_state_dict_for_saving(
            fill(vae.state_dict(), half, "vae.", gain=math.sqrt(2.0))),
        **config.process_clip_state_dict_for_saving(text),
    }
