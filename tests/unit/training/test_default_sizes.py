"""What the default LoRA weighs on the real architectures, counted on empty networks."""

from __future__ import annotations

import comfy.ops
import pytest
import torch
from comfy.ldm.flux.model import Flux
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from likeness.nodes.training.adapters.targets import target_layers
from likeness.nodes.training.recipes.adapters import LoRARecipe

_EMPTY = {"device": "meta", "operations": comfy.ops.disable_weight_init}
_UNET = {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320,
         "use_spatial_transformer": True, "legacy": False, **_EMPTY}


def _sd15():
    return UNetModel(num_res_blocks=[2] * 4, channel_mult=[1, 2, 4, 4], num_heads=8,
                     transformer_depth=[1] * 6 + [0] * 2, transformer_depth_middle=1,
                     transformer_depth_output=[1] * 9 + [0] * 3, context_dim=768, **_UNET)


def _sdxl():
    return UNetModel(num_res_blocks=[2] * 3, channel_mult=[1, 2, 4], num_head_channels=64,
                     num_heads=-1, transformer_depth=[0, 0, 2, 2, 10, 10],
                     transformer_depth_middle=10, context_dim=2048,
                     transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10],
                     use_linear_in_transformer=True, adm_in_channels=2816,
                     num_classes="sequential", **_UNET)


def _sd3():
    return MMDiT(input_size=None, pos_embed_max_size=384, depth=38, patch_size=2, in_channels=16,
                 out_channels=16, num_patches=384 * 384, qk_norm="rms", adm_in_channels=2048,
                 context_embedder_config={"target": "torch.nn.Linear", "params": {
                     "in_features": 4096, "out_features": 2432}}, dtype=torch.float32, **_EMPTY)


def _flux():
    return Flux(image_model="flux", dtype=torch.float32, in_channels=16, out_channels=16,
                vec_in_dim=768, context_in_dim=4096, hidden_size=3072, mlp_ratio=4.0,
                num_heads=24, depth=19, depth_single_blocks=38, axes_dim=[16, 56, 56],
                theta=10000, patch_size=2, qkv_bias=True, guidance_embed=True, **_EMPTY)


@pytest.mark.parametrize(("build", "millions"), [(_sd15, 860), (_sdxl, 2567), (_sd3, 8057),
                                                 (_flux, 11901)])
def test_the_default_lora_is_below_one_percent_of_the_model_and_2_to_300_megabytes(build,
                                                                                    millions):
    network, recipe = build(), LoRARecipe()
    whole = sum(weight.numel() for weight in network.parameters())
    assert round(whole / 1e6) == millions
    learned = sum(recipe.rank * (layer.in_features + layer.out_features)
                  for layer in target_layers(network, recipe.target).values())
    assert learned < 0.01 * whole
    assert 2e6 < 2 * learned < 300e6
