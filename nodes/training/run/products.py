"""The files that a run makes, each saved, loaded back through the host and compared."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ... import runtime
from ...errors import LikenessError
from ...files import forget_partials
from ..export import checkpoint, diffusers, embedding, lora, text_lora
from ..export.keys import KeyStyle, layer_keys, text_keys
from ..export.metadata import TOLD, metadata
from ..steps.loop import Trainer
from .job import Job

logger = logging.getLogger("likeness")

_FOLDERS = {"lora": "loras", "embedding": "embeddings", "checkpoint": "checkpoints"}


@dataclass(frozen=True, eq=False)
class Products:
    """A run's files and what they make of the job's MODEL and CLIP."""

    files: Mapping[str, Path]  # kind -> file
    model: Any
    clip: Any
    tensors: Mapping[str, torch.Tensor]  # of the LoRA file; empty without one
    reload_errors: Mapping[str, float]  # part -> what of it is lost when it is loaded back

    @property
    def reload_error(self) -> float:
        """The worst of them."""
        return max(self.reload_errors.values(), default=0.0)


def kinds(job: Job) -> tuple[str, ...]:
    """Which files a job's recipe makes."""
    recipe = job.recipe
    words = () if recipe.tokens is None else ("embedding",)
    if recipe.method == "dreambooth":
        return ("checkpoint", *words)
    return words if recipe.method == "textual inversion" else ("lora", *words)


def paths(job: Job, key: str) -> dict[str, Path]:
    """The names of a job's files; the run's key is part of them, so that no run overwrites another.

    Raises:
        LikenessError: a whole file of another run has such a name.
    """
    found = {kind: job.folder(_FOLDERS[kind]) / f"{job.name}-{key[:8]}.safetensors"
             for kind in kinds(job)}
    for path in found.values():
        fields = _fields(path)
        if fields is not None and fields.get("likeness.run", key) != key:
            raise LikenessError(f"{path} is not of this run, and would be overwritten; rename it "
                                "or choose another `name`.")
    return found


def _fields(path: Path) -> dict[str, str] | None:
    """What a file says of itself; None when there is none or it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as err:
        logger.warning("%s is damaged (%s); its run is trained anew.", path.name, err)
        return None


def check_names(job: Job, trainer: Trainer) -> None:
    """Refuse a job whose LoRA file has no name for a layer, before it trains for an hour.

    Raises:
        LikenessError: the host's or diffusers' loader has no name for a layer of the style.
    """
    if "lora" not in kinds(job):
        return
    text = None if trainer.text is None else trainer.text.encoders.adapters
    if job.key_style is KeyStyle.DIFFUSERS:
        diffusers.network_parts(trainer.patcher, trainer.adapters.layers)
    else:
        layer_keys(trainer.patcher, trainer.adapters.layers, job.key_style)
    if text is not None:
        text_keys(job.clip, text.layers, job.key_style)


def check_folders(job: Job) -> None:
    """Refuse a job whose files could not be written, before it trains for an hour.

    Raises:
        LikenessError: a folder cannot be written or made; the text names it.
    """
    wanted = [job.work_folder, *(job.folder(_FOLDERS[kind]) for kind in kinds(job))]
    for folder in dict.fromkeys(wanted):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        try:
            tempfile.TemporaryFile(dir=there).close()
        except OSError as err:
            raise LikenessError(f"The folder {folder} cannot be written ({err.strerror or err}); "
                                "allow it or choose another one before training.") from err


def save(job: Job, trainer: Trainer, key: str, said: Mapping[str, Any]) -> Products:
    """Save and prove everything a run has learned.

    Args:
        said: what the files tell of the run, plain values by name.

    Raises:
        LikenessError: a full disk, or a file that does not load as it was trained.
    """
    files = paths(job, key)
    for path in files.values():
        forget_partials(path)

    def fields(kind: str) -> dict[str, str]:
        return metadata(job.model, job.training_set, job.subject, job.recipe, job.seed, job.name,
                        key, said, kind)

    try:
        with trainer.learner.evaluated():
            if "lora" in files:
                lora.write_lora(files["lora"], _lora_tensors(job, trainer), fields("lora"))
            if "embedding" in files:
                embedding.save_embedding(files["embedding"], trainer.text.encoders,
                                         fields("embedding"))
            if "checkpoint" in files:
                checkpoint.write_checkpoint(
                    files["checkpoint"], checkpoint.tuned(job.model, trainer.adapters), job.clip,
                    job.vae, fields("checkpoint"))
            return _proven(job, trainer, files)
    except BaseException:  # a cancel above all
        # A file that is not proven must not lie among those that are.
        for path in files.values():
            path.unlink(missing_ok=True)
        raise


def finished(job: Job, trainer: Trainer, key: str) -> tuple[Products, dict[str, Any]] | None:
    """The products of a finished run of the same inputs and what they tell of it, read again.

    None when there is none, or when it is damaged, which a warning says.
    """
    files = paths(job, key)
    said = [_fields(path) for path in files.values()]
    if any(fields is None for fields in said):
        return None
    untrained = trainer.learner.tensors()
    # An average would else stand in for the values that are read.
    with trainer.learner.evaluated():
        try:
            run = {name: json.loads(said[0][f"likeness.{name}"]) for name in TOLD}
            _take_over(job, trainer, files)
            return _proven(job, trainer, files), run
        except runtime.OutOfMemory:  # a RuntimeError too, and no sign of damage
            raise
        except (KeyError, ValueError, RuntimeError, OSError, SafetensorError) as err:
            names = ", ".join(path.name for path in files.values())
            logger.warning("%s is damaged (%s); its run is trained anew.", names, err)
            trainer.learner.load_tensors(untrained)
    return None


def _lora_tensors(job: Job, trainer: Trainer) -> dict[str, torch.Tensor]:
    dtype, style = lora.FILE_TYPES[job.file_type], job.key_style
    text = None if trainer.text is None else trainer.text.encoders
    if style is KeyStyle.DIFFUSERS:
        found = diffusers.network_tensors(trainer.patcher, trainer.adapters, dtype)
        learned = None if text is None else text.adapters
        return found | ({} if learned is None else
                        diffusers.text_tensors(job.clip, learned, dtype))
    names = layer_keys(trainer.patcher, trainer.adapters.layers, style)
    found = lora.lora_tensors(trainer.adapters, names, dtype)
    return found | ({} if text is None else text_lora.text_lora_tensors(text, dtype, style))


def _take_over(job: Job, trainer: Trainer, files: Mapping[str, Path]) -> None:
    """Give the trainer the values of the files, in place."""
    if "lora" in files:
        _take_over_lora(job, trainer, lora.read_lora(files["lora"])[0])
    if "checkpoint" in files:
        checkpoint.take_over(files["checkpoint"], trainer)
    if "embedding" in files:
        embedding.take_over(files["embedding"], trainer.text.encoders)


def _take_over_lora(job: Job, trainer: Trainer, tensors: Mapping[str, torch.Tensor]) -> None:
    text = None if trainer.text is None else trainer.text.encoders.adapters
    if job.key_style is KeyStyle.DIFFUSERS:
        diffusers.take_over_network(tensors, trainer.patcher, trainer.adapters)
        if text is not None:
            diffusers.take_over_text(tensors, job.clip, text)
        return
    lora.take_over(tensors, trainer.adapters,
                   layer_keys(trainer.patcher, trainer.adapters.layers, job.key_style))
    if text is not None:
        lora.take_over(tensors, text, text_keys(job.clip, text.layers, job.key_style))


def _proven(job: Job, trainer: Trainer, files: Mapping[str, Path]) -> Products:
    """Load the files through the host and compare them with what the trainer holds.

    A LoRA's two halves are parts of their own: each is added to other weights.
    """
    model, clip, tensors, errors = job.model, job.clip, {}, {}
    if "lora" in files:
        tensors, _ = lora.read_lora(files["lora"])
        model, errors["lora"] = lora.check_file(files["lora"], job.model, trainer)
        if trainer.text is not None and trainer.text.encoders.adapters is not None:
            clip, errors["text lora"] = text_lora.check_text(
                tensors, clip, trainer.text.encoders, files["lora"].name)
    if "checkpoint" in files:
        errors["checkpoint"] = checkpoint.check_checkpoint(files["checkpoint"], trainer)
        model = checkpoint.tuned(job.model, trainer.adapters)
    if "embedding" in files:
        clip, errors["embedding"] = embedding.check_embedding(
            files["embedding"], clip, trainer.text.encoders, job.training_set.items[0].caption)
    return Products(files, model, clip, tensors, errors)
