"""One training job from start or last state to a proven LoRA file."""

from __future__ import annotations

import hashlib
import json
import logging
import statistics
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ..errors import LikenessError
from ..sockets import Subject, TrainingSet
from ..tensors import fingerprint, patch_fingerprint
from . import objectives
from .export import lora as export
from .loop import StepResult, Trainer
from .recipes.adapters import LoRARecipe
from .state import read_state, write_state
from .timesteps import is_flow

logger = logging.getLogger("likeness")

ENGINE = 2  # raised when the same inputs begin to train to other weights
STATE_EVERY = 50  # steps between states on disk


@dataclass(frozen=True, eq=False)
class Job:
    """What to train, from what, and where the results go."""

    model: Any  # MODEL; never changed
    training_set: TrainingSet
    subject: Subject
    recipe: LoRARecipe
    seed: int
    name: str  # of the LoRA file
    lora_folder: Path
    work_folder: Path  # for the state of a run that has not ended
    file_type: str = "fp16"  # a name of export.FILE_TYPES


@dataclass(frozen=True, eq=False)
class Outcome:
    """A finished run."""

    model: Any  # the MODEL with the LoRA as ordinary patches, at strength 1
    tensors: Mapping[str, torch.Tensor]  # as in the file
    losses: tuple[float, ...]
    path: Path
    report: Mapping[str, Any]


def run_key(job: Job, trainer: Trainer) -> str:
    """Name a run by everything that decides its result."""
    parts = {"engine": ENGINE, "set": job.training_set.key, "recipe": job.recipe.as_dict(),
             "seed": job.seed, "computes": str(trainer.dtype), "file": job.file_type,
             "base": fingerprint(_unpatched(trainer)),
             "patches": patch_fingerprint(trainer.patcher),
             "sampling": _sampling(trainer.base.model_sampling)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _unpatched(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The base's weights as stored: how many of them carry their patches depends on free memory."""
    prefix = "diffusion_model."
    kept = {name.removeprefix(prefix): entry.weight
            for name, entry in trainer.patcher.backup.items() if name.startswith(prefix)}
    return {**trainer.base.diffusion_model.state_dict(), **kept}


def _sampling(sampling: Any) -> dict[str, Any]:
    """What a `model_sampling` makes of noise levels; nodes such as ModelSamplingSD3 replace it."""
    numbers = {name: value for name, value in vars(sampling).items()
               if isinstance(value, (int, float)) and not name.startswith("_")
               and name != "training"}
    # Its nodes give every class one name and tell prediction and schedule by the parents.
    return {"kinds": [kind.__qualname__ for kind in type(sampling).__mro__],
            "numbers": numbers, "tables": fingerprint(sampling.state_dict())}


def run(job: Job, on_step: Callable[[StepResult], None]) -> Outcome:
    """Train, save and prove a LoRA; an earlier run of the same inputs is not repeated.

    One that was interrupted goes on where it stopped; of a finished one the file is loaded.

    Args:
        on_step: told each step's result; what it raises (a cancel) ends the run with its state
            kept on disk.

    Raises:
        LikenessError: inputs that cannot train, a loss that is no number, a full disk, a file that
            does not load as it was trained.
    """
    if job.file_type not in export.FILE_TYPES:
        raise LikenessError(f"`file_precision` must be one of {', '.join(export.FILE_TYPES)}, got "
                            f"{job.file_type}.")
    made_from = job.training_set.subject, job.training_set.trigger
    if made_from != (job.subject.name, job.subject.trigger):
        raise LikenessError(f"The training set was made from `{made_from[0]}` (trigger "
                            f"{made_from[1]}), not from `{job.subject.name}` (trigger "
                            f"{job.subject.trigger}); connect one Subject to Prepare Training and "
                            "to Train.")
    trainer = Trainer(job.model, job.training_set, job.recipe, job.seed)
    names = export.key_names(trainer.patcher, trainer.adapters)
    key = run_key(job, trainer)
    path = job.lora_folder / f"{job.name}-{key[:8]}.safetensors"
    found = _saved(job, trainer, path, key, names)
    if found is not None:
        return found
    state_path = job.work_folder / f"{key[:16]}.state"
    state = read_state(state_path, key)
    if state is not None:
        trainer.restore(state)
        logger.info("Training of %s goes on after step %d.", job.name, state.step)
    seconds = _train(trainer, key, state_path, on_step)
    fields = export.metadata(job.model, job.training_set, job.subject, job.recipe, job.seed,
                             job.name, key, trainer.losses)
    tensors = export.lora_tensors(trainer.adapters, names, export.FILE_TYPES[job.file_type])
    export.write_lora(path, tensors, fields)
    try:
        patched, error = export.check_file(path, job.model, trainer)
    except BaseException:  # a file that is not proven must not lie among those that are
        path.unlink(missing_ok=True)
        raise
    state_path.unlink(missing_ok=True)
    report = _report(job, trainer, path, key, seconds, error, state.step if state else 0)
    return Outcome(patched, tensors, tuple(trainer.losses), path, report)


def _saved(job: Job, trainer: Trainer, path: Path, key: str,
           names: Mapping[str, str]) -> Outcome | None:
    """The outcome of a finished run of the same inputs, proven once more; None without one.

    A damaged file is trained anew and replaced, since nothing can be got from it; a whole one of
    another run is somebody's work.

    Raises:
        LikenessError: the file's name is taken by another run.
    """
    try:
        tensors, fields = export.read_lora(path)
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as err:
        logger.warning("%s is damaged (%s); its run is trained anew.", path.name, err)
        return None
    if fields.get("likeness.run") != key:
        raise LikenessError(f"{path} is not of this run, and would be overwritten; rename it or "
                            "choose another `name`.")
    untrained = trainer.adapters.tensors()
    try:
        losses = json.loads(fields["likeness.losses"])
        export.take_over(tensors, trainer.adapters, names)
        patched, error = export.check_file(path, job.model, trainer)
    except (KeyError, ValueError, RuntimeError) as err:  # LikenessError is a ValueError
        logger.warning("%s is damaged (%s); its run is trained anew.", path.name, err)
        trainer.adapters.load_tensors(untrained)
        return None
    trainer.losses = losses
    logger.info("Training of %s is finished already: %s.", job.name, path)
    report = _report(job, trainer, path, key, [], error, job.recipe.steps, reused=True)
    return Outcome(patched, tensors, tuple(losses), path, report)


def _train(trainer: Trainer, key: str, state_path: Path,
           on_step: Callable[[StepResult], None]) -> list[float]:
    seconds = []
    try:
        with closing(trainer.run()) as steps:
            for result in steps:
                seconds.append(result.seconds)
                if result.step % STATE_EVERY == 0 or result.step == trainer.recipe.steps:
                    write_state(state_path, trainer.state(key))
                on_step(result)
    except BaseException:  # whatever ends the run, a cancel above all, what was learned stays
        _keep(trainer, key, state_path)
        raise
    return seconds


def _keep(trainer: Trainer, key: str, state_path: Path) -> None:
    if trainer.step == 0 or not trainer.whole:
        return
    try:
        write_state(state_path, trainer.state(key))
    except LikenessError as err:  # the reason for the end is what the user must read
        logger.warning("%s", err)


def _report(job: Job, trainer: Trainer, path: Path, key: str, seconds: list[float], error: float,
            resumed_at: int, reused: bool = False) -> dict[str, Any]:
    recipe, losses = job.recipe, trainer.losses
    learned = sum(parameter.numel() for parameter in trainer.adapters.parameters())
    all_of_it = sum(weight.numel() for weight in trainer.base.diffusion_model.parameters())
    share = [objectives.face_share(sample.mask, recipe.background) for sample in trainer.samples]
    tail = losses[-max(1, len(losses) // 10):]
    flow = is_flow(trainer.base.model_sampling)
    return {
        "steps": recipe.steps,
        "seconds_per_step": round(statistics.median(seconds), 4) if seconds else None,
        "lora": str(path),
        "bytes": path.stat().st_size,
        "parameters": learned,
        "parameters_share": round(learned / all_of_it, 6),
        "layers": len(trainer.adapters.layers),
        "photos": len(trainer.samples),
        "shapes": len(trainer.groups),
        "face_share": round(statistics.fmean(share), 4),
        "first_loss": round(losses[0], 6),
        "final_loss": round(statistics.fmean(tail), 6),  # mean of the last tenth
        "min_snr": None if flow or not recipe.min_snr else recipe.min_snr,
        "precision": str(trainer.dtype).removeprefix("torch."),
        "reload_error": round(error, 6),  # relative to what training changed
        "resumed_at": resumed_at,
        "reused": reused,  # nothing was trained: the file of an earlier run of the same inputs
        "run": key,
        "seed": job.seed,
        "recipe": recipe.as_dict(),
    }
