"""The values of sd-scripts' arguments, where a wrong one would train something else in silence."""

from __future__ import annotations

import ast

import pytest
import torch
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.kohya.arguments import Architecture, settings
from likeness.nodes.training.recipes.adapters import (
    DoRARecipe,
    LoHaRecipe,
    LoKrRecipe,
    LoRARecipe,
    OFTRecipe,
)
from likeness.nodes.training.recipes.base import TokenSettings
from likeness.nodes.training.recipes.fields import Optimizer
from likeness.nodes.training.recipes.whole import DreamBoothRecipe, TextualInversionRecipe
from likeness.nodes.training.steps.optimizers import make_optimizer


def _made(architecture, recipe, class_photos=False):
    return settings(Architecture(architecture), recipe, "ohwx", "man", class_photos)


@pytest.mark.parametrize(("architecture", "recipe", "wanted"), [
    ("sd15", LoRARecipe(steps=70, accumulate=3), {
        "max_train_steps": 70, "gradient_accumulation_steps": 3}),
    ("sd15", LoRARecipe(precision="float32"), {"mixed_precision": "no"}),
    ("sd15", LoRARecipe(gradient_clip=0.5), {"mixed_precision": "bf16", "max_grad_norm": 0.5}),
    ("sdxl", LoRARecipe(), {"no_half_vae": True, "network_train_unet_only": True}),
    ("sd15", LoRARecipe(optimizer="adafactor", weight_decay=0.02), {
        "optimizer_args": ["weight_decay=0.02", "relative_step=False", "scale_parameter=False",
                           "warmup_init=False"]}),
    ("sd15", LoRARecipe(optimizer="prodigy", learning_rate=1.0), {
        "optimizer_type": "Prodigy", "learning_rate": 1.0, "optimizer_args": [
            "weight_decay=0.01", "betas=(0.9, 0.99)", "use_bias_correction=True",
            "safeguard_warmup=True"]}),
    ("sd15", LoRARecipe(optimizer="adamw schedule-free", warmup=5), {
        "optimizer_type": "AdamWScheduleFree", "lr_warmup_steps": 0,
        "optimizer_args": ["weight_decay=0.01", "warmup_steps=5"]}),
    ("sd15", LoRARecipe(schedule="cosine", warmup=5), {
        "lr_scheduler": "cosine", "lr_warmup_steps": 5}),
    ("sdxl", LoRARecipe(weighting="debiased"), {"debiased_estimation_loss": True}),
    ("sd15", LoRARecipe(min_snr=3.0), {"min_snr_gamma": 3.0}),
    ("sd15", TextualInversionRecipe(tokens=TokenSettings(initial_word="face")), {
        "init_word": "face"}),
    ("sd15", DreamBoothRecipe(), {"stop_text_encoder_training": -1}),
    ("sd15", LoRARecipe(rank=6, alpha=3.0, target="all linear and convolutions"), {
        "network_args": ["conv_dim=6", "conv_alpha=3.0"]}),
    ("sdxl", OFTRecipe(block_size=12), {
        "network_dim": 12, "network_args": ["algo=diag-oft"]}),
    ("sd15", DoRARecipe(rank=6, target="attention"), {
        "network_module": "lycoris.kohya", "network_dim": 6,
        "network_args": ["algo=lora", "dora_wd=True", "wd_on_output=False"]}),
    ("sd15", LoHaRecipe(), {"network_args": ["algo=loha"]}),
    ("sd15", LoKrRecipe(factor=4), {"network_args": ["algo=lokr", "factor=4"]}),
    ("sd3", LoRARecipe(rank=6), {"training_shift": 3.0, "weighting_scheme": "logit_normal"}),
    ("sd3", LoRARecipe(shift=2.0, timesteps="mode"), {
        "training_shift": 2.0, "weighting_scheme": "mode", "mode_scale": 1.29}),
    ("sd3", LoRARecipe(timesteps="uniform"), {"weighting_scheme": "none"}),
    ("sd3", LoRARecipe(timesteps="uniform", weighting="cosmap"), {"weighting_scheme": "cosmap"}),
    ("flux", LoRARecipe(shift_by_resolution=True, logit_std=0.7, guidance=3.5), {
        "timestep_sampling": "flux_shift", "sigmoid_scale": 0.7, "guidance_scale": 3.5}),
], ids=lambda value: value if isinstance(value, str) else "")
def test_an_argument_has_the_recipes_value(architecture, recipe, wanted):
    arguments = _made(architecture, recipe).arguments
    assert {name: arguments.get(name) for name in wanted} == wanted


@pytest.mark.parametrize(("architecture", "recipe", "absent"), [
    ("sd15", LoRARecipe(weighting="none", min_snr=5.0), "min_snr_gamma"),
    ("sd15", LoRARecipe(min_snr=0.0), "min_snr_gamma"),
    ("flux", LoRARecipe(min_snr=5.0), "min_snr_gamma"),
    ("sd15", LoRARecipe(), "debiased_estimation_loss"),
    ("sd3", DreamBoothRecipe(), "no_half_vae"),
    ("flux", DreamBoothRecipe(), "no_half_vae"),
    ("sd15", LoRARecipe(background=1.0), "masked_loss"),
    ("sd15", LoRARecipe(text_encoder=True), "network_train_unet_only"),
    ("sd15", LoRARecipe(), "prior_loss_weight"),
    ("sdxl", DreamBoothRecipe(), "stop_text_encoder_training")])
def test_an_argument_that_would_change_the_run_is_not_written(architecture, recipe, absent):
    assert absent not in _made(architecture, recipe).arguments


@pytest.mark.parametrize(("recipe", "text"), [
    (LoRARecipe(optimizer="prodigy"), "set `learning_rate` to 1, got 0.0001"),
    (LoRARecipe(optimizer="prodigy", learning_rate=1.0, text_encoder=True), "`text_rate`"),
    (LoRARecipe(optimizer="prodigy", learning_rate=1.0, plus_ratio=4.0), "`plus_ratio`"),
    (TextualInversionRecipe(optimizer="prodigy", learning_rate=1.0), "got 0.001")])
def test_rates_that_leave_prodigy_standing_are_refused_as_in_training(recipe, text):
    with pytest.raises(LikenessError, match=text):
        _made("sd15", recipe)


def test_prodigy_is_told_all_that_this_trainer_tells_it():
    prodigyopt = pytest.importorskip("prodigyopt")
    recipe = LoRARecipe(optimizer="prodigy", learning_rate=1.0, weight_decay=0.02)
    arguments = _made("sd15", recipe).arguments
    # As sd-scripts read them.
    options = {name: ast.literal_eval(value) for name, value in (
        option.split("=") for option in arguments["optimizer_args"])}
    theirs = prodigyopt.Prodigy([torch.nn.Parameter(torch.ones(2))],
                                lr=arguments["learning_rate"], **options)
    ours = make_optimizer(Optimizer.PRODIGY, [{"params": [torch.nn.Parameter(torch.ones(2))],
                                               "lr": 1.0}], recipe).optimizer
    for group, wanted in zip(theirs.param_groups, ours.param_groups, strict=True):
        assert {**group, "params": None} == {**wanted, "params": None}


@pytest.mark.parametrize("architecture", ["sd15", "sdxl"])
@pytest.mark.parametrize("recipe", [LoRARecipe(), DreamBoothRecipe(), TextualInversionRecipe()])
def test_the_vae_is_never_rounded_where_the_script_can_keep_it(architecture, recipe):
    assert _made(architecture, recipe).arguments["no_half_vae"] is True


def test_a_vae_that_the_script_rounds_is_told():
    assert "is saved so" in _made("sd3", DreamBoothRecipe()).lost["VAE"]
    assert "VAE" not in _made("sd3", DreamBoothRecipe(precision="float32")).lost
    assert "VAE" not in _made("sd3", LoRARecipe()).lost


@pytest.mark.parametrize("architecture", ["sd3", "flux"])
@pytest.mark.parametrize("kind", [LoRARecipe, LoHaRecipe])
def test_layers_that_a_network_does_not_have_are_refused(architecture, kind):
    with pytest.raises(LikenessError, match="no layers of the preset `cross-attention`"):
        _made(architecture, kind(target="cross-attention"))


def test_class_pictures_weigh_as_in_training_beside_photos_that_masks_make_lighter():
    for recipe in (LoRARecipe(class_weight=0.5), TextualInversionRecipe(class_weight=0.5),
                   DreamBoothRecipe(class_weight=0.5)):
        made = settings(Architecture.SD15, recipe, "ohwx", "man", True, mean_weight=0.3)
        assert made.arguments["prior_loss_weight"] == pytest.approx(0.15)
    fixed = settings(Architecture.SDXL, DreamBoothRecipe(), "ohwx", "man", True, mean_weight=0.25)
    assert "weigh 4 in the place of 1" in fixed.lost["class_weight"]


def test_what_the_script_of_a_weight_for_class_pictures_cannot_do_is_told():
    recipe = DreamBoothRecipe(class_weight=0.5)
    assert _made("sd15", recipe, class_photos=True).arguments["prior_loss_weight"] == 0.5
    fixed = _made("sdxl", recipe, class_photos=True)
    assert "prior_loss_weight" not in fixed.arguments and "class_weight" in fixed.lost
    assert "class_weight" not in _made("sdxl", recipe).lost


def test_a_weighting_that_cannot_go_with_the_noise_levels_is_told_and_not_written():
    made = _made("sd3", LoRARecipe(weighting="cosmap"))
    assert made.arguments["weighting_scheme"] == "logit_normal" and "weighting" in made.lost


def test_a_schedule_that_the_optimiser_ignores_is_told():
    assert "schedule" in _made("sd15", LoRARecipe(optimizer="adamw schedule-free",
                                                  schedule="cosine")).lost


@pytest.mark.parametrize(("target", "learns"), [
    ("attention", ("attn",)), ("attention and feed-forward", ("attn", "mlp")),
    ("all linear", ("attn", "mlp", "mod"))])
def test_a_preset_gives_ranks_to_its_own_parts_of_a_block(target, learns):
    options = _made("sd3", LoRARecipe(target=target, rank=6)).arguments["network_args"]
    assert sorted(options) == sorted(
        f"{side}_{part}_dim={6 if part in learns else 0}"
        for side in ("x", "context") for part in ("attn", "mlp", "mod"))
