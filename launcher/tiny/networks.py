"""Small networks of architectures that have no checkpoint here, built in a process alone.

The host would not recognise such sizes in a file. Runs inside the host.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.ldm.chroma.model
import comfy.ldm.flux.model
import comfy.supported_models

# What newer hosts want to be told of FLUX-like networks; their detection gives FLUX.1 these.
_NEWER = {"txt_ids_dims": [], "vec_in_dim": None}


@dataclass(frozen=True)
class Network:
    """An architecture of the host with small sizes."""

    kind: str  # class in comfy.supported_models
    sizes: Mapping[str, Any]  # in the place of those that the host reads from the weights
    text: int = 64  # width of text tokens
    pooled: int = 0  # width of pooled text; 0: it takes none
    channels: int = 16  # of latents
    frames: int = 0  # of latents that have a time axis; 0: they have none
    masked: bool = False  # whether it wants to know which text tokens are none


_FLUX = {"context_in_dim": 64, "hidden_size": 64, "num_heads": 2, "depth": 2,
         "depth_single_blocks": 2}
_OMNIGEN = {"axes_dim_rope": [8, 12, 12], "axes_lens": [64, 64, 64], "hidden_size": 64,
            "in_channels": 16, "multiple_of": 32, "norm_eps": 1e-5, "num_attention_heads": 2,
            "num_kv_heads": 1, "num_layers": 2, "num_refiner_layers": 1, "out_channels": None,
            "patch_size": 2, "ffn_dim_multiplier": None, "timestep_scale": 1000.0}
_COSMOS = {"max_img_h": 240, "max_img_w": 240, "max_frames": 128, "out_channels": 16,
           "patch_spatial": 2, "patch_temporal": 1, "model_channels": 64, "num_blocks": 2,
           "num_heads": 2, "concat_padding_mask": True, "pos_emb_cls": "rope3d",
           "pos_emb_learnable": True, "pos_emb_interpolation": "crop", "min_fps": 1, "max_fps": 30,
           "use_adaln_lora": True, "adaln_lora_dim": 16, "extra_per_block_abs_pos_emb": False,
           "rope_h_extrapolation_ratio": 4.0, "rope_w_extrapolation_ratio": 4.0,
           "rope_t_extrapolation_ratio": 1.0, "extra_h_extrapolation_ratio": 1.0,
           "extra_w_extrapolation_ratio": 1.0, "extra_t_extrapolation_ratio": 1.0,
           "rope_enable_fps_modulation": False}

_KNOWN: Mapping[str, Network] = {
    "z_image": Network("ZImage", {
        "patch_size": 2, "in_channels": 16, "dim": 256, "n_layers": 2, "n_refiner_layers": 1,
        "n_heads": 8, "n_kv_heads": 8, "qk_norm": True, "cap_feat_dim": 64,
        "axes_dims": [8, 12, 12], "axes_lens": [64, 64, 64], "rope_theta": 256.0,
        "ffn_dim_multiplier": 8.0 / 3.0, "z_image_modulation": True, "time_scale": 1000.0,
        "pad_tokens_multiple": 32}),
    "qwen_image": Network("QwenImage", {
        "patch_size": 2, "in_channels": 64, "out_channels": 16, "num_layers": 2,
        "attention_head_dim": 32, "num_attention_heads": 2, "joint_attention_dim": 64,
        "axes_dims_rope": (8, 12, 12)}, frames=1),
    "wan": Network("WAN21_T2V", {
        "dim": 48, "ffn_dim": 96, "freq_dim": 64, "text_dim": 64, "num_heads": 2,
        "num_layers": 2, "in_dim": 16, "out_dim": 16, "text_len": 16}, frames=2),
    "chroma": Network("Chroma", {
        **_FLUX, "in_channels": 64, "out_channels": 64, "mlp_ratio": 4.0, "axes_dim": [8, 12, 12],
        "theta": 10000, "patch_size": 2, "qkv_bias": True, "in_dim": 64, "out_dim": 64,
        "hidden_dim": 64, "n_layers": 2}, pooled=64),
    "flux2": Network("Flux2", {
        **_FLUX, "in_channels": 128, "out_channels": 128, "mlp_ratio": 3.0,
        "axes_dim": [8, 8, 8, 8], "theta": 2000, "patch_size": 1, "qkv_bias": False,
        "guidance_embed": True, "vec_in_dim": None, "global_modulation": True,
        "mlp_silu_act": True, "ops_bias": False, "default_ref_method": "index",
        "ref_index_scale": 10.0, "txt_ids_dims": [3]}, pooled=64, channels=128),
    "cosmos_predict2": Network("CosmosT2IPredict2", {**_COSMOS, "crossattn_emb_channels": 64},
                               frames=1),
    "omnigen2": Network("Omnigen2", {**_OMNIGEN, "text_feat_dim": 64}, masked=True),
    "ernie": Network("ErnieImage", {
        "hidden_size": 64, "num_attention_heads": 2, "num_layers": 2, "ffn_hidden_size": 256,
        "in_channels": 128, "out_channels": 128, "patch_size": 1, "text_in_dim": 48,
        "rope_theta": 256, "rope_axes_dim": (8, 12, 12)}, text=48, channels=128),
    "boogu": Network("Boogu", {**_OMNIGEN, "num_double_stream_layers": 1,
                               "instruction_feat_dim": 64}, masked=True),
    "krea2": Network("Krea2", {
        "features": 64, "channels": 16, "patch": 2, "layers": 2, "heads": 2, "kvheads": 1,
        "txtlayers": 2, "txtdim": 320, "tdim": 64}, text=640, frames=1),
}
# Those that this host has.
NETWORKS: Mapping[str, Network] = {name: network for name, network in _KNOWN.items()
                                   if hasattr(comfy.supported_models, network.kind)}
_PARAMETERS = {"chroma": comfy.ldm.chroma.model.ChromaParams,
               "flux2": comfy.ldm.flux.model.FluxParams}


def flux_sizes(parameters: type, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of a FLUX-like network, with what this host's own dataclass of them asks for beside.

    Args:
        parameters: `FluxParams` or `ChromaParams` of the host.
    """
    known = {known.name for known in dataclasses.fields(parameters)}
    given = {**_NEWER, **sizes}
    return {name: value for name, value in given.items() if name in known}


def network_config(name: str) -> dict[str, Any]:
    """The host's configuration of one of `NETWORKS`."""
    network = NETWORKS[name]
    sizes = network.sizes
    if name in _PARAMETERS:
        sizes = flux_sizes(_PARAMETERS[name], sizes)
    return {**getattr(comfy.supported_models, network.kind).unet_config, **sizes}
