"""What a training job is given, what it gives back, and what tells two jobs apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...errors import LikenessError
from ...sockets import EMPTY, Subject, TrainingSet
from ...tensors import fingerprint, model_key, text_fingerprint
from ..export.embedding import check_name
from ..export.keys import KeyStyle
from ..recipes.adapters import AdapterRecipe
from ..recipes.base import Recipe
from ..steps.loop import Trainer

ENGINE = 3  # raised when the same inputs begin to train to other weights
CONTINUE, ANEW = "continue", "start anew"  # what to do about an unfinished run


@dataclass(frozen=True, eq=False)
class Job:
    """What to train, from what, and where the results go."""

    model: Any  # MODEL; never changed
    training_set: TrainingSet
    subject: Subject
    recipe: Recipe
    seed: int
    name: str  # of the files
    lora_folder: Path
    work_folder: Path  # for the state of a run that has not ended, and its pictures
    file_type: str = "fp16"  # a name of export.lora.FILE_TYPES
    clip: Any = None  # CLIP, where words or text encoders learn or a monitor looks
    vae: Any = None  # VAE, where a monitor looks, an identity loss asks or a checkpoint is saved
    class_set: TrainingSet | None = None  # pictures of the class
    monitor: Any = None  # a monitor.Monitor
    token_start: Any = None  # first values of the new word; None: the initial word's
    key_style: KeyStyle = KeyStyle.KOHYA
    unfinished: str = CONTINUE
    embedding_folder: Path | None = None  # None: beside the LoRA folder
    checkpoint_folder: Path | None = None

    @property
    def teaches_text(self) -> bool:
        """Whether the text encoders learn: a new word, or adapters of their layers."""
        return self.recipe.tokens is not None or getattr(self.recipe, "text_encoder", False)

    def folder(self, kind: str) -> Path:
        """Where files of a kind go: loras, embeddings or checkpoints."""
        own = {"loras": self.lora_folder, "embeddings": self.embedding_folder,
               "checkpoints": self.checkpoint_folder}[kind]
        return own or self.lora_folder.parent / kind


@dataclass(frozen=True, eq=False)
class Outcome:
    """A finished run."""

    model: Any  # the MODEL with what was learned as ordinary patches, at strength 1
    clip: Any  # the CLIP with what was learned; None without one
    tensors: Mapping[str, torch.Tensor]  # of the LoRA file; empty without one
    losses: tuple[float, ...]
    files: Mapping[str, Path]  # kind -> file: lora, embedding, checkpoint
    report: Mapping[str, Any]
    looks: tuple[Any, ...] = field(default=())

    @property
    def path(self) -> Path:
        """The run's main file."""
        return next(iter(self.files.values()))


def run_inputs(job: Job, trainer: Trainer) -> dict[str, Any]:
    """Everything that decides a run's result, as plain values under names that a user knows."""
    found = {
        "engine": ENGINE,
        "photos": {item.photo: [item.photo_sha256, item.caption, item.latent_file.name]
                   for item in job.training_set.items},
        "training set": job.training_set.key,
        "class photos": None if job.class_set is None else job.class_set.key,
        "recipe": job.recipe.as_dict(),
        "seed": job.seed,
        "precision": str(trainer.dtype),
        "file": [job.file_type, job.key_style.value],
        "model": model_key(trainer.patcher),
        "monitor": None if job.monitor is None else job.monitor.as_dict(),
        "token start": None if job.token_start is None else job.token_start.key,
    }
    tuned, watched = job.recipe.method == "dreambooth", job.monitor is not None
    if trainer.text is not None or tuned or watched:
        found["text encoder"] = text_fingerprint(job.clip)
    if trainer.identity is not None or tuned or watched:
        found["VAE"] = fingerprint(job.vae.first_stage_model.state_dict())
    if trainer.identity is not None or watched:  # who the recogniser looks for
        found["subject's photos"] = [[photo.sha256 for photo in photos] for photos in (
            job.subject.references, job.subject.held_out)]
    return found


def without_files(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that decide what is learned, whatever kind of file it is saved in."""
    return {name: value for name, value in inputs.items() if name != "file"}


def run_key(inputs: Mapping[str, Any]) -> str:
    """Name a run by its inputs."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a user would have to set back so that a run goes on, one phrase each."""
    found = []
    old, new = before.get("photos", EMPTY), now.get("photos", EMPTY)
    found += [f"photo {name} is new" for name in new if name not in old]
    found += [f"photo {name} is gone" for name in old if name not in new]
    found += [f"photo {name} or its caption or crop has changed" for name in new
              if name in old and list(old[name]) != list(new[name])]
    old, new = (_flat(inputs.get("recipe", EMPTY)) for inputs in (before, now))
    found += [f"`{name}` was {old.get(name)} and is {new.get(name)}"
              for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    others = [name for name in now if name not in ("photos", "recipe", "training set")
              and before.get(name) != now[name]]
    found += [f"`seed` was {before.get(name)} and is {now[name]}" if name == "seed"
              else f"the {name} has changed" for name in others]
    return found or ["the training set has changed"]


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's settings, those of the new word beside the others."""
    found = {}
    for name, value in recipe.items():
        found |= _flat({f"{name}.{inner}": part for inner, part in value.items()}) if isinstance(
            value, Mapping) else {name: value}
    return found


def check(job: Job) -> None:
    """Refuse a job whose parts do not belong together.

    Raises:
        LikenessError: the training set is another subject's, or something is not connected that
            the recipe needs.
    """
    made_from = job.training_set.subject, job.training_set.trigger
    if made_from != (job.subject.name, job.subject.trigger):
        raise LikenessError(f"The training set was made from `{made_from[0]}` (trigger "
                            f"{made_from[1]}), not from `{job.subject.name}` (trigger "
                            f"{job.subject.trigger}); connect one Subject to Prepare Training and "
                            "to Train.")
    recipe = job.recipe
    if recipe.tokens is not None:
        check_name(Path(job.name).name)
    if (job.key_style is KeyStyle.DIFFUSERS and isinstance(recipe, AdapterRecipe)
            and recipe.method not in ("lora", "qlora")):
        raise LikenessError(f"Only LoRA has a file in diffusers' layout, and this recipe is "
                            f"{recipe.method}; set `key_style` to {KeyStyle.KOHYA.value}.")
    if recipe.method == "textual inversion" and (recipe.class_word_weight or recipe.outside_weight):
        raise LikenessError("`class_word_weight` and `outside_weight` hold the model back from "
                            "what it learns, and textual inversion teaches it nothing; set both "
                            "to 0.")
    if job.class_set is not None:
        _check_class_set(job)
    needs = {"clip": job.teaches_text or job.monitor is not None or recipe.method == "dreambooth",
             "vae": recipe.identity_weight > 0 or job.monitor is not None
             or recipe.method == "dreambooth"}
    for name, needed in needs.items():
        if needed and getattr(job, name) is None:
            raise LikenessError(f"This run needs `{name}`; connect {name.upper()} to Train.")
    if job.unfinished not in (CONTINUE, ANEW):
        raise LikenessError(f"`unfinished` must be {CONTINUE} or {ANEW}, got {job.unfinished}.")


def _check_class_set(job: Job) -> None:
    if job.recipe.method == "textual inversion":
        raise LikenessError("Class photos hold the model back from what it learns, and textual "
                            "inversion teaches it nothing; disconnect them.")
    if job.class_set.trigger:
        raise LikenessError(f"The set at `class_photos` shows `{job.class_set.subject}` (trigger "
                            f"{job.class_set.trigger}) and not the class; connect Class Photos.")
