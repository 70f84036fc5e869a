"""A run on its way out is measured once, over the model as it stands, and what is kept for it."""

from __future__ import annotations

import dataclasses
import weakref

import pytest
import technique_jobs as jobs
import torch
from likeness.nodes import runtime
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.run import resume, session
from likeness.nodes.training.steps import loop
from likeness.nodes.training.watch.divergence import HarmWatch


@pytest.fixture(autouse=True)
def _as_the_executor_runs_prompts():
    with torch.inference_mode():
        yield


def _job(folder, steps=6):
    return jobs.make_job("flux", folder, jobs.make_recipe("lora", steps=steps))


def _lost_from(patch, step):
    """Let the measure find the model much worse from a step on."""
    real = HarmWatch.measure

    def measure(watch):
        return [dataclasses.replace(harm, loss=harm.loss + 9 * (watch.trainer.step >= step))
                for harm in real(watch)]

    patch.setattr(HarmWatch, "measure", measure)


def test_a_cancel_between_two_measurements_keeps_no_state_that_got_lost(tmp_path, monkeypatch,
                                                                       caplog):
    monkeypatch.setattr(session, "STATE_EVERY", 2)
    monkeypatch.setattr(resume, "WRITE_SHARE", 0.0)
    job = _job(tmp_path)
    with monkeypatch.context() as patch:
        _lost_from(patch, 3)
        with pytest.raises(runtime.Interrupted):
            session.run(job, jobs.cancel_after(3))
    assert "worse by step 3" in caplog.text and "this state is not kept" in caplog.text
    assert session.run(job, jobs.ignore).report["resumed_at"] == 2


def test_a_step_that_fails_between_two_measurements_keeps_no_state_that_got_lost(tmp_path,
                                                                                monkeypatch):
    def fail(trainer, *given):
        raise ValueError("another pack's mistake")

    def break_down(result):
        if result.step == 3:
            monkeypatch.setattr(session.Trainer, "terms", fail)

    _lost_from(monkeypatch, 3)
    with pytest.raises(ValueError, match="mistake"):
        session.run(_job(tmp_path), break_down)
    assert not list((tmp_path / "work").glob("*.state"))


def test_memory_that_runs_out_leaves_the_step_before_measured_and_kept(tmp_path, monkeypatch):
    measured, real = [], HarmWatch.measure

    def measure(watch):
        found = real(watch)
        # Without what was learned the model would be as it was before.
        assert all(harm.share != 0 for harm in found)
        measured.append(watch.trainer.step)
        return found

    def exhausted(trainer, *given):
        raise runtime.OutOfMemory("no memory left")

    def break_down(result):
        if result.step == 3:
            monkeypatch.setattr(session.Trainer, "terms", exhausted)

    monkeypatch.setattr(HarmWatch, "measure", measure)
    job = _job(tmp_path)
    with pytest.raises(LikenessError, match="ran out at step 4; .* up to step 3 is kept"):
        session.run(job, break_down)
    assert measured == [1, 2, 3]
    monkeypatch.undo()
    assert session.run(job, jobs.ignore).report["resumed_at"] == 3


def _end_within_step(patch, step, error, held=None):
    """Have a step's loss raise before its backward pass; tell what its graph hangs on."""
    real = session.Trainer._descend

    def descend(trainer, terms, *given):
        if trainer.step == step - 1:
            if held is not None:
                held.append(weakref.ref(next(iter(terms.values()))))
            raise error
        real(trainer, terms, *given)

    patch.setattr(session.Trainer, "_descend", descend)


def _unmeasured(patch, step, error):
    """Have the measurement after a step raise; the steps that it is asked after."""
    asked, real = [], HarmWatch.measure

    def measure(watch):
        asked.append(watch.trainer.step)
        if watch.trainer.step == step:
            raise error
        return real(watch)

    patch.setattr(HarmWatch, "measure", measure)
    return asked


def _end(patch, job, within, error):
    """End a run by an error after its third step, or within the fourth."""
    def on_step(result):
        if result.step == 3 and not within:
            raise error

    if within:
        _end_within_step(patch, 4, error)
    with pytest.raises(type(error)):
        session.run(job, on_step)


@pytest.mark.parametrize("error", [runtime.Interrupted(), ValueError("another pack's mistake")])
def test_a_run_that_ends_within_a_step_lets_go_of_the_step_before_it_is_measured(
        error, tmp_path, monkeypatch):
    held, alive, real = [], [], HarmWatch.measure

    def measure(watch):
        alive.extend(step() is not None for step in held)
        return real(watch)

    monkeypatch.setattr(HarmWatch, "measure", measure)
    _end_within_step(monkeypatch, 4, error, held)
    with pytest.raises(type(error)):
        session.run(_job(tmp_path), jobs.ignore)
    assert alive == [False]


@pytest.mark.parametrize("technique", ["qlora nf4", "qlora fp8"])
def test_a_cancel_within_a_step_measures_and_keeps_the_last_one_over_the_same_codes(
        technique, tmp_path, monkeypatch):
    built, real = [], loop.quantise_layers

    def quantise(*given):
        built.append(given)
        return real(*given)

    monkeypatch.setattr(loop, "quantise_layers", quantise)
    job = jobs.make_job("flux", tmp_path, jobs.make_recipe(technique, steps=6))
    with monkeypatch.context() as patch:
        asked = _unmeasured(patch, None, None)
        _end(patch, job, True, runtime.Interrupted())
    assert asked == [1, 2, 3] and len(built) == 1
    assert session.run(job, jobs.ignore).report["resumed_at"] == 3


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("error", [runtime.Interrupted(), runtime.OutOfMemory("no memory left")])
def test_a_cancel_whose_measurement_ends_too_keeps_what_was_learned_for_a_later_one(
        error, within, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(session, "STATE_EVERY", 2)
    monkeypatch.setattr(resume, "WRITE_SHARE", 0.0)
    job = _job(tmp_path)
    with monkeypatch.context() as patch:
        asked = _unmeasured(patch, 3, error)
        _end(patch, job, within, runtime.Interrupted())
    assert asked == [1, 2, 3]  # a second cancel is the last
    assert caplog.text.count("could not be measured") == isinstance(error, runtime.OutOfMemory)
    asked = _unmeasured(monkeypatch, None, None)
    assert session.run(job, jobs.ignore).report["resumed_at"] == 3
    assert asked == [3, 4, 6]


def test_a_state_kept_without_being_measured_is_given_up_once_it_proves_lost(tmp_path,
                                                                            monkeypatch):
    job, seen = _job(tmp_path), []
    with monkeypatch.context() as patch:
        _unmeasured(patch, 3, runtime.Interrupted())
        _end(patch, job, False, runtime.Interrupted())
    assert list((tmp_path / "work").glob("*.state"))
    _lost_from(monkeypatch, 3)
    with pytest.raises(LikenessError, match="worse by step 3 .*nothing was worth keeping"):
        session.run(job, seen.append)
    assert seen == [] and not list((tmp_path / "work").glob("*.state"))


@pytest.mark.parametrize("within", [False, True])
def test_a_mistake_whose_state_cannot_be_measured_leaves_the_last_one_that_was(
        within, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(session, "STATE_EVERY", 2)
    monkeypatch.setattr(resume, "WRITE_SHARE", 0.0)
    job = _job(tmp_path)
    with monkeypatch.context() as patch:
        _unmeasured(patch, 3, runtime.OutOfMemory("no memory left"))
        _end(patch, job, within, ValueError("another pack's mistake"))
    assert caplog.text.count("could not be measured") == 1
    assert session.run(job, jobs.ignore).report["resumed_at"] == 2
