"""How noise levels are drawn and weighed, as sd-scripts' arguments."""

from __future__ import annotations

import math

from ..recipes.base import Recipe
from ..recipes.fields import Timesteps, Weighting
from .settings import Settings

# The models' own time shifts, which the arguments have to spell out (comfy.supported_models).
_OWN_SHIFT = {"sd3": 3.0, "flux": math.exp(1.15)}
_MODE_SCALE = 1.29
_SCHEMES = {Weighting.SIGMA_SQRT: "sigma_sqrt", Weighting.COSMAP: "cosmap"}


def noise_arguments(made: Settings, recipe: Recipe, architecture: str) -> None:
    """Add the arguments of noise levels, noise offset and guidance."""
    made.take("timesteps", "logit_mean", "logit_std", "shift", "shift_by_resolution",
              "noise_offset", "guidance")
    if architecture in _OWN_SHIFT:
        _flow(made, recipe, architecture)
        if recipe.noise_offset > 0:
            made.lose("noise_offset", "flow models are trained without it there")
        return
    if recipe.timesteps not in (Timesteps.AUTO, Timesteps.UNIFORM):
        made.lose("timesteps", "noise levels are drawn uniformly")
    if recipe.noise_offset > 0:
        made.arguments["noise_offset"] = float(recipe.noise_offset)


def _flow(made: Settings, recipe: Recipe, architecture: str) -> None:
    shift = float(recipe.shift) or _OWN_SHIFT[architecture]
    by_resolution = recipe.shift_by_resolution
    normal = recipe.timesteps in (Timesteps.AUTO, Timesteps.LOGIT_NORMAL)
    scheme = "logit_normal" if normal else recipe.timesteps.value
    scheme = "none" if scheme == "uniform" else scheme
    if recipe.weighting in _SCHEMES and architecture == "sd3" and scheme == "none":
        scheme = _SCHEMES[recipe.weighting]
    elif recipe.weighting in (*_SCHEMES, Weighting.DEBIASED):
        made.lose("weighting", "it cannot go with these noise levels there")
    if architecture == "sd3":
        made.arguments["training_shift"] = shift
        if by_resolution:
            made.lose("shift_by_resolution", f"SD3's script has a fixed shift; {shift:g} is "
                                             "written")
        _density(made, recipe, scheme, 1.0)
        return
    made.arguments |= {"guidance_scale": float(recipe.guidance), "model_prediction_type": "raw",
                       "discrete_flow_shift": shift}
    if normal and recipe.logit_mean == 0:
        made.arguments |= {"timestep_sampling": "flux_shift" if by_resolution else "shift",
                           "sigmoid_scale": float(recipe.logit_std)}
        return
    # This way of drawing counts from noise to clean, so that the mean changes its sign.
    made.arguments["timestep_sampling"] = "sigma"
    _density(made, recipe, scheme, -1.0)
    if by_resolution:
        made.lose("shift_by_resolution", f"only centred logit-normal noise levels have it there; "
                                         f"the shift {shift:g} is written")
    if scheme == "mode":
        made.lose("timesteps", "the mode density is mirrored there: it leans to clean pictures")


def _density(made: Settings, recipe: Recipe, scheme: str, sign: float) -> None:
    made.arguments["weighting_scheme"] = scheme
    if scheme == "logit_normal":
        mean = sign * float(recipe.logit_mean)
        made.arguments |= {"logit_mean": mean + 0.0, "logit_std": float(recipe.logit_std)}
    elif scheme == "mode":
        made.arguments["mode_scale"] = _MODE_SCALE
