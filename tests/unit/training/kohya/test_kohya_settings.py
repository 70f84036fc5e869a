"""Recipes as the arguments of sd-scripts' scripts."""

from __future__ import annotations

import dataclasses
import math

import kohya_arguments
import pytest
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.kohya.arguments import Architecture, settings
from likeness.nodes.training.recipes.adapters import (
    DoRARecipe,
    LoHaRecipe,
    LoKrRecipe,
    LoRARecipe,
    OFTRecipe,
    QLoRARecipe,
)
from likeness.nodes.training.recipes.base import TokenSettings
from likeness.nodes.training.recipes.whole import DreamBoothRecipe, TextualInversionRecipe

RECIPES = (LoRARecipe, QLoRARecipe, DoRARecipe, LoHaRecipe, LoKrRecipe, OFTRecipe,
           DreamBoothRecipe, TextualInversionRecipe)
# Another value than the default of every field that a recipe may have.
OTHERS = {
    "steps": 7, "learning_rate": 3e-4, "batch_size": 2, "accumulate": 3, "optimizer": "lion",
    "weight_decay": 0.02, "schedule": "cosine", "warmup": 3, "gradient_clip": 0.5, "ema": 0.9,
    "background": 0.5, "caption_dropout": 0.2, "balance_poses": False, "timesteps": "mode",
    "logit_mean": 0.5, "logit_std": 0.7, "shift": 2.0, "shift_by_resolution": True,
    "weighting": "sigma sqrt", "min_snr": 3.0, "loss": "huber", "huber_width": 0.2,
    "huber_schedule": "constant", "noise_offset": 0.05, "guidance": 2.0, "class_weight": 0.5,
    "class_word_weight": 0.1, "outside_weight": 0.1, "identity_weight": 0.1, "identity_snr": 2.0,
    "identity_from": 0.2, "gradient_checkpointing": False, "precision": "float32",
    "base_weights": "fp8", "tokens": TokenSettings(vectors=3, share=0.5), "rank": 12, "alpha": 4.0,
    "rank_stabilised": True, "target": "all linear", "block_ranks": "middle_block = 4",
    "rank_dropout": 0.1, "text_encoder": True, "text_rate": 0.3, "initialisation": "orthogonal",
    "plus_ratio": 4.0, "factor": 4, "block_size": 8, "constraint": 0.3}
# A word that learns alone learns to the end.
ALONE = {"tokens": TokenSettings(vectors=3)}


def _made(architecture: str, recipe, class_photos: bool = True):
    return settings(Architecture(architecture), recipe, "ohwx", "man", class_photos)


def _cases():
    for architecture in Architecture:
        for kind in RECIPES:
            if kind is not TextualInversionRecipe or not architecture.flow:
                yield architecture.value, kind


def _others(kind):
    return {**OTHERS, **(ALONE if kind is TextualInversionRecipe else {})}


def _variants(kind):
    yield kind()
    for name, value in _others(kind).items():
        if name == "rank_dropout" and kind is OFTRecipe:
            continue  # refused
        if name in {field.name for field in dataclasses.fields(kind)}:
            yield dataclasses.replace(kind(), **{name: value})


@pytest.mark.parametrize(("architecture", "kind"), _cases())
def test_every_argument_is_one_of_the_scripts_own(architecture, kind):
    for recipe in _variants(kind):
        made = _made(architecture, recipe)
        assert set(made.arguments) <= kohya_arguments.ARGUMENTS[made.script], recipe
        assert set(made.subset) <= kohya_arguments.SUBSET
        for name, allowed in kohya_arguments.CHOICES.items():
            assert made.arguments.get(name, next(iter(allowed))) in allowed, name


@pytest.mark.parametrize(("architecture", "kind"), _cases())
def test_no_changed_field_is_dropped_in_silence(architecture, kind):
    """A field either changes an argument, or the report names it."""
    base = dataclasses.replace(kind(), balance_poses=False)
    plain = _made(architecture, base)
    bound = {"balance_poses", "batch_size",  # the data set's file has it
             # They matter only beside another field:
             "logit_mean", "logit_std", "huber_width", "huber_schedule", "text_rate"}
    if Architecture(architecture).flow:
        bound |= {"min_snr"}  # an engine rule: flow models need none
    else:
        bound |= {"shift", "shift_by_resolution"}
    if architecture != "flux":
        bound |= {"guidance"}
    if kind is OFTRecipe:
        bound |= {"rank", "rank_stabilised", "rank_dropout"}  # they have no part in it
    if kind is QLoRARecipe:
        bound |= {"base_weights"}  # 4 bits become 8: a test of its own
    if kind is TextualInversionRecipe:
        bound |= {"learning_rate"}  # the word's own rate counts
    for name, value in _others(kind).items():
        if name not in {field.name for field in dataclasses.fields(kind)} or name in bound:
            continue
        made = _made(architecture, dataclasses.replace(base, **{name: value}))
        changed = (made.arguments, made.subset, made.preset) != (
            plain.arguments, plain.subset, plain.preset)
        assert changed or name in made.lost, name


def test_fields_that_matter_beside_another_are_expressed_with_it():
    huber = _made("sd15", LoRARecipe(loss="huber", huber_width=0.3, huber_schedule="exponential"))
    assert huber.arguments["huber_c"] == 0.3
    assert huber.arguments["huber_schedule"] == "exponential"
    text = _made("sdxl", LoRARecipe(text_encoder=True, text_rate=0.25, learning_rate=4e-4))
    assert text.arguments["text_encoder_lr"] == [1e-4]
    sd3 = _made("sd3", LoRARecipe(timesteps="logit-normal", logit_mean=0.5, logit_std=0.7))
    assert (sd3.arguments["logit_mean"], sd3.arguments["logit_std"]) == (0.5, 0.7)


def test_rank_stabilised_scaling_is_a_larger_alpha():
    made = _made("sd15", LoRARecipe(rank=16, alpha=4.0, rank_stabilised=True))
    assert made.arguments["network_alpha"] / 16 == pytest.approx(4.0 / math.sqrt(16))


def test_flux_trains_at_the_recipes_guidance_and_its_own_shift():
    arguments = _made("flux", LoRARecipe()).arguments
    assert arguments["guidance_scale"] == 1.0
    assert arguments["model_prediction_type"] == "raw"
    assert (arguments["timestep_sampling"], arguments["sigmoid_scale"]) == ("shift", 1.0)
    assert arguments["discrete_flow_shift"] == pytest.approx(math.exp(1.15))


def test_flux_draws_an_off_centre_mean_from_the_other_end():
    arguments = _made("flux", LoRARecipe(timesteps="logit-normal", logit_mean=0.5)).arguments
    assert arguments["timestep_sampling"] == "sigma"
    assert (arguments["weighting_scheme"], arguments["logit_mean"]) == ("logit_normal", -0.5)


def test_a_preset_without_feed_forward_leaves_those_ranks_at_zero():
    options = _made("flux", LoRARecipe(target="attention", rank=8)).arguments["network_args"]
    assert {"img_attn_dim=8", "single_dim=8", "img_mlp_dim=0", "img_mod_dim=0"} <= set(options)


def test_snr_scheduled_huber_is_not_asked_of_flow_models():
    made = _made("flux", LoRARecipe(loss="huber", huber_schedule="snr"))
    assert made.arguments["huber_schedule"] == "constant" and "huber_schedule" in made.lost


def test_warmup_on_a_constant_schedule_names_the_schedule_that_has_one():
    assert _made("sd15", LoRARecipe(warmup=5)).arguments["lr_scheduler"] == "constant_with_warmup"


@pytest.mark.parametrize("architecture", ["sd3", "flux"])
def test_textual_inversion_of_flow_models_has_no_script(architecture):
    with pytest.raises(LikenessError, match="no script for `textual inversion`"):
        _made(architecture, TextualInversionRecipe())


def test_textual_inversion_starts_from_the_class_noun():
    recipe = TextualInversionRecipe(tokens=TokenSettings(vectors=4))
    arguments = _made("sd15", recipe).arguments
    assert (arguments["token_string"], arguments["init_word"]) == ("ohwx", "man")
    assert arguments["num_vectors_per_token"] == 4
    assert arguments["learning_rate"] == recipe.tokens.learning_rate


def test_the_script_that_would_want_mask_folders_gets_alpha_masks_alone():
    made = _made("sd15", DreamBoothRecipe())
    assert made.subset["alpha_mask"] is True and "masked_loss" not in made.arguments
    assert _made("sdxl", DreamBoothRecipe()).arguments["masked_loss"] is True


@pytest.mark.parametrize("architecture", list(Architecture), ids=lambda kind: kind.value)
def test_qlora_is_a_lora_over_weights_in_8_bits(architecture):
    made, plain = _made(architecture, QLoRARecipe()), _made(architecture, LoRARecipe())
    assert made.arguments == {**plain.arguments, "fp8_base": True,
                              "learning_rate": made.arguments["learning_rate"]}
    assert "8 bits are written" in made.lost["base_weights"]
    exact = _made(architecture, QLoRARecipe(base_weights="fp8"))
    assert exact.arguments["fp8_base"] is True and "base_weights" not in exact.lost
