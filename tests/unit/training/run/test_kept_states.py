"""Which state of a run lies on disk when it ends, how often one is written, and what is told."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import technique_jobs as jobs
import torch
from likeness.nodes import runtime
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.export import checkpoint, embedding, lora
from likeness.nodes.training.pictures.sampling import Sampling
from likeness.nodes.training.run import looking, resume, session
from likeness.nodes.training.steps.learner import Learner
from likeness.nodes.training.watch.monitor import Judge, Monitor
from likeness.nodes.training.watch.stopping import StopRule

LOOKS = Monitor(every=2, pictures=1, width=32, height=32, sampling=Sampling(steps=1, cfg=1.0),
                rule=StopRule(patience=0))


@pytest.fixture(autouse=True)
def _as_the_executor_runs_prompts():
    with torch.inference_mode():
        yield


def _job(folder, steps=6, **fields):
    return jobs.make_job("flux", folder, jobs.make_recipe("lora", steps=steps), **fields)


@pytest.fixture
def written(monkeypatch):
    """The steps after which a state was written."""
    found, real = [], resume.write_state

    def write(path, state):
        found.append(state.step)
        real(path, state)

    monkeypatch.setattr(resume, "write_state", write)
    return found


def _run_out_in_update(patch, step):
    real = Learner.update

    def update(learner, done):
        if done == step:
            raise runtime.OutOfMemory("no memory left")
        real(learner, done)

    patch.setattr(Learner, "update", update)


def test_memory_that_runs_out_within_an_update_names_the_state_that_is_there(tmp_path,
                                                                           monkeypatch):
    monkeypatch.setattr(session, "STATE_EVERY", 2)
    monkeypatch.setattr(resume, "WRITE_SHARE", 0.0)
    job = _job(tmp_path)
    with monkeypatch.context() as patch:
        _run_out_in_update(patch, 3)
        with pytest.raises(LikenessError, match="ran out at step 4; what was learned up to step 2 "
                                                "is kept. "):
            session.run(job, jobs.ignore)
    assert session.run(job, jobs.ignore).report["resumed_at"] == 2


@pytest.mark.parametrize("step", [0, 3])
def test_memory_that_runs_out_within_an_update_claims_no_state_that_is_not_there(
        step, tmp_path, monkeypatch):
    _run_out_in_update(monkeypatch, step)
    with pytest.raises(LikenessError, match=f"ran out at step {step + 1}; nothing was kept. "):
        session.run(_job(tmp_path), jobs.ignore)
    assert not list((tmp_path / "work").glob("*.state"))


def test_memory_that_runs_out_on_a_full_disk_claims_no_state(tmp_path, monkeypatch):
    def exhausted(trainer, *given):
        raise runtime.OutOfMemory("no memory left")

    def full(path, state):
        raise LikenessError("The disk is full.")

    def break_down(result):
        if result.step == 2:
            monkeypatch.setattr(session.Trainer, "terms", exhausted)

    monkeypatch.setattr(resume, "write_state", full)
    with pytest.raises(LikenessError, match="ran out at step 3; nothing was kept. "):
        session.run(_job(tmp_path), break_down)


def test_a_result_and_a_state_that_cannot_be_written_promise_only_what_is_there(tmp_path,
                                                                               monkeypatch):
    monkeypatch.setattr(session, "STATE_EVERY", 4)
    job, real = _job(tmp_path), resume.write_state

    def full(*given, **more):
        raise LikenessError("The disk is full.")

    def write(path, state):
        full() if state.step > 4 else real(path, state)

    monkeypatch.setattr(resume, "write_state", write)
    monkeypatch.setattr(lora, "write_tensors", full)
    monkeypatch.setattr(session.Saved, "due", lambda saved, regular: regular)
    # The last step's own write would end the run before anything is saved.
    monkeypatch.setattr(session.Saved, "write", _lenient(session.Saved.write))
    with pytest.raises(LikenessError, match="trained but not saved.* could not be written either: "
                                            "the same run, queued again, goes on after step 4") as (
            caught):
        session.run(job, jobs.ignore)
    assert "without training anew" not in str(caught.value)


def _lenient(real):
    def write(saved, trainer, watch, measured=True):
        if trainer.step <= 4:
            real(saved, trainer, watch, measured)

    return write


@pytest.mark.parametrize(("technique", "module", "writer"), [
    ("lora", lora, "write_tensors"), ("textual inversion", embedding, "write_tensors"),
    ("dreambooth", checkpoint, "write_whole")])
@pytest.mark.parametrize(("state", "promise"), [
    (True, "disk is full. Queue the same run again to save it without training anew.$"),
    (False, "either: the same run, queued again, starts anew.$")])
def test_a_result_that_cannot_be_written_promises_one_thing(technique, module, writer, state,
                                                            promise, tmp_path, monkeypatch):
    def full(*given, **more):
        raise LikenessError("The disk is full.")

    monkeypatch.setattr(module, writer, full)
    if not state:
        monkeypatch.setattr(session.Saved, "write", lambda *given: None)
    job = jobs.make_job("flux", tmp_path, jobs.make_recipe(technique, steps=2))
    with pytest.raises(LikenessError, match=f"trained but not saved: .*{promise}"):
        session.run(job, jobs.ignore)


def test_one_end_is_written_once(tmp_path, written):
    session.run(_job(tmp_path), jobs.ignore)
    assert written == [6]


def test_a_look_at_the_end_is_added_to_the_state_and_nothing_else_is_written(tmp_path, written,
                                                                            monkeypatch):
    made = Judge("dlib", np.zeros(128), True, np.zeros((1, 128)), ("a.jpg",),
                 np.zeros((1, 128)))
    monkeypatch.setattr(looking, "judge_for", lambda subject, backend: made)
    session.run(_job(tmp_path, monitor=dataclasses.replace(LOOKS, every=6)), jobs.ignore)
    assert written == [6, 6]  # before the look and with it


def test_a_cancel_right_after_a_look_keeps_the_look(tmp_path, monkeypatch):
    made = Judge("dlib", np.zeros(128), True, np.zeros((1, 128)), ("a.jpg",), np.zeros((1, 128)))
    monkeypatch.setattr(looking, "judge_for", lambda subject, backend: made)
    job, looks = _job(tmp_path, monitor=dataclasses.replace(LOOKS, every=6)), []

    def cancel(look):
        looks.append(look.step)
        raise runtime.Interrupted

    with pytest.raises(runtime.Interrupted):
        session.run(job, jobs.ignore, cancel)
    session.run(job, jobs.ignore, cancel)  # takes no look again
    assert looks == [6]


def test_a_cancel_after_a_state_was_written_writes_no_second_one(tmp_path, written, monkeypatch):
    monkeypatch.setattr(session, "STATE_EVERY", 3)
    with pytest.raises(runtime.Interrupted):
        session.run(_job(tmp_path), jobs.cancel_after(3))
    assert written == [3]


def test_a_state_that_was_deleted_meanwhile_is_written_again(tmp_path, written):
    def tidy(result):
        if result.step == 6:
            for path in (tmp_path / "work").glob("*.state"):
                path.unlink()

    session.run(_job(tmp_path), tidy)
    assert written == [6, 6]


class _Clock:
    """Time that passes only when a step is done or a state is written."""

    def __init__(self, patch, write_seconds=0.0):
        self.now, real = 1000.0, resume.write_state

        def write(path, state):
            self.now += write_seconds
            real(path, state)

        patch.setattr(resume, "time", SimpleNamespace(monotonic=lambda: self.now))
        patch.setattr(resume, "write_state", write)

    def step(self, seconds):
        def on_step(result):
            self.now += seconds

        return on_step


def test_long_steps_are_stored_every_five_minutes(tmp_path, written, monkeypatch):
    clock = _Clock(monkeypatch)
    session.run(_job(tmp_path, steps=12), clock.step(60.0))
    assert written == [6, 11, 12]  # a step's minute passes after the step is told


def test_states_that_take_long_to_write_keep_their_distance(tmp_path, written, monkeypatch):
    clock = _Clock(monkeypatch, write_seconds=30.0)  # worth ten minutes of training
    session.run(_job(tmp_path, steps=17), clock.step(60.0))
    assert written == [6, 16, 17]


def test_short_steps_are_stored_by_their_number(tmp_path, written, monkeypatch):
    clock = _Clock(monkeypatch)
    monkeypatch.setattr(session, "STATE_EVERY", 5)
    session.run(_job(tmp_path, steps=12), clock.step(1.0))
    assert written == [5, 10, 12]


def test_the_plan_is_told_and_written_before_the_first_step(tmp_path):
    told = []

    def on_plan(plan, free):
        file, = (tmp_path / "runs").glob("*.json")
        told.append((plan.as_dict(), json.loads(file.read_text()), free))

    outcome = session.run(_job(tmp_path), lambda result: told.append(result.step),
                          on_plan=on_plan)
    (plan, history, free), *steps = told
    assert steps == [1, 2, 3, 4, 5, 6] and free > plan["total"] > 0
    assert plan == history["plan"] == outcome.report["memory_plan"] and history["steps"] == []
    again = []
    session.run(_job(tmp_path), jobs.ignore, on_plan=lambda *given: again.append(given))
    assert again == []  # nothing trains
