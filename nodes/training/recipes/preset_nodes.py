"""The node that takes a recipe from published settings for the connected model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io, ui

from ...errors import LikenessError
from ...schema import RecipeOptionsType, RecipeType, TrainingSetType, schema
from ...sockets import TrainingSet
from ..parametrisation import is_flow
from . import presets

_AUTO = "auto"


class RecipePresetNode(io.ComfyNode):
    """A recipe from published settings, with the source of every number."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessRecipePreset", feature="training", display_name="Likeness Recipe Preset",
            description="A recipe from published settings for faces. Takes the MODEL, which tells "
                        "the architecture, and the training set, whose photos decide the steps; "
                        "gives a recipe for Train and a report with the source of every number.",
            inputs=[
                io.Model.Input("model", tooltip="The MODEL that will learn; only asked for its "
                                                "architecture."),
                io.Combo.Input("preset", options=[_AUTO, *(known.title for known in
                                                           presets.PRESETS)], default=_AUTO,
                               tooltip="Which settings. Auto is a LoRA for portraits, for the "
                                       "MODEL's architecture; low memory and 8 GB are for small "
                                       "cards, pivotal and textual inversion teach a new word, "
                                       "DreamBooth changes the model itself."),
                io.Int.Input("steps", default=0, min=0, max=100000,
                             tooltip="Optimiser steps. 0 takes the preset's number for the photos "
                                     "of the training set, 60 to 200 per photo; set it to train "
                                     "shorter or longer."),
                TrainingSetType.Input("training_set", optional=True,
                                      tooltip="From Prepare Training: its photos decide the steps. "
                                              f"Without it {presets.TYPICAL_PHOTOS} photos are "
                                              "assumed."),
                RecipeOptionsType.Input("options", optional=True,
                                        tooltip="Settings of the option nodes; they win over the "
                                                "preset's."),
            ],
            outputs=[
                RecipeType.Output(display_name="recipe",
                                  tooltip="The recipe, checked; goes into Train."),
                io.Int.Output(display_name="steps", tooltip="Optimiser steps of the recipe."),
                io.String.Output(display_name="report",
                                 tooltip="JSON: preset, architecture, every number of the recipe "
                                         "with its source, how the steps came about, and advice "
                                         "for other nodes (resolution, photos, class photos)."),
            ],
        )

    @classmethod
    def execute(cls, model, preset: str, steps: int, training_set: TrainingSet | None = None,
                options: Mapping[str, Any] | None = None) -> io.NodeOutput:
        if steps < 0:
            raise LikenessError(f"`steps` must be 0 or more, got {steps}.")
        flow = is_flow(model.get_model_object("model_sampling"))
        classes = [kind.__name__ for kind in type(model.model.model_config).__mro__]
        chosen = presets.choose("" if preset == _AUTO else preset,
                                presets.architecture_of(classes, flow), flow)
        photos = presets.TYPICAL_PHOTOS if training_set is None else len(training_set.items)
        recipe = chosen.make(photos, steps).with_options(options or {})
        text = json.dumps(chosen.report(recipe, photos, options or (), steps), indent=2)
        return io.NodeOutput(recipe, recipe.steps, text, ui=ui.PreviewText(text))


NODES: list[type[io.ComfyNode]] = [RecipePresetNode]
