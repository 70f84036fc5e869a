"""One training job from start or last state to proven files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

import numpy as np

from .. import runtime
from ..errors import LikenessError
from . import products
from .data import seeded
from .divergence import Diverged, HarmWatch, NotANumber
from .export.checkpoint import check_storable
from .export.lora import FILE_TYPES
from .identity_loss import IdentityLoss, target_of
from .job import Job, Outcome, check, run_inputs, run_key, without_files
from .looking import Watch, history_path
from .loop import StepResult, Trainer
from .monitor import Look
from .plan import check_fits, free_bytes, out_of_memory, out_of_memory_beside
from .report import report
from .resume import Saved
from .text.encoders import TextEncoders
from .text.live import LiveText

logger = logging.getLogger("likeness")

STATE_EVERY = 50  # steps between states on disk


def run(job: Job, on_step: Callable[[StepResult], None],
        on_look: Callable[[Look], None] = lambda look: None,
        on_picture: Callable[[int, np.ndarray], None] = lambda done, pixels: None) -> Outcome:
    """Train, save and prove what a recipe makes; an earlier run of the same inputs is not repeated.

    One that was interrupted goes on where it stopped; of a finished one the files are loaded.

    Args:
        on_step: told each step's result; what it raises (a cancel) ends the run with its state
            kept on disk.
        on_look: told each look of the monitor.
        on_picture: told each picture of a look as it is made, and how many there are so far.

    Raises:
        LikenessError: inputs that cannot train, an unfinished run with other inputs, a loss that
            is no number or grows without bound, memory that ran out, a folder that cannot be
            written, a full disk, a file that does not load as trained.
    """
    if job.file_type not in FILE_TYPES:
        raise LikenessError(f"`file_precision` must be one of {', '.join(FILE_TYPES)}, got "
                            f"{job.file_type}.")
    check(job)
    trainer = make_trainer(job)
    inputs = run_inputs(job, trainer)
    key, learned = run_key(inputs), without_files(inputs)
    plan = trainer.plan
    with _short_of_memory(trainer, "the files of the finished run were loaded",
                          "they stay as they are, and Apply Trained loads them too"):
        found = products.finished(job, trainer, key)
    if found is not None:
        made, told = found
        logger.info("Training of %s is finished already: %s.", job.name, made.files)
        figures = report(job, trainer, made, key, told, plan, reused=True)
        return _outcome(made, told, {**figures, "history": str(history_path(job, key))})
    check_fits(plan, free_bytes(trainer))
    products.check_names(job, trainer)
    products.check_folders(job)
    saved = Saved(job, run_key(learned), learned)
    with _short_of_memory(trainer, "the run was made ready", "no state on disk has changed"):
        extra = saved.restore(trainer) or {}
        started_at = trainer.step
        watch = Watch(job, trainer, run_key(learned), extra.get("watch"))
    _train(trainer, saved, watch, on_step, on_look, on_picture)
    saved.keep(trainer, watch=watch.state())  # in case that saving fails
    with _short_of_memory(trainer, "the result was saved and proven",
                          f"what was learned up to step {saved.step} is kept on disk, and the same "
                          "inputs save it without training that again"):
        told = watch.told()
        made = products.save(job, trainer, key, told)
    saved.delete()
    figures = report(job, trainer, made, key, told, plan, watch.seconds_per_step, started_at)
    return _outcome(made, told, {**figures, "history": str(watch.write_history(key))}, watch.looks)


def make_trainer(job: Job) -> Trainer:
    """Everything that a job's steps run on.

    Raises:
        LikenessError: the model, the photos, the text encoder and the recipe do not fit together.
    """
    recipe, text, identity = job.recipe, None, None
    if recipe.method == "dreambooth":
        check_storable(job.model)
    if recipe.tokens is not None or getattr(recipe, "text_encoder", False):
        start = None if job.token_start is None else job.token_start.rows
        encoders = TextEncoders(job.clip, recipe, job.subject.trigger, job.subject.class_noun,
                                start, generator=seeded(job.seed, "text"))
        encoders.check_captions(job.training_set.texts[key] for item in job.training_set.items
                                for key in (item.conditioning_key, *item.variants))
        classes = {} if job.class_set is None else job.class_set.texts
        text = LiveText(encoders, {**classes, **job.training_set.texts})
    if recipe.identity_weight > 0:
        identity = IdentityLoss(job.vae, target_of(job.subject), recipe,
                                job.model.load_device)
    try:
        return Trainer(job.model, job.training_set, recipe, job.seed, text=text,
                       class_set=job.class_set, identity=identity)
    except runtime.OutOfMemory as err:  # without a trainer there is no plan to advise from
        raise LikenessError("Memory ran out before the first step, while the model was made ready "
                            "to learn; unload other models, set `base_weights` to nf4, or choose a "
                            "`target` or rank that learns less.") from err


@contextmanager
def _short_of_memory(trainer: Trainer, doing: str, kept: str) -> Iterator[None]:
    """While this lasts, memory that runs out is told as it is in a step."""
    try:
        yield
    except runtime.OutOfMemory as err:
        raise LikenessError(out_of_memory_beside(trainer, doing, kept)) from err


def _train(trainer: Trainer, saved: Saved, watch: Watch, on_step: Callable[[StepResult], None],
           on_look: Callable[[Look], None],
           on_picture: Callable[[int, np.ndarray], None]) -> None:
    harm = HarmWatch(trainer)
    try:
        while True:
            # First, because a run may have been interrupted in the middle of a look.
            look = watch.look(on_picture)
            if look is not None:
                on_look(look)
                saved.write(trainer, watch=watch.state())
            if watch.over or trainer.step >= trainer.recipe.steps:
                return
            until = watch.next_look
            with closing(trainer.run(until)) as steps:
                for result in steps:
                    watch.record(result)
                    ends = result.step == until or watch.out_of_time
                    stored = result.step == trainer.recipe.steps or (
                        result.step % STATE_EVERY == 0 and saved.due)
                    if ends or stored or harm.due(result.step):
                        harm.check()  # before a lost model takes the place of a good state
                    if stored:
                        saved.write(trainer, watch=watch.state())
                    on_step(result)
                    if ends:
                        break
    except (Diverged, NotANumber) as err:  # its state would only go on getting worse
        if saved.step == 0 and isinstance(err, NotANumber):
            saved.keep(trainer, watch=watch.state())
        kept = (f"what was learned up to step {saved.step} is kept" if saved.step else
                "nothing was worth keeping")
        raise type(err)(f"{err} ({kept}).") from err
    except runtime.OutOfMemory as err:
        saved.keep(trainer, watch=watch.state())
        raise LikenessError(out_of_memory(trainer)) from err
    except BaseException:  # whatever ends the run, a cancel above all, what was learned stays
        saved.keep(trainer, watch=watch.state())
        raise


def _outcome(made: products.Products, told: Mapping[str, Any], figures: Mapping[str, Any],
             looks: Sequence[Look] = ()) -> Outcome:
    return Outcome(made.model, made.clip, made.tensors, tuple(told["losses"]), made.files, figures,
                   tuple(looks))
