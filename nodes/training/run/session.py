"""One training job from start or last state to proven files."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import numpy as np

from ... import runtime
from ...errors import LikenessError, NotSavedError
from ..export.checkpoint import check_storable
from ..export.lora import FILE_TYPES
from ..objective.identity_loss import IdentityLoss, target_of
from ..samples.data import seeded
from ..steps.loop import Trainer
from ..steps.memory import MemoryPlan
from ..steps.out_of_memory import out_of_memory, out_of_memory_beside
from ..steps.plan import check_fits, free_bytes
from ..steps.step import NotANumber, StepResult
from ..text.encoders import TextEncoders
from ..text.live import LiveText
from ..watch.divergence import Diverged, HarmWatch
from ..watch.monitor import Look
from . import products
from .job import Job, Outcome, check, run_inputs, run_key, without_files
from .looking import Watch, history_path, known_cost
from .report import report
from .resume import Saved

logger = logging.getLogger("likeness")

STATE_EVERY = 50  # steps between states on disk


def run(job: Job, on_step: Callable[[StepResult], None],
        on_look: Callable[[Look], None] = lambda look: None,
        on_picture: Callable[[int, np.ndarray], None] = lambda done, pixels: None,
        on_plan: Callable[[MemoryPlan, int], None] = lambda plan, free: None) -> Outcome:
    """Train, save and prove what a recipe makes; an earlier run of the same inputs is not repeated.

    One that was interrupted goes on where it stopped; of a finished one the files are loaded.

    Args:
        on_step: told each step's result; what it raises (a cancel) ends the run with its state
            kept on disk.
        on_look: told each look of the monitor.
        on_picture: told each picture of a look as it is made, and how many there are so far.
        on_plan: told before the first step what the run will take, and the bytes that there are.

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
        figures = report(job, trainer, made, key, told, plan, known_cost(job, key), reused=True)
        return _outcome(made, told, {**figures, "history": str(history_path(job, key))})
    free = free_bytes(trainer.device)
    check_fits(plan, free)
    products.check_names(job, trainer)
    products.check_folders(job)
    saved = Saved(job, run_key(learned), learned)
    with _short_of_memory(trainer, "the run was made ready", "no state on disk has changed"):
        extra = saved.restore(trainer) or {}
        started_at = trainer.step
        runtime.forget_peak(trainer.device)
        watch = Watch(job, trainer, run_key(learned), extra.get("watch"),
                      partial(runtime.peak_bytes, trainer.device))
    harm = HarmWatch(trainer, extra.get("measured", True))
    watch.write_history(key)  # the plan; the steps follow when they are done
    on_plan(plan, free)
    _train(trainer, saved, watch, harm, on_step, on_look, on_picture)
    saved.keep(trainer, watch)  # in case that saving fails
    made, told = _save(job, trainer, key, saved, watch)
    saved.delete()
    figures = report(job, trainer, made, key, told, plan, watch.cost, watch.seconds_per_step,
                     started_at)
    return _outcome(made, told, {**figures, "history": str(watch.write_history(key))}, watch.looks)


def _save(job: Job, trainer: Trainer, key: str, saved: Saved,
          watch: Watch) -> tuple[products.Products, dict[str, Any]]:
    """Save and prove the result; return it and what its files tell of the run."""
    kept = saved.kept() + (" on disk, and the same inputs save it without training that again"
                           if saved.step else "")
    with _short_of_memory(trainer, "the result was saved and proven", kept):
        told = watch.told()
        try:
            return products.save(job, trainer, key, told), told
        except NotSavedError as err:
            raise NotSavedError(f"{err} {_queued_again(trainer, saved)}") from err


def _queued_again(trainer: Trainer, saved: Saved) -> str:
    """What the same inputs do once they are queued again, for a result that was not saved."""
    if saved.step == trainer.step:
        return "Queue the same run again to save it without training anew."
    then = f"goes on after step {saved.step}" if saved.step else "starts anew"
    return f"Its last state could not be written either: the same run, queued again, {then}."


def make_trainer(job: Job) -> Trainer:
    """Everything that a job's steps run on.

    Raises:
        LikenessError: the model, the photos, the text encoder and the recipe do not fit together.
    """
    recipe, text, identity = job.recipe, None, None
    if recipe.method == "dreambooth":
        check_storable(job.model)
    if job.teaches_text:
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


def _train(trainer: Trainer, saved: Saved, watch: Watch, harm: HarmWatch,
           on_step: Callable[[StepResult], None], on_look: Callable[[Look], None],
           on_picture: Callable[[int, np.ndarray], None]) -> None:
    try:
        if not harm.known:  # its state was kept in a hurry
            with trainer.attached():
                harm.check()
        while True:
            # First, because a run may have been interrupted in the middle of a look.
            look = watch.look(on_picture)
            if look is not None:
                on_look(look)
                saved.write(trainer, watch)
            if watch.over or trainer.step >= trainer.recipe.steps:
                return
            # Held here and not by the steps alone: one that fails leaves a model to be measured,
            # whose codes would else have to be built again.
            with trainer.attached():
                _train_to(watch.next_look, trainer, saved, watch, harm, on_step)
    except (Diverged, NotANumber) as err:  # its state would only go on getting worse
        if isinstance(err, Diverged) and saved.step == trainer.step:
            saved.delete()  # it had been kept without being measured
        raise type(err)(f"{err} ({saved.kept('nothing was worth keeping')}).") from err
    except runtime.OutOfMemory as err:
        _keep_measured(trainer, saved, watch, harm)
        raise LikenessError(out_of_memory(trainer, saved.kept())) from err
    except BaseException:
        _keep_measured(trainer, saved, watch, harm)
        raise


def _train_to(until: int, trainer: Trainer, saved: Saved, watch: Watch, harm: HarmWatch,
              on_step: Callable[[StepResult], None]) -> None:
    """Train up to a step or the time limit, while the model is attached."""
    try:
        with closing(trainer.run(until)) as steps:
            for result in steps:
                watch.record(result)
                ends = result.step == until or watch.out_of_time
                stored = result.step == trainer.recipe.steps or saved.due(
                    result.step % STATE_EVERY == 0)
                if ends or stored or harm.due(result.step):
                    harm.check()  # before a lost model takes the place of a good state
                if stored:
                    saved.write(trainer, watch)
                on_step(result)
                if ends:
                    break
    except BaseException as err:  # whatever ends the run, a cancel above all
        traceback.clear_frames(err.__traceback__)  # they hold what the step had filled memory with
        lost = isinstance(err, Diverged) or isinstance(err, NotANumber) and saved.step > 0
        if not lost:
            _keep(trainer, saved, watch, harm, isinstance(err, runtime.Interrupted))
        raise


def _keep(trainer: Trainer, saved: Saved, watch: Watch, harm: HarmWatch, cancelled: bool) -> None:
    """Store the run on its way out, unless it has made its model worse since the last measurement.

    Args:
        cancelled: what ends it is the user's wish; then what cannot be measured is kept too, and
            measured before the run goes on.
    """
    if not trainer.whole:
        return
    try:
        sound = harm.passes()
    except runtime.Interrupted:  # a second cancel: nobody waits for the measurement
        sound = True
    except Exception as err:  # the reason for the end is what the user must read
        logger.warning("The state after step %d could not be measured (%s).", trainer.step, err)
        sound = cancelled or saved.step == 0  # else the last measured one is on disk
    if sound:
        saved.keep(trainer, watch, harm.known)


def _keep_measured(trainer: Trainer, saved: Saved, watch: Watch, harm: HarmWatch) -> None:
    """Store a run that ended beside its steps; one that ended in a step has been looked after."""
    if trainer.whole and harm.known and harm.passes():
        saved.keep(trainer, watch)


def _outcome(made: products.Products, told: Mapping[str, Any], figures: Mapping[str, Any],
             looks: Sequence[Look] = ()) -> Outcome:
    return Outcome(made.model, made.clip, made.tensors, tuple(told["losses"]), made.files, figures,
                   tuple(looks))
