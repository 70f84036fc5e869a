"""The node that trains."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
from comfy_api.latest import io, ui
from PIL import Image

from ... import made_files, runtime
from ...errors import LikenessError
from ...media.images import to_image
from ...schema import (
    LoraModelType,
    LossMapType,
    MonitorType,
    RecipeType,
    SubjectType,
    TokenStartType,
    TrainingSetType,
    schema,
    seed,
)
from ...sockets import Subject, TrainingSet
from ..export.keys import KeyStyle
from ..export.lora import FILE_TYPES, apply_lora
from ..recipes import widgets
from ..recipes.base import Recipe
from ..steps.memory import MemoryPlan
from ..steps.plan import plan_text
from ..steps.step import StepResult
from ..watch import curve
from ..watch.monitor import Look
from . import in_memory, session
from .job import ANEW, CONTINUE, Job, Outcome
from .products import kinds

_OUTPUT, _MODELS = "output/loras", "models/loras"
_SHOW_EVERY = 1.0  # seconds between lines on the node


class TrainNode(io.ComfyNode):
    """Trains a recipe on a training set."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessTrain", feature="training", display_name="Likeness Train",
            is_output_node=True,
            description="Teaches a model a person. Takes a MODEL, a prepared training set and a "
                        "recipe; gives the MODEL with what was learned, its files and a report. "
                        "Each saved file is loaded back and compared before it counts. A cancelled "
                        "run goes on where it stopped when the same inputs are queued again; a "
                        "finished one is loaded from its files.",
            inputs=_inputs(),
            outputs=[
                io.Model.Output(display_name="model", tooltip="The MODEL with what was learned as "
                                                              "ordinary patches."),
                LoraModelType.Output(display_name="lora",
                                     tooltip="The LoRA's tensors, for Save LoRA and Load LoRA "
                                             "Model; empty where a recipe makes none."),
                LossMapType.Output(display_name="loss_map", tooltip="Loss of every step, for Plot "
                                                                    "Loss Graph."),
                io.String.Output(display_name="lora_path",
                                 tooltip="Full path of the run's main file: the LoRA, else the "
                                         "checkpoint, else the embedding."),
                io.String.Output(display_name="report", tooltip="JSON: steps, seconds per step, "
                                                                "files, sizes, parameters, share "
                                                                "of the loss on faces, likeness "
                                                                "at each look, losses."),
                io.Clip.Output(display_name="clip",
                               tooltip="The CLIP with what was learned: its prompts find the new "
                                       "word. The connected CLIP when nothing of it learned."),
                io.String.Output(display_name="trigger",
                                 tooltip="What a prompt calls the person by: `embedding:name` "
                                         "after a new word was trained, else the trigger."),
                io.Image.Output(display_name="looks",
                                tooltip="Sample pictures of every look in one sheet; the loss "
                                        "curve without a monitor."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_) -> str:
        in_memory.write_missing(runtime.running_node())
        return made_files.losses(runtime.running_node())

    @classmethod
    def execute(cls, model, training_set: TrainingSet, subject: Subject, recipe: Recipe,
                seed: int, name: str, save_to: str, file_precision: str, strength: float = 1.0,
                clip: Any = None, vae: Any = None, class_photos: TrainingSet | None = None,
                monitor: Any = None, token_start: Any = None,
                key_style: str = KeyStyle.KOHYA.value,
                unfinished: str = CONTINUE) -> io.NodeOutput:
        job = Job(model, training_set, subject, recipe, seed, name.strip() or subject.folder_name,
                  _folder(save_to), _work_folder(subject), file_precision, clip, vae, class_photos,
                  monitor, token_start, _key_style(key_style), unfinished,
                  *(_folder(save_to, kind) for kind in ("embeddings", "checkpoints")))
        runtime.contained(job.lora_folder, f"{job.name}.safetensors")
        if strength != 1.0 and "lora" not in kinds(job):
            raise LikenessError(f"`strength` changes a LoRA alone, and `{job.recipe.method}` makes "
                                "none; set it to 1.")
        if clip is not None and not job.teaches_text:
            runtime.unload(clip.patcher)  # the captions are encoded
        listener = _Listener(job)
        outcome = session.run(job, listener.on_step, listener.on_look, listener.on_picture,
                              listener.on_plan)
        node = runtime.running_node()
        made_files.remember(node, outcome.files.values())
        learned = in_memory.hold(node, outcome.files, outcome.tensors)
        patched = outcome.model
        if strength != 1.0:
            patched = apply_lora(job.model, outcome.tensors, strength)
        report = json.dumps(outcome.report, indent=2)
        pictures = _pictures(job, outcome)
        shown = ui.PreviewImage(pictures[0], cls=cls).as_dict() | ui.PreviewText(report).as_dict()
        return io.NodeOutput(patched, learned, {"loss": list(outcome.losses)},
                             str(outcome.path), report, outcome.clip, _trigger(job, outcome),
                             pictures[-1], ui=shown)


def _inputs() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="The model to teach, from its loader; it is left exactly "
                                        "as it was. After Inject Face, what is learned only adds "
                                        "to the injected face."),
        TrainingSetType.Input("training_set", tooltip="From Prepare Training, made with this "
                                                      "model's VAE and CLIP."),
        SubjectType.Input("subject", tooltip="Who is learned: gives the trigger and the folder's "
                                             "name."),
        RecipeType.Input("recipe", tooltip="From a recipe node: technique and settings."),
        seed("Decides first weights, noise, noise levels and order; the same seed and inputs give "
             "the same weights on the same machine. Change it to train once more where a finished "
             "LoRA would be loaded."),
        io.String.Input("name", default="",
                        tooltip="Name of the files, to which the run's short key is added; may "
                                "name a sub-folder. Empty: the subject's name."),
        io.Combo.Input("save_to", options=[_OUTPUT, _MODELS], default=_OUTPUT,
                       tooltip="output/loras beside the pictures, or models/loras where Load LoRA "
                               "finds it in other workflows; embeddings and checkpoints go into "
                               "the folders of their kind beside it."),
        io.Combo.Input("file_precision", options=list(FILE_TYPES), default="fp16",
                       tooltip="Number format of the LoRA. fp16 is what others expect; fp32 is "
                               "twice as large and exact."),
        io.Float.Input("strength", default=1.0, min=-4.0, max=4.0, step=0.05, optional=True,
                       tooltip="How strongly the returned MODEL carries what was learned; the "
                               "files do not depend on it."),
        io.Clip.Input("clip", optional=True,
                      tooltip="The model's CLIP: for recipes that teach words or text encoders, "
                              "for DreamBooth and for the monitor."),
        io.Vae.Input("vae", optional=True,
                     tooltip="The model's VAE: for DreamBooth, the monitor and the identity loss."),
        TrainingSetType.Input("class_photos", optional=True,
                              tooltip="From Class Photos: other people of the class, whose looks "
                                      "the model keeps (prior preservation)."),
        MonitorType.Input("monitor", optional=True,
                          tooltip="From Training Monitor: looks at the run and picks its best "
                                  "state. Without one the last state is the result."),
        TokenStartType.Input("token_start", optional=True,
                             tooltip="From Token Start: what a new word starts from in place of a "
                                     "class word."),
        io.Combo.Input("key_style", options=widgets.values(KeyStyle),
                       default=KeyStyle.KOHYA.value, optional=True,
                       tooltip="Names inside the LoRA file. Kohya loads everywhere; diffusers is "
                               "for its pipelines, plain for new architectures. ComfyUI loads all "
                               "three."),
        io.Combo.Input("unfinished", options=[CONTINUE, ANEW], default=CONTINUE, optional=True,
                       tooltip="What to do about a cancelled run of this name: go on with it when "
                               "nothing has changed (and say what has, if something did), or "
                               "start anew."),
    ]


class _Listener:
    """Tells the browser of a run: progress bar, a line on the node, events for a panel."""

    def __init__(self, job: Job) -> None:
        self.job, self.progress = job, runtime.Progress(job.recipe.steps)
        self.step, self.shown, self.likeness = 0, 0.0, ""

    def on_plan(self, plan: MemoryPlan, free: int) -> None:
        """The first step is about to begin."""
        text = plan_text(plan, free)
        runtime.show_text(text)
        self._send(plan={"text": text, "bytes": plan.as_dict(), "free": free})

    def on_step(self, result: StepResult) -> None:
        """A step is done."""
        self.step = result.step
        self.progress.update(result.step)
        if time.monotonic() - self.shown > _SHOW_EVERY:
            self.shown = time.monotonic()
            runtime.show_text(f"step {result.step} of {self.job.recipe.steps}, loss "
                              f"{result.loss:.4f}{self.likeness}")
        self._send(step=result.step, loss=result.loss, terms=dict(result.terms),
                   learning_rate=result.learning_rate, seconds=result.seconds)

    def on_look(self, look: Look) -> None:
        """A look is done."""
        if look.likeness is not None:
            self.likeness = f", likeness {look.likeness:.3f} at step {look.step}"
        self._send(look=look.as_dict())

    def on_picture(self, number: int, pixels: np.ndarray) -> None:
        """A picture of a look is made."""
        self.progress.update(self.step, Image.fromarray(pixels))

    def _send(self, **told: Any) -> None:
        runtime.send_event("train", {"name": self.job.name, "steps": self.job.recipe.steps,
                                     **told})


def _pictures(job: Job, outcome: Outcome) -> list[Any]:
    """The curve, and the sheet of looks where there are any."""
    title = f"{job.name}: {len(outcome.losses)} steps"
    if not outcome.looks:
        return [to_image(curve.draw(outcome.losses, title))]
    kept = outcome.report["kept_step"]
    drawn = curve.draw(outcome.losses, title, outcome.looks, outcome.report["loss_by_noise"],
                       kept, outcome.report["ended"])
    return [to_image(drawn), to_image(curve.sheet(outcome.looks, kept))]


def _trigger(job: Job, outcome: Outcome) -> str:
    word = outcome.files.get("embedding")
    return job.subject.trigger if word is None else f"embedding:{word.stem}"


def _key_style(name: str) -> KeyStyle:
    if name not in widgets.values(KeyStyle):
        raise LikenessError(f"`key_style` must be one of {', '.join(widgets.values(KeyStyle))}, "
                            f"got {name}.")
    return KeyStyle(name)


def _folder(save_to: str, kind: str = "loras") -> Path:
    if save_to == _OUTPUT:
        return runtime.output_directory() / kind
    if save_to == _MODELS:
        return Path(folder_paths.get_folder_paths(kind)[0]).resolve()
    raise LikenessError(f"`save_to` must be {_OUTPUT} or {_MODELS}, got {save_to}.")


def _work_folder(subject: Subject) -> Path:
    return runtime.output_directory() / "likeness" / subject.folder_name / "training"


NODES: list[type[io.ComfyNode]] = [TrainNode]
