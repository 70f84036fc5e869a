"""Nodes that say how to train and that train."""

from __future__ import annotations

import json
from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui

from .. import runtime
from ..errors import LikenessError
from ..images import to_image
from ..schema import (
    LoraModelType,
    LossMapType,
    RecipeType,
    SubjectType,
    TrainingSetType,
    schema,
    seed,
)
from ..sockets import Subject, TrainingSet
from . import session
from .curve import draw
from .export.lora import FILE_TYPES, apply_lora
from .recipes.adapters import LoRARecipe
from .recipes.fields import Optimizer, Precision, Schedule, Target, Timesteps

_OUTPUT, _MODELS = "output/loras", "models/loras"


def _values(kind) -> list[str]:
    return [member.value for member in kind]


class LoRARecipeNode(io.ComfyNode):
    """How to train a LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessLoRARecipe", feature="training", display_name="Likeness LoRA Recipe",
            description="Settings for training a LoRA: small matrices beside the model's own. "
                        "Takes numbers, gives a recipe for Train.",
            inputs=[
                io.Int.Input("steps", default=1000, min=2, max=100000,
                             tooltip="Optimiser steps. Published face settings use 27 to 200 per "
                                     "photo; more "
                                     "learns the face harder and bends to prompts less."),
                io.Float.Input("learning_rate", default=1e-4, min=1e-7, max=1.0, step=1e-6,
                               round=False,
                               tooltip="Size of a step. Published face settings lie round 1e-4; "
                                       "lower it when pictures turn noisy or waxy."),
                io.Int.Input("rank", default=16, min=1, max=512,
                             tooltip="Width of the adapters: file size and capacity grow with it. "
                                     "8 to 32 holds a face."),
                io.Float.Input("alpha", default=16.0, min=0.01, max=1024.0, step=0.5,
                               tooltip="The adapters' output is scaled by alpha / rank; keep it "
                                       "equal to rank unless a published setting says otherwise."),
                io.Combo.Input("target", options=_values(Target),
                               default=Target.ATTENTION_FEED_FORWARD.value,
                               tooltip="Which layers learn, from few to all. Cross-attention "
                                       "alone is a choice for UNets; SD3 and FLUX have none."),
                io.Int.Input("batch_size", default=1, min=1, max=64,
                             tooltip="Photos per step, one row each. Raise it for smoother "
                                     "learning when memory allows, and lower steps with it."),
                io.Combo.Input("schedule", options=_values(Schedule),
                               default=Schedule.CONSTANT.value,
                               tooltip="How the learning rate goes on after the warm-up: level, "
                                       "or down to zero at the end."),
                io.Int.Input("warmup", default=0, min=0, max=10000,
                             tooltip="Steps over which the learning rate rises from near zero; 10 "
                                     "to 100 steadies a high rate."),
                io.Combo.Input("optimizer", options=_values(Optimizer), default="adamw",
                               tooltip="How gradients become steps. AdamW is what every published "
                                       "face setting assumes."),
                io.Boolean.Input("gradient_checkpointing", default=True,
                                 tooltip="Computes each block twice and stores a fraction of the "
                                         "memory. Switch it off when memory is plenty: steps get "
                                         "faster, results stay equal."),
                io.Float.Input("background", default=0.2, min=0.01, max=1.0, step=0.01,
                               tooltip="Loss weight of everything but the face, which weighs 1. "
                                       "Lower keeps clothes and rooms out of what is learned; 1 "
                                       "treats the picture evenly."),
                io.Float.Input("caption_dropout", default=0.05, min=0.0, max=0.99, step=0.01,
                               tooltip="Share of steps that train on the empty caption, which "
                                       "keeps classifier-free guidance working; 0 to 0.1."),
                io.Float.Input("min_snr", default=5.0, min=0.0, max=100.0, step=0.5,
                               tooltip="Min-SNR gamma for SD1.5 and SDXL: evens out noise levels "
                                       "and learns faster. 0 is off. Flow models (SD3, FLUX) need "
                                       "none and get none; the report says what was used."),
                io.Combo.Input("timesteps", options=_values(Timesteps),
                               default=Timesteps.AUTO.value,
                               tooltip="How noise levels are drawn. Auto: uniform for SD1.5 and "
                                       "SDXL, logit-normal for flow models."),
                io.Float.Input("shift", default=0.0, min=0.0, max=20.0, step=0.05,
                               tooltip="Time shift of flow models' noise levels. 0 is the model's "
                                       "own, 1 none, higher trains more on the coarse picture."),
                io.Combo.Input("precision", options=_values(Precision),
                               default=Precision.AUTO.value,
                               tooltip="Number format of the frozen model's computation; adapters "
                                       "are always float32. Auto takes the model's own, bfloat16 "
                                       "in place of float16."),
            ],
            outputs=[RecipeType.Output(display_name="recipe",
                                       tooltip="The recipe, checked; goes into Train.")],
        )

    @classmethod
    def execute(cls, **fields) -> io.NodeOutput:
        return io.NodeOutput(LoRARecipe(**fields))


class TrainNode(io.ComfyNode):
    """Trains a recipe on a training set."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessTrain", feature="training", display_name="Likeness Train",
            is_output_node=True,
            description="Teaches a model a person. Takes a MODEL, a prepared training set and a "
                        "recipe; gives the MODEL with the LoRA, the LoRA itself and a report. The "
                        "saved file is loaded back and compared before it counts. A cancelled run "
                        "goes on where it stopped when the same inputs are queued again; a "
                        "finished one is loaded from its file.",
            inputs=[
                io.Model.Input("model", tooltip="The model to teach, from its loader; it is left "
                                                "exactly as it was."),
                TrainingSetType.Input("training_set", tooltip="From Prepare Training, made with "
                                                              "this model's VAE and CLIP."),
                SubjectType.Input("subject", tooltip="Who is learned: gives the trigger and the "
                                                     "folder's name."),
                RecipeType.Input("recipe", tooltip="From a recipe node: technique and settings."),
                seed("Decides first weights, noise, noise levels and order; the same seed and "
                     "inputs give the same weights on the same machine. Change it to train "
                     "once more where a finished LoRA would be loaded."),
                io.String.Input("name", default="",
                                tooltip="Name of the LoRA file, to which the run's short key is "
                                        "added; may name a sub-folder. Empty: the subject's name."),
                io.Combo.Input("save_to", options=[_OUTPUT, _MODELS], default=_OUTPUT,
                               tooltip="output/loras beside the pictures, or models/loras where "
                                       "Load LoRA finds it in other workflows."),
                io.Combo.Input("file_precision", options=list(FILE_TYPES), default="fp16",
                               tooltip="Number format of the file. fp16 is what others expect; "
                                       "fp32 is twice as large and exact."),
                io.Float.Input("strength", default=1.0, min=-4.0, max=4.0, step=0.05,
                               optional=True,
                               tooltip="How strongly the returned MODEL carries the LoRA; the file "
                                       "does not depend on it."),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The MODEL with the LoRA as "
                                                              "ordinary patches."),
                LoraModelType.Output(display_name="lora", tooltip="The LoRA's tensors, for Save "
                                                                  "LoRA and Load LoRA Model."),
                LossMapType.Output(display_name="loss_map", tooltip="Loss of every step, for Plot "
                                                                    "Loss Graph."),
                io.String.Output(display_name="lora_path", tooltip="Full path of the saved file."),
                io.String.Output(display_name="report", tooltip="JSON: steps, seconds per step, "
                                                                "file, size, parameters, share of "
                                                                "the loss on faces, losses."),
            ],
        )

    @classmethod
    def execute(cls, model, training_set: TrainingSet, subject: Subject, recipe: LoRARecipe,
                seed: int, name: str, save_to: str, file_precision: str,
                strength: float = 1.0) -> io.NodeOutput:
        job = session.Job(model, training_set, subject, recipe, seed,
                          name.strip() or subject.folder_name, _lora_folder(save_to),
                          _work_folder(subject), file_precision)
        runtime.contained(job.lora_folder, f"{job.name}.safetensors")
        progress = runtime.Progress(recipe.steps)
        outcome = session.run(job, lambda result: progress.update(result.step))
        patched = outcome.model if strength == 1.0 else apply_lora(model, outcome.tensors, strength)
        text = json.dumps(outcome.report, indent=2)
        picture = to_image(draw(outcome.losses, f"{job.name}: {recipe.steps} steps"))
        shown = ui.PreviewImage(picture, cls=cls).as_dict() | ui.PreviewText(text).as_dict()
        return io.NodeOutput(patched, dict(outcome.tensors), {"loss": list(outcome.losses)},
                             str(outcome.path), text, ui=shown)


def _lora_folder(save_to: str) -> Path:
    if save_to == _OUTPUT:
        return runtime.output_directory() / "loras"
    if save_to == _MODELS:
        return Path(folder_paths.get_folder_paths("loras")[0]).resolve()
    raise LikenessError(f"`save_to` must be {_OUTPUT} or {_MODELS}, got {save_to}.")


def _work_folder(subject: Subject) -> Path:
    return runtime.output_directory() / "likeness" / subject.folder_name / "training"


NODES: list[type[io.ComfyNode]] = [LoRARecipeNode, TrainNode]
