"""The node that hands a training set over to kohya's sd-scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comfy.model_base
import folder_paths
from comfy_api.latest import io, ui

from ... import runtime
from ...errors import LikenessError
from ...schema import RecipeType, SubjectType, TrainingSetType, schema, seed
from ...sockets import Subject, TrainingSet
from ..recipes.base import Recipe
from .arguments import Architecture
from .dataset import Dataset, class_pictures
from .folder import Base, export

_AUTO = "auto"
_FAMILIES = {"SD15": Architecture.SD15, "SDXL": Architecture.SDXL, "SD3": Architecture.SD3,
             "Flux": Architecture.FLUX}  # class of comfy.supported_models
_UNLIKE = {"Flux2"}  # classes that descend from one of those but are another network
_PLACES = {"checkpoint": ("checkpoints", "diffusion_models"), "ae": ("vae",)}


class ExportKohyaNode(io.ComfyNode):
    """Writes a training set and a recipe for sd-scripts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessExportKohya", feature="training", display_name="Likeness Export Kohya",
            is_output_node=True,
            description="Writes a prepared training set and a recipe as a folder for kohya's "
                        "sd-scripts: cut photos, captions, face masks, configuration files and "
                        "the command to run. Takes a training set, its subject and a recipe; "
                        "gives the folder and a report of what sd-scripts cannot do alike. "
                        "Nothing is started.",
            inputs=[
                TrainingSetType.Input("training_set", tooltip="From Prepare Training: its crops, "
                                                              "buckets, captions and masks are "
                                                              "kept."),
                SubjectType.Input("subject", tooltip="The subject that the set was prepared from; "
                                                     "its photo files are cut again."),
                RecipeType.Input("recipe", tooltip="From a recipe node: decides the script and its "
                                                   "arguments."),
                io.Combo.Input("architecture",
                               options=[_AUTO, *(kind.value for kind in Architecture)],
                               default=_AUTO,
                               tooltip="Family of the model that sd-scripts will train. Auto asks "
                                       "the connected MODEL."),
                io.String.Input("checkpoint", default="",
                                tooltip="The base model for sd-scripts: a name as Load Checkpoint "
                                        "or Load Diffusion Model shows it, or a full path."),
                io.String.Input("name", default="",
                                tooltip="Folder below output/likeness/<subject>/kohya. An earlier "
                                        "export of the name is replaced. Empty: family and "
                                        "technique."),
                seed("Goes into the configuration as sd-scripts' own seed."),
                io.Model.Input("model", optional=True,
                               tooltip="Read for its family and whether it predicts velocity; "
                                       "needed for the architecture auto."),
                TrainingSetType.Input("class_set", optional=True,
                                      tooltip="From Class Photos: becomes the regularisation "
                                              "pictures of prior preservation."),
                io.String.Input("class_folder", default="", optional=True,
                                tooltip="A folder of pictures of others of the class below "
                                        "ComfyUI's input folder, in place of a class set. "
                                        "Captions are .txt or .caption files beside them."),
                *(io.String.Input(name, default="", optional=True, tooltip=tip)
                  for name, tip in (
                      ("clip_l", "CLIP-L's file, by name or path. FLUX needs it; SD3 only when "
                                 "the checkpoint holds none."),
                      ("clip_g", "CLIP-G's file, by name or path, for SD3 when the checkpoint "
                                 "holds none."),
                      ("t5xxl", "T5-XXL's file, by name or path. FLUX needs it; SD3 only when the "
                                "checkpoint holds none."),
                      ("ae", "FLUX's VAE file, by name or path."))),
            ],
            outputs=[
                io.String.Output(display_name="folder", tooltip="Full path of what was written."),
                io.String.Output(display_name="report", tooltip="JSON: script, command, pictures, "
                                                                "and what of the recipe "
                                                                "sd-scripts cannot follow."),
            ],
        )

    @classmethod
    def execute(cls, training_set: TrainingSet, subject: Subject, recipe: Recipe,
                architecture: str, checkpoint: str, name: str, seed: int, model: Any = None,
                class_set: TrainingSet | None = None, class_folder: str = "", clip_l: str = "",
                clip_g: str = "", t5xxl: str = "", ae: str = "") -> io.NodeOutput:
        kind = _architecture(architecture, model)
        if not checkpoint.strip():
            raise LikenessError("`checkpoint` is empty; give the base model's name or path, it "
                                "goes into the configuration.")
        own = Path(runtime.contained(runtime.input_directory(), class_folder.strip())) if (
            class_folder.strip()) else None
        others = class_pictures(class_set, own, subject.class_noun)
        data = Dataset(training_set, subject, others, recipe.background)
        parts = {"clip_l": clip_l, "clip_g": clip_g, "t5xxl": t5xxl, "ae": ae}
        base = Base(_file(checkpoint, _PLACES["checkpoint"]),
                    {part: _file(value, _PLACES.get(part, ("text_encoders",)))
                     for part, value in parts.items() if value.strip()}, _velocity(model))
        folder = _folder(subject, name.strip() or f"{kind.value}-{recipe.method}")
        report = export(folder, data, recipe, kind, base, seed,
                        runtime.progress_callback(len(training_set.items) + len(others)))
        text = json.dumps(report, indent=2)
        return io.NodeOutput(str(folder), text, ui=ui.PreviewText(text))


def _architecture(choice: str, model: Any) -> Architecture:
    found = None
    if model is not None:
        kinds = [kind.__name__ for kind in type(model.model.model_config).__mro__]
        found = (None if _UNLIKE & set(kinds) else
                 next((_FAMILIES[kind] for kind in kinds if kind in _FAMILIES), None))
    if found is None and model is not None:
        raise LikenessError(f"There are no settings for a {kinds[0]} model; sd15, sdxl, sd3 and "
                            "flux are written.")
    if choice != _AUTO:
        if choice not in {kind.value for kind in Architecture}:
            raise LikenessError(f"`architecture` must be one of {_AUTO}, "
                                f"{', '.join(kind.value for kind in Architecture)}; got {choice}.")
        if found is not None and found.value != choice:
            raise LikenessError(f"`architecture` is {choice}, but the connected MODEL is "
                                f"{found.value}; choose {_AUTO} or disconnect it.")
        return Architecture(choice)
    if found is None:
        raise LikenessError("`architecture` auto needs a connected MODEL; connect one or choose "
                            "the family.")
    return found


def _velocity(model: Any) -> bool:
    return model is not None and model.model.model_type is comfy.model_base.ModelType.V_PREDICTION


def _file(value: str, kinds: tuple[str, ...]) -> str:
    """The full path of a model file that the host knows by name; anything else as it is."""
    value = value.strip()
    if Path(value).is_absolute():
        return value
    found = (folder_paths.get_full_path(kind, value) for kind in kinds)
    return next((path for path in found if path is not None), value)


def _folder(subject: Subject, name: str) -> Path:
    base = runtime.output_directory() / "likeness" / subject.folder_name / "kohya"
    folder = runtime.contained(base, name)
    if folder == base:
        raise LikenessError(f"`name` {name} is no folder of its own; give a plain name.")
    return folder


NODES: list[type[io.ComfyNode]] = [ExportKohyaNode]
