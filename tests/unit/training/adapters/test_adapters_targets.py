"""What each preset names in the architectures beyond the four, and in text encoders."""

from __future__ import annotations

import pytest
import text_models
import torch
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.adapters.targets import target_layers
from likeness.nodes.training.recipes.fields import Target

from launcher.tiny.checkpoints import empty_unet, model_config

# Layers of (cross-attention, attention, with feed-forward, all linear, with convolutions).
PRESETS = {"sd15": (64, 128, 160, 230, 282), "sdxl": (68, 136, 170, 224, 264),
           "sd3": (0, 9, 15, 26, 27), "flux": (0, 12, 20, 36, 36),
           "z_image": (0, 8, 20, 29, 29), "qwen_image": (0, 16, 24, 34, 34),
           "wan": (8, 16, 20, 26, 27), "chroma": (0, 12, 20, 29, 29)}
TEXT_PRESETS = {"sdxl": (24, 24, 36, 38, 38), "flux": (20, 20, 32, 33, 33)}
# What no block repeats, and what steers the blocks rather than being one's attention or MLP.
OUTSIDE = ("embed", "final_layer", "modulation", "_mod.", "guidance", "head", "img_in", "proj_out",
           "text_projection", "time_", "proj_in", "emb_layers")


def _counts(network):
    counts = []
    for target in Target:
        try:
            counts.append(len(target_layers(network, target)))
        except LikenessError as err:
            assert f"no layers of the preset `{target.value}`" in str(err)
            counts.append(0)
    return tuple(counts)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_name_attention_and_feed_forward_of_every_architecture(name):
    network = empty_unet(name)
    assert _counts(network) == PRESETS[name]
    inside = target_layers(network, Target.ATTENTION_FEED_FORWARD)
    assert not [path for path in inside if any(part in f"{path}." for part in OUTSIDE)]


@pytest.mark.parametrize("name", TEXT_PRESETS)
def test_presets_name_the_same_parts_of_text_encoders(name):
    encoders = model_config(name).clip_target(text_models._PRESENT).clip(
        device="meta", dtype=torch.float32)
    assert _counts(encoders) == TEXT_PRESETS[name]
    found = {target: set(target_layers(encoders, target)) for target in Target}
    attention = found[Target.CROSS_ATTENTION]
    assert attention == found[Target.ATTENTION]
    assert {path.split(".")[-1] for path in attention} <= {
        "q_proj", "k_proj", "v_proj", "out_proj", "q", "k", "v", "o"}
    added = found[Target.ATTENTION_FEED_FORWARD] - attention
    assert {path.split(".")[-1] for path in added} <= {"fc1", "fc2", "wi_0", "wi_1", "wo"}
    heads = found[Target.ALL_LINEAR] - found[Target.ATTENTION_FEED_FORWARD]
    assert heads == {path for path in found[Target.ALL_LINEAR] if "text_projection" in path}


def test_a_single_encoder_is_told_from_a_diffusion_model_too():
    encoders = model_config("flux").clip_target(text_models._PRESENT).clip(
        device="meta", dtype=torch.float32)
    assert len(target_layers(encoders.t5xxl, Target.CROSS_ATTENTION)) == 8
