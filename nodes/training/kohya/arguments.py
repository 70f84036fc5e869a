"""A recipe as the arguments of sd-scripts' own training scripts.

The names are those of github.com/kohya-ss/sd-scripts at commit 48d368f.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from ...errors import LikenessError
from ..recipes.adapters import AdapterRecipe
from ..recipes.base import Recipe
from ..recipes.fields import BaseWeights, Loss, Optimizer, Precision, Schedule, Weighting
from ..recipes.rates import check_rates
from ..recipes.whole import DreamBoothRecipe, TextualInversionRecipe
from .networks import network_arguments
from .noise import noise_arguments
from .settings import Settings


class Architecture(str, Enum):
    """The model families whose scripts are written for."""

    SD15 = "sd15"
    SDXL = "sdxl"
    SD3 = "sd3"
    FLUX = "flux"

    @property
    def flow(self) -> bool:
        """Whether the models predict a flow."""
        return self in (Architecture.SD3, Architecture.FLUX)


_SCRIPTS: Mapping[str, Mapping[Architecture, str]] = MappingProxyType({
    "adapter": {Architecture.SD15: "train_network.py", Architecture.SDXL: "sdxl_train_network.py",
                Architecture.SD3: "sd3_train_network.py",
                Architecture.FLUX: "flux_train_network.py"},
    DreamBoothRecipe.method: {
        Architecture.SD15: "train_db.py", Architecture.SDXL: "sdxl_train.py",
        Architecture.SD3: "sd3_train.py", Architecture.FLUX: "flux_train.py"},
    TextualInversionRecipe.method: {
        Architecture.SD15: "train_textual_inversion.py",
        Architecture.SDXL: "sdxl_train_textual_inversion.py"},
})
_OPTIMIZERS = {
    Optimizer.ADAMW: ("AdamW", ()), Optimizer.ADAMW_8BIT: ("AdamW8bit", ()),
    Optimizer.ADAFACTOR: ("Adafactor", ("relative_step=False", "scale_parameter=False",
                                        "warmup_init=False")),
    # As this trainer makes it: without them the estimate starts late and Adam's own betas slow it.
    Optimizer.PRODIGY: ("Prodigy", ("betas=(0.9, 0.99)", "use_bias_correction=True",
                                    "safeguard_warmup=True")),
    Optimizer.LION: ("Lion", ()),
    Optimizer.SCHEDULE_FREE: ("AdamWScheduleFree", ())}
_LOSSES = {Loss.SQUARED: "l2", Loss.HUBER: "huber", Loss.SMOOTH_L1: "smooth_l1"}
# Scripts of full fine-tuning that take class pictures but no weight for them.
_FIXED_PRIOR = ("sdxl_train.py", "sd3_train.py", "flux_train.py")
# Scripts that cannot keep the VAE in float32, and whether they save it with the model.
_HALF_VAE = {"sd3_train.py": " and is saved so", "flux_train.py": ""}


def script_of(architecture: Architecture, recipe: Recipe) -> str:
    """The script that trains a recipe.

    Raises:
        LikenessError: sd-scripts have none.
    """
    method = "adapter" if isinstance(recipe, AdapterRecipe) else recipe.method
    script = _SCRIPTS.get(method, {}).get(architecture)
    if script is None:
        raise LikenessError(f"sd-scripts have no script for `{recipe.method}` on "
                            f"{architecture.value}; train it with Likeness Train or choose "
                            "another recipe.")
    return script


def settings(architecture: Architecture, recipe: Recipe, trigger: str, class_noun: str,
             class_photos: bool, mean_weight: float = 1.0) -> Settings:
    """The script, its arguments, and what of the recipe has no counterpart.

    Args:
        class_photos: whether there are pictures of the class to train beside.
        mean_weight: mean of the photos' masks as weights of the loss; 1: none.

    Raises:
        LikenessError: sd-scripts have no script for this recipe, or its rates or layers are not
            for the optimiser or the network.
    """
    made = Settings(script_of(architecture, recipe))
    _run(made, recipe)
    _optimizer(made, recipe)
    _loss(made, recipe, architecture)
    noise_arguments(made, recipe, architecture.value)
    _memory(made, recipe, architecture)
    _class(made, recipe, class_photos, mean_weight)
    if isinstance(recipe, AdapterRecipe):
        network_arguments(made, recipe, architecture.value)
    elif isinstance(recipe, TextualInversionRecipe):
        _words(made, recipe, trigger, class_noun)
    elif isinstance(recipe, DreamBoothRecipe):
        _whole(made, recipe)
    _rest(made, recipe)
    return made


def _run(made: Settings, recipe: Recipe) -> None:
    made.arguments |= {
        "max_train_steps": recipe.steps, "gradient_accumulation_steps": recipe.accumulate,
        "gradient_checkpointing": recipe.gradient_checkpointing, "cache_latents": True,
        "sdpa": True, "save_model_as": "safetensors", "save_precision": "fp16",
        "max_data_loader_n_workers": 2}
    made.take("steps", "accumulate", "gradient_checkpointing", "batch_size")
    if isinstance(recipe, TextualInversionRecipe):
        if recipe.caption_dropout > 0:
            made.lose("caption_dropout", "the scripts of textual inversion drop no captions")
    else:
        made.subset["caption_dropout_rate"] = float(recipe.caption_dropout)
    made.take("caption_dropout")
    if recipe.background < 1:
        made.subset["alpha_mask"] = True
        # train_db.py reads alpha masks without it, and with it takes no other data sets.
        if made.script != "train_db.py":
            made.arguments["masked_loss"] = True
        made.lose("background", "the weights are in the pictures' alpha channel; sd-scripts do not "
                                "divide by their mean, so the loss reads lower and gradient "
                                "clipping takes effect later")
    made.take("background")
    if recipe.balance_poses:
        made.lose("balance_poses", "every photo is seen equally often")


def _optimizer(made: Settings, recipe: Recipe) -> None:
    check_rates(recipe.optimizer, _rates(recipe))
    kind, options = _OPTIMIZERS[recipe.optimizer]
    options = [f"weight_decay={recipe.weight_decay!r}", *options]
    free = recipe.optimizer is Optimizer.SCHEDULE_FREE
    if free and recipe.warmup:
        options.append(f"warmup_steps={recipe.warmup}")
    schedule = recipe.schedule.value
    if recipe.schedule is Schedule.CONSTANT and recipe.warmup:
        schedule = "constant_with_warmup"
    if free and recipe.schedule is not Schedule.CONSTANT:
        made.lose("schedule", "the schedule-free optimiser ignores schedules")
    made.arguments |= {
        "learning_rate": recipe.learning_rate, "optimizer_type": kind, "optimizer_args": options,
        "lr_scheduler": schedule, "lr_warmup_steps": 0 if free else recipe.warmup,
        "max_grad_norm": float(recipe.gradient_clip)}
    made.take("learning_rate", "optimizer", "weight_decay", "schedule", "warmup", "gradient_clip")


def _rates(recipe: Recipe) -> list[float]:
    """The learning rates of all that the script will teach."""
    if isinstance(recipe, TextualInversionRecipe):
        return [recipe.tokens.learning_rate]
    rates = [recipe.learning_rate]
    if getattr(recipe, "text_encoder", False):
        rates.append(recipe.learning_rate * recipe.text_rate)
    return [*rates, *(rate * getattr(recipe, "plus_ratio", 1.0) for rate in rates)]


def _loss(made: Settings, recipe: Recipe, architecture: Architecture) -> None:
    made.arguments["loss_type"] = _LOSSES[recipe.loss]
    made.take("loss", "huber_width", "huber_schedule", "min_snr", "weighting")
    if recipe.loss is not Loss.SQUARED:
        schedule = recipe.huber_schedule.value
        if architecture.flow and schedule == "snr":
            schedule = "constant"
            made.lose("huber_schedule", "flow models have no `snr` schedule there; `constant` is "
                                        "written")
        made.arguments |= {"huber_c": float(recipe.huber_width), "huber_schedule": schedule}
    if architecture.flow:
        return  # their weighting goes with how noise levels are drawn
    if recipe.weighting is Weighting.AUTO and recipe.min_snr > 0:
        # Textual inversion and DreamBooth have these two arguments as well.
        made.arguments["min_snr_gamma"] = float(recipe.min_snr)
    elif recipe.weighting is Weighting.DEBIASED:
        made.arguments["debiased_estimation_loss"] = True
    elif recipe.weighting not in (Weighting.AUTO, Weighting.NONE):
        made.lose("weighting", "only flow models have this weighting")


def _memory(made: Settings, recipe: Recipe, architecture: Architecture) -> None:
    full = recipe.precision is Precision.FLOAT32
    made.arguments["mixed_precision"] = "no" if full else "bf16"
    made.take("precision", "base_weights")
    if made.script not in _HALF_VAE:
        # SDXL's own overflows in half precision, and DreamBooth would save a rounded one.
        made.arguments["no_half_vae"] = True
    elif not full:
        made.lost["VAE"] = (f"{made.script} has no `no_half_vae`: the VAE is rounded to bfloat16"
                            f"{_HALF_VAE[made.script]}; take the base model's own")
    if recipe.base_weights is not BaseWeights.AS_LOADED and isinstance(recipe, AdapterRecipe):
        made.arguments["fp8_base"] = True
        if recipe.base_weights is not BaseWeights.FP8:
            made.lose("base_weights", f"`{recipe.base_weights.value}` cannot be had there; 8 "
                                      "bits are written, which take twice the memory")
    elif recipe.base_weights is not BaseWeights.AS_LOADED:
        made.lose("base_weights", f"`{recipe.base_weights.value}` weights cannot be had with "
                                  f"{made.script}")


def _class(made: Settings, recipe: Recipe, class_photos: bool, mean_weight: float) -> None:
    made.take("class_weight")
    if not class_photos:
        return
    # They multiply a photo's loss by its mask, this trainer divides by the mask's mean too: the
    # photos' loss there is smaller by that mean, and class pictures have no mask.
    weight = recipe.class_weight * mean_weight
    if made.script not in _FIXED_PRIOR:
        made.arguments["prior_loss_weight"] = float(weight)
    elif abs(weight - 1) > 0.01:
        made.lose("class_weight", f"{made.script} has no weight for class pictures; beside the "
                                  f"masked photos they weigh {1 / mean_weight:.2g} in the place of "
                                  f"{recipe.class_weight:g}")


def _words(made: Settings, recipe: TextualInversionRecipe, trigger: str, class_noun: str) -> None:
    tokens = recipe.tokens
    made.arguments |= {"token_string": trigger, "init_word": tokens.initial_word or class_noun,
                       "num_vectors_per_token": tokens.vectors,
                       "learning_rate": tokens.learning_rate}
    lost = [name for name, neutral in (("share", 1.0), ("norm_weight", 0.0))
            if getattr(tokens, name) != neutral]
    if lost:
        made.lose("tokens", f"`{'` and `'.join(lost)}` of the new word have no counterpart")
    made.take("tokens")


def _whole(made: Settings, recipe: DreamBoothRecipe) -> None:
    if made.script == "train_db.py":
        made.arguments["stop_text_encoder_training"] = -1
    made.lose("target", f"{made.script} trains the whole diffusion model")


def _rest(made: Settings, recipe: Recipe) -> None:
    """Note what is set and was not expressed, so that nothing is dropped in silence."""
    for entry in dataclasses.fields(recipe):
        value = getattr(recipe, entry.name)
        if entry.name not in made.handled and value != _NEUTRAL.get(entry.name, entry.default):
            made.lost[entry.name] = "sd-scripts have no counterpart"


# What means "off" where a field's default is something else.
_NEUTRAL = {"balance_poses": False}
