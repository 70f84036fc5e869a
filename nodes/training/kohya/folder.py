"""A folder that sd-scripts train from: pictures, captions, settings and how to start."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import LikenessError
from ..recipes.base import Recipe
from . import toml
from .arguments import Architecture, settings
from .dataset import Dataset, config, write_pictures
from .settings import Settings

_DATASET, _TRAIN, _README = "dataset.toml", "train.toml", "README.txt"
_PRESET = "lycoris.toml"


@dataclass(frozen=True)
class Base:
    """The model that is trained, by the names or paths that go into the settings."""

    checkpoint: str
    parts: Mapping[str, str]  # clip_l, clip_g, t5xxl, ae -> file; only what the family has
    velocity: bool = False  # predicts velocity (UNets)


# Files that a family's script reads beside the model, and those that it cannot do without.
_PARTS = {Architecture.SD3: ("clip_l", "clip_g", "t5xxl"), Architecture.FLUX: ("clip_l", "t5xxl",
                                                                              "ae")}
_NEEDED = {Architecture.FLUX: ("clip_l", "t5xxl", "ae")}


def export(folder: Path, data: Dataset, recipe: Recipe, architecture: Architecture, base: Base,
           seed: int, on_item: Callable[[int], None]) -> dict[str, Any]:
    """Write everything, whole or not at all, and report what was written and what was lost.

    A folder of an earlier export is replaced; what sd-scripts saved lies beside it and stays.

    Raises:
        LikenessError: no script for this recipe, another folder of this name, or a full disk.
    """
    made = settings(architecture, recipe, data.subject.trigger, data.subject.class_noun,
                    bool(data.class_pictures), data.mean_weight)
    _complete(made, folder, data, architecture, base, seed)
    _refuse_foreign(folder)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    try:
        partial.mkdir(parents=True)
        write_pictures(data, partial, on_item)
        (partial / _DATASET).write_text(toml.dumps(
            config(data, folder, recipe.batch_size, made.subset)), "utf-8")
        (partial / _TRAIN).write_text(toml.dumps(made.arguments), "utf-8")
        if made.preset:
            (partial / _PRESET).write_text(toml.dumps(made.preset), "utf-8")
        missing = [name for name in _NEEDED.get(architecture, ()) if name not in made.arguments]
        command = _command(made.script, folder, missing)
        (partial / _README).write_text(_readme(command, made, missing), "utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    except OSError as err:
        raise LikenessError(f"{folder} could not be written ({err.strerror or err}); free some "
                            "disk space or choose another name.") from err
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _report(folder, data, recipe, architecture, made, command, missing)


def _complete(made: Settings, folder: Path, data: Dataset, architecture: Architecture, base: Base,
              seed: int) -> None:
    """Add what does not come from the recipe."""
    made.arguments = {
        "pretrained_model_name_or_path": base.checkpoint,
        **{name: base.parts[name] for name in _PARTS.get(architecture, ())
           if base.parts.get(name)},
        "dataset_config": str(folder / _DATASET),
        "output_dir": str(folder.with_name(f"{folder.name}-output")), "output_name": folder.name,
        # Of these two the script only tells in the file that it saves.
        "resolution": f"{data.side},{data.side}", "metadata_trigger_phrase": data.subject.trigger,
        "seed": seed % 2 ** 32, **made.arguments}
    if made.preset:
        made.arguments["network_args"].append(f"preset={folder / _PRESET}")
    if base.velocity and not architecture.flow:
        made.arguments["v_parameterization"] = True
    if architecture is Architecture.SDXL:
        made.lost["size conditioning"] = ("the cut pictures count as whole: original size is the "
                                          "bucket's and the crop starts at 0, 0")
    if data.long_captions and not architecture.flow:
        made.arguments["max_token_length"] = 225


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not all((folder / name).is_file()
                                   for name in (_DATASET, _TRAIN, _README)):
        raise LikenessError(f"{folder} holds other files; choose another `name`.")


def _command(script: str, folder: Path, missing: list[str]) -> str:
    extra = "".join(f" --{name} PATH" for name in missing)
    return f'accelerate launch {script} --config_file "{folder / _TRAIN}"{extra}'


def _readme(command: str, made: Settings, missing: list[str]) -> str:
    lines = ["Train with kohya's sd-scripts (https://github.com/kohya-ss/sd-scripts).", "",
             "In the folder of sd-scripts, with their own environment active:", "",
             f"    {command}", ""]
    if missing:
        lines += [f"Put the files in the place of PATH: {', '.join(missing)}.", ""]
    lines += [f"The result appears in {made.arguments['output_dir']}; copy it to ComfyUI's",
              "models folder (loras, checkpoints or embeddings) to use and score it.", ""]
    if made.lost:
        lines += ["Not as in the recipe:", ""]
        lines += [f"- {name}: {reason}" for name, reason in made.lost.items()]
    return "\n".join(lines).rstrip() + "\n"


def _report(folder: Path, data: Dataset, recipe: Recipe, architecture: Architecture,
            made: Settings, command: str, missing: list[str]) -> dict[str, Any]:
    return {
        "folder": str(folder), "architecture": architecture.value, "method": recipe.method,
        "script": made.script, "command": command, "missing_files": missing,
        "output_dir": made.arguments["output_dir"],
        "photos": [{"file": f"photos/{number:04d}.png", "photo": item.photo,
                    "bucket": list(item.bucket), "caption": item.caption}
                   for number, item in enumerate(data.training_set.items, start=1)],
        "class_pictures": len(data.class_pictures), "repeats": data.repeats,
        "masks": "alpha channel" if data.background < 1 else "none",
        "not_as_in_the_recipe": dict(made.lost),
    }
