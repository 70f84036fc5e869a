"""Small random networks of the host's own classes, built in the process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.cldm.cldm
import comfy.cldm.dit_embedder
import comfy.cldm.mmdit
import comfy.controlnet
import comfy.latent_formats
import comfy.ldm.flux.controlnet
import comfy.ldm.flux.model
import comfy.ldm.qwen_image.controlnet
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models
import comfy.t2i_adapter.adapter
import pytest
import torch

from launcher.tiny.networks import flux_sizes

CPU = torch.device("cpu")
OPS = comfy.ops.disable_weight_init


def randomise(module: torch.nn.Module, seed: int, scale: float = 0.05) -> torch.nn.Module:
    """Fill every weight, the zero convolutions too, so that a network changes its input."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
    return module.eval().requires_grad_(False)


def unet_config(channels: int = 32, context: int = 768, adm: int | None = None) -> dict[str, Any]:
    config: dict[str, Any] = {
        "image_size": 32, "in_channels": 4, "model_channels": channels, "num_res_blocks": [1, 1],
        "channel_mult": (1, 2), "transformer_depth": [1, 1], "transformer_depth_middle": 1,
        "context_dim": context, "num_heads": 4, "use_spatial_transformer": True, "legacy": False,
        "use_linear_in_transformer": False, "adm_in_channels": adm, "dtype": torch.float32}
    if adm is not None:
        config["num_classes"] = "sequential"
    return config


@pytest.fixture(scope="session")
def tiny_model() -> comfy.model_patcher.ModelPatcher:
    """A MODEL of SD1.5's layout with 32 channels."""
    config = comfy.supported_models.SD15(
        {**unet_config(), "out_channels": 4, "transformer_depth_output": [1, 1, 1, 1],
         "use_temporal_attention": False})
    config.unet_config["num_heads"] = 4
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device=CPU)
    randomise(model.diffusion_model, 1)
    return comfy.model_patcher.ModelPatcher(model, load_device=CPU, offload_device=CPU)


@pytest.fixture(scope="session")
def unet_control() -> Callable[..., comfy.controlnet.ControlNet]:
    """Makes a CONTROL_NET of the UNet layout: `unet_control(seed, channels, context, ...)`."""

    def make(seed: int = 2, channels: int = 32, context: int = 768, adm: int | None = None,
             union: int | None = None) -> comfy.controlnet.ControlNet:
        net = comfy.cldm.cldm.ControlNet(
            **unet_config(channels, context, adm), hint_channels=3, operations=OPS,
            union_controlnet_num_control_type=union)
        return comfy.controlnet.ControlNet(randomise(net, seed), load_device=CPU)

    return make


@pytest.fixture(scope="session")
def flux_control() -> Callable[..., comfy.controlnet.ControlNet]:
    """Makes a CONTROL_NET of the InstantX FLUX layout: `flux_control(modes, double, single)`."""

    def make(modes: int = 0, double: int = 1, single: int = 1, channels: int = 16,
             latent: bool = True) -> comfy.controlnet.ControlNet:
        net = comfy.ldm.flux.controlnet.ControlNetFlux(
            latent_input=latent, num_union_modes=modes, image_model="flux",
            control_latent_channels=channels if latent else None, operations=OPS,
            dtype=torch.float32, **flux_sizes(comfy.ldm.flux.model.FluxParams, {
                "in_channels": 16, "out_channels": 16, "vec_in_dim": 8, "context_in_dim": 16,
                "hidden_size": 64, "mlp_ratio": 2.0, "num_heads": 4, "depth": double,
                "depth_single_blocks": single, "axes_dim": [4, 6, 6], "theta": 10000,
                "patch_size": 2, "qkv_bias": True, "guidance_embed": False}))
        latent_format = comfy.latent_formats.Flux() if latent else None
        return comfy.controlnet.ControlNet(
            randomise(net, 3), compression_ratio=1, latent_format=latent_format, load_device=CPU,
            extra_conds=["y", "guidance"])

    return make


@pytest.fixture(scope="session")
def sd3_control() -> comfy.controlnet.ControlNet:
    net = comfy.cldm.mmdit.ControlNet(
        num_blocks=1, control_latent_channels=16, operations=OPS, dtype=torch.float32,
        input_size=None, in_channels=16, depth=1, patch_size=2, adm_in_channels=8,
        context_embedder_config={"target": "torch.nn.Linear",
                                 "params": {"in_features": 16, "out_features": 64}})
    return comfy.controlnet.ControlNet(randomise(net, 4), compression_ratio=1, load_device=CPU,
                                       latent_format=comfy.latent_formats.SD3())


@pytest.fixture(scope="session")
def sd35_control() -> comfy.controlnet.ControlNetSD35:
    net = comfy.cldm.dit_embedder.ControlNetEmbedder(
        img_size=None, patch_size=2, in_chans=16, num_layers=1, main_model_double=1,
        double_y_emb=False, attention_head_dim=32, num_attention_heads=2, adm_in_channels=8,
        device=CPU, dtype=torch.float32, operations=OPS)
    return comfy.controlnet.ControlNetSD35(randomise(net, 5), compression_ratio=1, load_device=CPU,
                                           latent_format=comfy.latent_formats.SD3())


@pytest.fixture(scope="session")
def qwen_control() -> Callable[[int], comfy.controlnet.ControlNet]:
    """Makes a CONTROL_NET of the InstantX Qwen layout: `qwen_control(extra channels)`."""

    def make(extra: int = 0) -> comfy.controlnet.ControlNet:
        net = comfy.ldm.qwen_image.controlnet.QwenImageControlNetModel(
            extra_condition_channels=extra, patch_size=2, in_channels=64, out_channels=16,
            num_layers=1, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=16,
            axes_dims_rope=(4, 6, 6), image_model="qwen_image", dtype=torch.float32, operations=OPS)
        return comfy.controlnet.ControlNet(
            randomise(net, 8), compression_ratio=1, load_device=CPU, concat_mask=extra > 0,
            latent_format=comfy.latent_formats.Wan21(), extra_conds=[])

    return make


@pytest.fixture(scope="session")
def t2i_control() -> comfy.controlnet.T2IAdapter:
    net = comfy.t2i_adapter.adapter.Adapter(
        cin=192, channels=[32, 64, 128, 128], nums_rb=2, ksize=1, sk=True, use_conv=False)
    return comfy.controlnet.T2IAdapter(randomise(net, 6), net.input_channels, 8, "nearest-exact",
                                       device=CPU)


@pytest.fixture(scope="session")
def flux_vae() -> comfy.sd.VAE:
    """A VAE with FLUX's sixteen channels and eightfold reduction, 32 channels wide."""
    sizes = {"double_z": True, "z_channels": 16, "resolution": 64, "in_channels": 3, "out_ch": 3,
             "ch": 32, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [],
             "dropout": 0.0}
    config = {"params": {"ddconfig": sizes, "embed_dim": 16}}
    vae = comfy.sd.VAE(sd={}, device=CPU, config=config, dtype=torch.float32)
    randomise(vae.first_stage_model, 7)
    return vae
