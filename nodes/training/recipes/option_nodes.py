"""Nodes for the settings that few runs change; chained, they go into a recipe node."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from comfy_api.latest import io

from ...schema import RecipeOptionsType, schema
from . import widgets
from .fields import BaseWeights, HuberSchedule, Loss, Weighting

_CHAIN = RecipeOptionsType.Input("options", optional=True,
                                 tooltip="Options of another such node, which are kept; where both "
                                         "set the same, this node counts.")
_OUTPUT = RecipeOptionsType.Output(display_name="options",
                                   tooltip="The settings, for a recipe node's `options`.")


class _OptionsNode(io.ComfyNode):
    """What the option nodes share: their inputs are fields of a recipe."""

    @classmethod
    def execute(cls, options: Mapping[str, Any] | None = None, **fields) -> io.NodeOutput:
        return io.NodeOutput(MappingProxyType({**(options or {}), **fields}))


def _options_schema(node_id: str, title: str, description: str, inputs: list) -> io.Schema:
    return schema(node_id, feature="training/options", display_name=title,
                  description=description, inputs=[*inputs, _CHAIN], outputs=[_OUTPUT])


class ObjectiveOptionsNode(_OptionsNode):
    """What the loss weighs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _options_schema(
            "LikenessObjectiveOptions", "Likeness Objective Options",
            "What training minimises, beyond the settings of the recipe nodes. Takes numbers, "
            "gives options for a recipe node.", [
                io.Combo.Input("weighting", options=widgets.values(Weighting),
                               default=Weighting.AUTO.value,
                               tooltip="How much each noise level counts. Auto is min-SNR for "
                                       "SD1.5 and SDXL and even for flow models; debiased is for "
                                       "the former, sigma sqrt and cosmap for the latter."),
                io.Combo.Input("loss", options=widgets.values(Loss), default=Loss.SQUARED.value,
                               tooltip="What an error costs. Huber and smooth L1 count large "
                                       "errors less, which helps with odd photos in the set."),
                io.Float.Input("huber_width", default=0.1, min=0.001, max=10.0, step=0.01,
                               tooltip="Error from which Huber and smooth L1 grow only linearly."),
                io.Combo.Input("huber_schedule", options=widgets.values(HuberSchedule),
                               default=HuberSchedule.SNR.value,
                               tooltip="How that width depends on noise: snr and exponential "
                                       "narrow it where the picture is mostly noise."),
                io.Float.Input("noise_offset", default=0.0, min=0.0, max=1.0, step=0.005,
                               round=False,
                               tooltip="Spread of a constant added to each channel's noise; 0.03 "
                                       "to 0.1 lets SD1.5 and SDXL learn dark and bright pictures. "
                                       "0 is off."),
                io.Float.Input("logit_mean", default=0.0, min=-5.0, max=5.0, step=0.1,
                               tooltip="Middle of logit-normal noise levels; above 0 trains more "
                                       "on noisy pictures, that is on composition."),
                io.Float.Input("logit_std", default=1.0, min=0.05, max=5.0, step=0.05,
                               tooltip="Width of logit-normal noise levels."),
                io.Boolean.Input("shift_by_resolution", default=False,
                                 tooltip="Shifts flow models' noise levels by the latent's size, "
                                         "as FLUX.1 does when it samples; `shift` then has no "
                                         "part."),
                io.Float.Input("guidance", default=1.0, min=0.0, max=100.0, step=0.1,
                               tooltip="What guidance-distilled models (FLUX.1-dev) are told while "
                                       "they learn; 1 trains them as they were distilled."),
                io.Float.Input("class_weight", default=1.0, min=0.0, max=10.0, step=0.05,
                               tooltip="Weight of class photos when Train has some (prior "
                                       "preservation); 1 is the paper's, 0 is off."),
                io.Float.Input("class_word_weight", default=0.0, min=0.0, max=10.0, step=0.05,
                               tooltip="Keeps what the class word means without class photos: the "
                                       "model with and without what it has learned must agree on "
                                       "captions without the trigger. 1 is usual; costs two more "
                                       "passes a step. 0 is off."),
                io.Float.Input("outside_weight", default=0.0, min=0.0, max=10.0, step=0.05,
                               tooltip="Keeps what lies outside the face mask as the model shows "
                                       "it, so that rooms and clothes are not learned. 0.5 is "
                                       "usual; costs one more pass a step. 0 is off."),
                io.Boolean.Input("balance_poses", default=True,
                                 tooltip="Draws photos evenly over head poses rather than over "
                                         "files, at most three times as often as others, so that "
                                         "twenty frontal photos do not outweigh two profiles."),
            ])


class IdentityLossOptionsNode(_OptionsNode):
    """A recogniser in the loss."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _options_schema(
            "LikenessIdentityLossOptions", "Likeness Identity Loss Options",
            "Adds a face recogniser to the loss: decoded faces must come near to the person. Train "
            "needs VAE; late steps get two to four times slower. Judge such a run with another "
            "recogniser than dlib. Takes numbers, gives options for a recipe node.", [
                io.Float.Input("identity_weight", default=0.1, min=0.0, max=10.0, step=0.01,
                               tooltip="Weight of the recogniser's distance; 0.05 to 0.2, 0 is "
                                       "off. Too much gives masks instead of faces."),
                io.Float.Input("identity_snr", default=1.0, min=0.0, max=100.0, step=0.1,
                               tooltip="Signal-to-noise ratio from which the recogniser is asked; "
                                       "lower asks it on noisier pictures, where it sees little."),
                io.Float.Input("identity_from", default=0.5, min=0.0, max=1.0, step=0.05,
                               tooltip="Share of the steps after which it is asked; early steps "
                                       "have no face to recognise."),
            ])


class StepOptionsNode(_OptionsNode):
    """How steps are made, and memory."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _options_schema(
            "LikenessStepOptions", "Likeness Step Options",
            "How gradients become steps, and how the frozen weights lie in memory. Takes numbers, "
            "gives options for a recipe node.", [
                io.Int.Input("accumulate", default=1, min=1, max=256,
                             tooltip="Batches whose gradients make one step: the smoothness of a "
                                     "larger batch at the memory of one, at as many times the "
                                     "time."),
                io.Float.Input("weight_decay", default=0.01, min=0.0, max=1.0, step=0.001,
                               round=False,
                               tooltip="Pulls what is learned towards zero; 0 to 0.1."),
                io.Float.Input("gradient_clip", default=1.0, min=0.0, max=1000.0, step=0.1,
                               tooltip="Largest norm of a step's whole gradient; 0 clips nothing."),
                io.Float.Input("ema", default=0.0, min=0.0, max=0.9999, step=0.001, round=False,
                               tooltip="Share that a running average of what is learned keeps at "
                                       "each step; 0.99 evens out the last hundred steps. 0 is "
                                       "off."),
                io.Combo.Input("base_weights", options=widgets.values(BaseWeights),
                               default=BaseWeights.AS_LOADED.value,
                               tooltip="How the frozen weights lie in memory while others learn: "
                                       "fp8 takes half of 16 bits, nf4 a quarter and is coarser. "
                                       "What is saved fits the original weights."),
            ])


NODES: list[type[io.ComfyNode]] = [ObjectiveOptionsNode, IdentityLossOptionsNode, StepOptionsNode]
