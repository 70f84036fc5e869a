"""LyCORIS' preset files: they name the layers that the same recipe teaches here, and no others."""

from __future__ import annotations

import re

import comfy.utils
import pytest
import text_models
import training_models
from likeness.nodes.training.adapters.targets import target_layers
from likeness.nodes.training.kohya.lycoris import preset
from likeness.nodes.training.recipes.adapters import LoHaRecipe
from likeness.nodes.training.recipes.fields import Target
from torch import nn

# Text does not come by cross-attention in those, which is refused.
CASES = pytest.mark.parametrize(("name", "target"), [
    (name, target.value) for name in training_models.ARCHITECTURES for target in Target
    if target is not Target.CROSS_ATTENTION or name not in ("sd3", "flux")])


def _matched(names: dict[str, nn.Module], patterns: list[str], convolutions: bool) -> set[str]:
    """The layers that LyCORIS teaches: `re.match` on whole paths, and what a layer can be."""
    kinds = (nn.Linear, nn.Conv2d)
    return {name for name, module in names.items() if isinstance(module, kinds)
            and (convolutions or getattr(module, "kernel_size", (1, 1)) == (1, 1))
            and any(re.match(pattern, name) for pattern in patterns)}


def _network_names(name: str, model) -> dict[str, str]:
    """Paths in sd-scripts' networks by the host's; SD1's is that of diffusers."""
    paths = {path: path for path, _ in model.model.diffusion_model.named_modules()}
    if name != "sd15":
        return paths
    table = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    return {own.removesuffix(".weight"): theirs.removesuffix(".weight")
            for theirs, own in table.items() if own.endswith(".weight")}


@CASES
def test_a_preset_names_the_network_s_layers_that_learn_here(name, target):
    model = training_models.make_model(name)
    network, names = model.model.diffusion_model, _network_names(name, model)
    told = preset(LoHaRecipe(target=target), name)
    theirs = {names[path]: module for path, module in network.named_modules() if path in names}
    wanted = {names[path] for path in target_layers(network, Target(target))}
    assert len(wanted) > 3
    assert _matched(theirs, told["unet_target_name"], told["enable_conv"]) == wanted


@CASES
def test_a_preset_names_the_layers_of_clip_that_learn_here(name, target, tmp_path):
    model = text_models.make_clip(name, tmp_path).cond_stage_model
    told = preset(LoHaRecipe(target=target, text_encoder=True), name)
    for encoder in text_models.ENCODERS[name]:
        if encoder == "t5xxl":
            continue  # learns in none of their scripts
        inside = f"{encoder}.transformer."
        layers = {path.removeprefix(inside): module for path, module in model.named_modules()
                  if path.startswith(inside)}
        wanted = {path.removeprefix(inside) for path in target_layers(model, Target(target))
                  if path.startswith(inside)}
        assert len(wanted) > 3
        assert _matched(layers, told["text_encoder_target_name"], False) == wanted
    silent = preset(LoHaRecipe(target=target), name)
    assert silent["text_encoder_target_name"] == silent["text_encoder_target_module"] == []
