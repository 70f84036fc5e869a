"""The inputs of the sweep, and which LoRA file they mean."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import comfy.samplers
import folder_paths
from comfy_api.latest import io

from ... import models, runtime
from ...errors import LikenessError, MissingModelError
from ...faces.recognise import backends
from ...schema import ImpostorBankType, LoraModelType, SubjectType, seed

NONE, OUTPUT = "none", "output/loras/"
PROMPTS = ("photo of {subject}\nstudio headshot of {subject} in a navy suit, grey backdrop\n"
           "{subject} hiking in the mountains, sunny day\noil painting of {subject}")


def sweep_inputs() -> list[Any]:
    """Every input of Likeness Sweep; new ones go to the end."""
    return [*_sources(), *_cells(), *_sampling(), *_more()]


def _sources() -> list[Any]:
    return [
        io.Model.Input("model", tooltip="The MODEL without the LoRA; the sweep puts the LoRA on "
                                        "it. Not used where `models` is connected."),
        io.Clip.Input("clip", tooltip="The text encoder without the LoRA; it encodes the prompts, "
                                      "with the LoRA's own part at the same strength."),
        io.Vae.Input("vae", tooltip="Decodes the pictures."),
        SubjectType.Input("subject", tooltip="Whom the pictures should look like; gives trigger, "
                                             "class noun and the yardstick."),
        io.Combo.Input("lora", options=[NONE, *_lora_names()], default=NONE,
                       tooltip="The LoRA file to sweep, from models/loras or output/loras. The "
                               "new word of its run is found by itself. `lora_path` wins over it."),
    ]


def _cells() -> list[Any]:
    return [
        io.String.Input("strengths", default="0, 0.4, 0.6, 0.8, 1.0, 1.2",
                        tooltip="Strengths of the LoRA, between commas, -4 to 4. Include 0 to see "
                                "the model by itself. Adding one later makes its pictures only."),
        io.String.Input("prompts", default=PROMPTS, multiline=True,
                        tooltip="One prompt a line; {subject} becomes trigger and class noun, "
                                "%trigger% the trigger alone. Take styles and places that you "
                                "mean to use: what a model has lost shows there first."),
        io.String.Input("negative", default="", multiline=True,
                        tooltip="What the pictures should not show; the same for every cell."),
        io.Int.Input("seeds", default=1, min=1, max=64,
                     tooltip="Pictures of each prompt at each strength. 1 is a first look; 3 or "
                             "more tell a knee from noise."),
        seed("Noise of the first picture of each cell; further ones take the next numbers. Every "
             "strength gets the same noise."),
    ]


def _sampling() -> list[Any]:
    return [
        io.Int.Input("steps", default=20, min=1, max=1000,
                     tooltip="Sampling steps of each picture. 20 to 30; 4 to 8 for turbo models."),
        io.Float.Input("cfg", default=7.0, min=0.0, max=100.0, step=0.1,
                       tooltip="Classifier-free guidance. 7 for SD1.5, 5 for SDXL and SD3, 1 for "
                               "FLUX and turbo models."),
        io.Combo.Input("sampler", options=comfy.samplers.KSampler.SAMPLERS, default="euler",
                       tooltip="The algorithm that takes the steps, as in KSampler."),
        io.Combo.Input("scheduler", options=comfy.samplers.KSampler.SCHEDULERS, default="normal",
                       tooltip="How noise falls over the steps, as in KSampler; simple for FLUX."),
        io.Int.Input("width", default=512, min=16, max=8192, step=8,
                     tooltip="Pixels. 512 for SD1.5, 1024 for SDXL, SD3 and FLUX; a face needs "
                             "about 100 pixels to be scored."),
        io.Int.Input("height", default=512, min=16, max=8192, step=8,
                     tooltip="Pixels; as the width."),
        io.Float.Input("guidance", default=3.5, min=0.0, max=100.0, step=0.1,
                       tooltip="What guidance-distilled models such as FLUX.1-dev are told; other "
                               "models ignore it."),
        io.Combo.Input("backend", options=backends.ids(), default=backends.BOTH,
                       tooltip="The face recogniser that judges: two together, or one that neither "
                               "taught the LoRA nor injected the face."),
        io.Int.Input("max_cells", default=100, min=1, max=2000,
                     tooltip="More pictures than this are refused before any is made: strengths x "
                             "prompts x seeds grow fast. Raise it when you mean it."),
    ]


def _more() -> list[Any]:
    return [
        io.String.Input("lora_path", default="", optional=True,
                        tooltip="Path or name of a LoRA file in place of the choice above; connect "
                                "`lora_path` of Train."),
        LoraModelType.Input("lora_model", optional=True,
                            tooltip="A LoRA's tensors in place of a file, from Train or Train "
                                    "LoRA; acts on the MODEL alone."),
        io.Model.Input("models", optional=True,
                       tooltip="A list of MODELs to compare in place of strengths, such as "
                               "checkpoints of one run, from any node that makes lists."),
        io.String.Input("labels", default="", multiline=True, optional=True,
                        tooltip="Names of `models`, one a line, in their order. Empty numbers "
                                "them."),
        io.ClipVision.Input("clip_vision", optional=True,
                            tooltip="The vision tower of a full CLIP: flexibility is then how well "
                                    "the pictures follow their prompts (CLIP-T). Without it: how "
                                    "much the prompts' pictures differ."),
        io.Clip.Input("prompt_clip", optional=True,
                      tooltip="The text encoder that belongs to `clip_vision`; without it `clip` "
                              "is asked, which must hold its text projection."),
        io.String.Input("trigger", default="", optional=True,
                        tooltip="The word for the person in place of the subject's trigger; "
                                "connect `trigger` of Train after a new word was trained."),
        ImpostorBankType.Input("bank", optional=True,
                               tooltip="Other people's faces from Likeness Impostor Bank; connect "
                                       "the one that Score has, so that verdicts agree."),
    ]


def _lora_names() -> list[str]:
    saved = runtime.output_directory() / "loras"
    names = sorted(path.relative_to(saved).as_posix() for path in saved.rglob("*.safetensors"))
    return [*models.file_names("loras"), *(OUTPUT + name for name in names)]


def word_folders() -> list[Path]:
    """Where Likeness Apply Trained and prompts find embeddings."""
    return [*(Path(folder) for folder in folder_paths.get_folder_paths("embeddings")),
            runtime.output_directory() / "embeddings"]


def lora_file(lora: str, path: str) -> Path | None:
    """The file that the inputs mean, as Likeness Apply Trained will read it; None without one.

    Raises:
        MissingModelError: it is not there.
        LikenessError: the path leads out of the host's folders.
    """
    saved = runtime.output_directory() / "loras"
    if path.strip():
        return _by_path(path.strip().strip('"'), saved)
    if lora.startswith(OUTPUT):
        return _there(runtime.contained(saved, lora.removeprefix(OUTPUT)))
    return None if lora == NONE else models.full_path("loras", lora)


def _by_path(name: str, saved: Path) -> Path:
    name = name if name.endswith(".safetensors") else f"{name}.safetensors"
    folders = [Path(folder).resolve() for folder in folder_paths.get_folder_paths("loras")]
    if Path(name).is_absolute():
        file = Path(os.path.abspath(name))
        if not runtime.is_inside(file, (runtime.output_directory(), *folders)):
            raise LikenessError(f"{file} lies outside ComfyUI's folders; move it into models/loras "
                                "or the output folder.")
        return _there(file)
    found = [runtime.contained(folder, name) for folder in (*folders, saved)]
    return next((file for file in found if file.is_file()), None) or _there(found[-1])


def _there(file: Path) -> Path:
    if not file.is_file():
        raise MissingModelError(f"The LoRA `{file.name}` was not found in {file.parent}; put it "
                                "there, or choose another one.")
    return file
