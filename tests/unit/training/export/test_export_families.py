"""Which model a file says it was trained on, by the host's own classes and what they have read."""

from __future__ import annotations

import comfy.model_base
import comfy.model_patcher
import comfy.supported_models
import pytest
import training_models
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from likeness.nodes.training.export.families import family, prediction

from launcher.tiny.checkpoints import model_config, unet_config

V = comfy.model_base.ModelType.V_PREDICTION


def _named(kind: str, predicts=comfy.model_base.ModelType.EPS, **sizes):
    """What a model of a host class with these sizes is called; its network is a tiny one."""
    base = comfy.model_base.BaseModel(model_config("sd15"), predicts, device=training_models.CPU)
    base.model_config = getattr(comfy.supported_models, kind)({**unet_config("sd15"), **sizes})
    model = comfy.model_patcher.ModelPatcher(base, training_models.CPU, training_models.CPU)
    return family(model)


@pytest.mark.parametrize(("kind", "sizes", "wanted"), [
    ("SD15", {}, "stable-diffusion-v1"),
    ("SD15", {"in_channels": 9}, "stable-diffusion-v1-inpainting"),
    ("SD20", {}, "stable-diffusion-v2-512"),
    ("SD20", {"predicts": V}, "stable-diffusion-v2-768-v"),
    ("SD20", {"in_channels": 9}, "stable-diffusion-v2-inpainting"),
    ("SDXL", {"predicts": V}, "stable-diffusion-xl-v1-base"),
    ("SSD1B", {}, "ssd1b"),
    ("SD3", {"depth": 24, "x_block_self_attn_layers": []}, "stable-diffusion-3-medium"),
    ("SD3", {"depth": 24, "x_block_self_attn_layers": [0, 1]},
     "stable-diffusion-3-5-medium"),
    ("SD3", {"depth": 38, "x_block_self_attn_layers": []}, "stable-diffusion-3-5-large"),
    ("SD3", {"depth": 2}, "stable-diffusion-3"),
    ("Flux", {"in_channels": 16, "guidance_embed": True}, "flux-1-dev"),
    ("FluxSchnell", {"in_channels": 16, "guidance_embed": False}, "flux-1-schnell"),
    ("FluxInpaint", {"in_channels": 96, "guidance_embed": True}, "flux-1"),
    ("Flux2", {"in_channels": 128, "hidden_size": 6144, "guidance_embed": True}, "flux-2"),
    ("Chroma", {}, "chroma"), ("ZImage", {}, "z-image"),
    ("HunyuanDiT", {}, "hunyuandit")])
def test_a_file_names_the_variant_that_was_trained(kind, sizes, wanted):
    assert _named(kind, **sizes)[1] == wanted


@pytest.mark.parametrize(("name", "architecture", "predicted"), [
    ("sd15", "stable-diffusion-v1", "epsilon"), ("sdxl", "stable-diffusion-xl-v1-base", "epsilon"),
    ("sd3", "stable-diffusion-3", "flow"), ("flux", "flux-1-dev", "flow")])
def test_a_whole_model_is_named_with_what_it_predicts(name, architecture, predicted):
    model = training_models.make_model(name)
    assert (family(model)[1], prediction(model)) == (architecture, predicted)


def test_a_velocity_predicting_sdxl_is_told_from_the_usual_one():
    assert prediction(training_models.make_model("sdxl", prediction="v")) == "v"


@pytest.mark.parametrize(("choice", "wanted"), [("v_prediction", "v"), ("eps", "epsilon"),
                                                ("lcm", "epsilon"), ("x0", None)])
def test_what_a_sampling_node_has_made_of_a_model_counts(choice, wanted):
    model = training_models.make_model("sd15")
    changed, = ModelSamplingDiscrete().patch(model, choice, False)
    assert prediction(changed) == wanted
    assert prediction(model) == "epsilon"
