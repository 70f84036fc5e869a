"""Our LoRA files in diffusers: `load_lora_weights` on the twin networks gives the same output."""

from __future__ import annotations

import diffusers
import pytest
import torch
import training_models
from likeness.nodes import runtime
from likeness.nodes.training.adapters.attach import attach
from likeness.nodes.training.adapters.group import Adapters
from likeness.nodes.training.export.diffusers import network_tensors
from likeness.nodes.training.export.keys import KeyStyle, layer_keys
from likeness.nodes.training.export.lora import apply_lora, lora_tensors
from likeness.nodes.training.frozen.scope import Scope
from likeness.nodes.training.recipes.adapters import LoRARecipe
from references import host_output, make_reference, network_inputs
from safetensors.torch import save_file

TOLERANCE = 1e-5
PRESETS = [("sd15", "cross-attention"), ("sd15", "all linear"), ("sdxl", "all linear"),
           ("sd3", "all linear"), ("flux", "attention and feed-forward"), ("flux", "all linear")]


def _adapted(name: str, target: str, seed: int = 5):
    """A tiny model and a LoRA that changes its output by much."""
    model = training_models.make_model(name)
    recipe = LoRARecipe(rank=4, alpha=2.0, target=target)
    generator = torch.Generator().manual_seed(seed)
    adapters = Adapters(model.model.diffusion_model, recipe, generator, training_models.CPU)
    with torch.no_grad():
        for layer in adapters.layers.values():
            layer.up.normal_(0.0, 0.1, generator=generator)
    return model, adapters


def _live_output(name: str, model, adapters, inputs) -> torch.Tensor:
    with Scope() as scope:
        attach(scope, model.model, model.model.diffusion_model, adapters, checkpointing=False)
        return host_output(name, model, inputs)


def _pipeline(name: str, network):
    """The real pipeline round a tiny network, without the parts that loading does not touch."""
    kind = {"sd15": diffusers.StableDiffusionPipeline, "sdxl": diffusers.StableDiffusionXLPipeline,
            "sd3": diffusers.StableDiffusion3Pipeline, "flux": diffusers.FluxPipeline}[name]
    schedule = (diffusers.DDIMScheduler() if name in ("sd15", "sdxl")
                else diffusers.FlowMatchEulerDiscreteScheduler())
    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer"))
    if name != "sd15":
        parts |= dict.fromkeys(("text_encoder_2", "tokenizer_2"))
    if name == "sd3":
        parts |= dict.fromkeys(("text_encoder_3", "tokenizer_3"))
    if name == "sd15":
        parts |= {"safety_checker": None, "feature_extractor": None,
                  "requires_safety_checker": False}
    parts["unet" if name in ("sd15", "sdxl") else "transformer"] = network
    return kind(scheduler=schedule, **parts)


def _diffusers_output(name: str, model, path, inputs) -> torch.Tensor:
    """What diffusers' network gives once its pipeline has loaded a file."""
    base = model.model
    reference = make_reference(name, base.model_config.unet_config,
                               base.diffusion_model.state_dict())
    _pipeline(name, reference.network).load_lora_weights(str(path.parent), weight_name=path.name)
    with torch.no_grad():
        return reference.predict(*inputs)


def _assert_same(found: torch.Tensor, wanted: torch.Tensor, before: torch.Tensor) -> None:
    change = (wanted - before).norm()
    assert change > 0.02 * before.norm()
    error = (found - wanted).norm()
    assert error < TOLERANCE * wanted.norm()
    # Rounding of the whole output, seen against the part of it that the LoRA changed.
    assert error < 10 * TOLERANCE * change


def _saved(model, adapters, style: KeyStyle, folder):
    path = folder / f"{style.value}.safetensors"
    if style is KeyStyle.DIFFUSERS:
        tensors = network_tensors(model, adapters, torch.float32)
    else:
        names = layer_keys(model, adapters.layers, style)
        tensors = lora_tensors(adapters, names, torch.float32)
    save_file(tensors, str(path))
    return path


@pytest.mark.parametrize(("name", "target"), PRESETS)
def test_diffusers_loads_its_style_with_the_same_result(name, target, tmp_path):
    model, adapters = _adapted(name, target)
    inputs = network_inputs(name, model.model)
    live = _live_output(name, model, adapters, inputs)
    path = _saved(model, adapters, KeyStyle.DIFFUSERS, tmp_path)
    found = _diffusers_output(name, model, path, inputs)
    _assert_same(found, live, host_output(name, model, inputs))


# SD3's pipeline knows its own names alone; it warns of kohya's and loads nothing.
@pytest.mark.parametrize("name", ["sd15", "sdxl", "flux"])
def test_diffusers_loads_the_kohya_style_with_the_same_result(name, tmp_path):
    model, adapters = _adapted(name, "attention and feed-forward")
    # Diffusers cuts kohya's single blocks at FLUX.1's own width, which the tiny model has not.
    adapters.layers = {path: layer for path, layer in adapters.layers.items()
                       if not path.startswith("single_blocks")}
    inputs = network_inputs(name, model.model)
    live = _live_output(name, model, adapters, inputs)
    path = _saved(model, adapters, KeyStyle.KOHYA, tmp_path)
    found = _diffusers_output(name, model, path, inputs)
    _assert_same(found, live, host_output(name, model, inputs))


@pytest.mark.parametrize("style", list(KeyStyle), ids=lambda style: style.value)
@pytest.mark.parametrize("name", training_models.ARCHITECTURES)
def test_the_hosts_loader_takes_every_key_of_each_style(name, style, tmp_path, caplog):
    model, adapters = _adapted(name, "all linear")
    inputs = network_inputs(name, model.model)
    before = host_output(name, model, inputs)
    live = _live_output(name, model, adapters, inputs)
    tensors = runtime.load_weights(_saved(model, adapters, style, tmp_path))
    patched = apply_lora(model, tensors, 1.0)
    assert not [row for row in caplog.records if "not loaded" in row.getMessage()]
    assert set(patched.patches) == {
        f"diffusion_model.{path}.weight" for path in adapters.layers}
    runtime.load_models([patched])
    _assert_same(host_output(name, patched, inputs), live, before)
