"""Runs that are looked at: which state is saved, and looks across an interruption."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import technique_jobs as jobs
import torch
from likeness.nodes import runtime
from likeness.nodes.training.pictures.sampling import Sampling
from likeness.nodes.training.run import looking, session
from likeness.nodes.training.watch import monitor
from likeness.nodes.training.watch.monitor import Judge, Monitor
from likeness.nodes.training.watch.stopping import StopRule

LOOKS = Monitor(every=2, pictures=1, width=32, height=32, sampling=Sampling(steps=1, cfg=1.0),
                rule=StopRule(patience=0))


@pytest.fixture(autouse=True)
def _as_the_executor_runs_prompts():
    with torch.inference_mode():
        yield


@pytest.fixture(autouse=True)
def _a_judge_without_photos(monkeypatch):
    made = Judge("dlib", np.zeros(128), True, np.zeros((1, 128)), ("a.jpg",),
                 np.zeros((1, 128)))
    monkeypatch.setattr(looking, "judge_for", lambda subject, backend: made)


def _scores(monkeypatch, likeness):
    """Let the looks find these likenesses, by step."""
    real = monitor.judged

    def judged(seen, texts, seeds, step, judge):
        found = real(seen, texts, seeds, step, judge)
        shots = tuple(dataclasses.replace(shot, status=monitor.SCORED, likeness=likeness[step],
                                          copy=0.0) for shot in found.shots)
        return dataclasses.replace(found, shots=shots)

    monkeypatch.setattr(monitor, "judged", judged)


def _saved(patch):
    """The learned values that files are made of, filled in by a run."""
    states, real = [], session.products.save

    def save(job, trainer, key, said):
        with trainer.learner.evaluated():
            states.append(trainer.learner.tensors())
        return real(job, trainer, key, said)

    patch.setattr(session.products, "save", save)
    return states


CASES = [("lora", {}), ("textual inversion", {}), ("dreambooth", {}), ("pivotal", {"ema": 0.9}),
         ("lora of text encoders", {"optimizer": "adamw schedule-free"}),
         ("dora", {"rank_dropout": 0.5})]


@pytest.mark.parametrize(("technique", "fields"), CASES, ids=[case[0] for case in CASES])
def test_the_state_of_the_best_look_is_what_is_saved(technique, fields, tmp_path, monkeypatch):
    _scores(monkeypatch, {2: 0.3, 4: 0.8, 6: 0.5})
    states = _saved(monkeypatch)
    recipe = jobs.make_recipe(technique, steps=6, **fields)
    job = jobs.make_job("flux", tmp_path, recipe, monitor=LOOKS)
    outcome = session.run(job, jobs.ignore)
    trainer = session.make_trainer(job)
    assert len(list(trainer.run(until=4))) == 4
    with trainer.learner.evaluated():
        best = trainer.learner.tensors()
    assert states[0].keys() == best.keys()
    assert all(torch.equal(value, best[name]) for name, value in states[0].items())
    report = outcome.report
    assert report["kept_step"] == 4 and report["steps"] == 6 and "step 4 of 6" in report["ended"]
    assert [look["likeness"] for look in report["likeness"]] == [0.3, 0.8, 0.5]
    monkeypatch.setattr(session.Trainer, "_step", None)
    again = session.run(job, jobs.ignore).report
    assert again["reused"] and again["kept_step"] == 4 and again["ended"] == report["ended"]


class _Cancel:
    """Presses cancel when the so-manieth picture of a run has been made."""

    def __init__(self, number):
        self.left = number

    def __call__(self, done, pixels):
        self.left -= 1
        if self.left == 0:
            raise runtime.Interrupted


@pytest.mark.parametrize("technique", ["lora", "pivotal", "dreambooth"])
def test_a_run_cut_off_between_and_within_looks_ends_as_one_that_was_not(technique, tmp_path,
                                                                       monkeypatch):
    _scores(monkeypatch, {2: 0.3, 4: 0.8, 6: 0.5})
    recipe = jobs.make_recipe(technique, steps=6)
    whole = session.run(jobs.make_job("flux", tmp_path / "whole", recipe, monitor=LOOKS),
                        jobs.ignore)
    job = jobs.make_job("flux", tmp_path / "parts", recipe, monitor=LOOKS)
    with pytest.raises(runtime.Interrupted):
        session.run(job, jobs.cancel_after(3))
    with pytest.raises(runtime.Interrupted):
        session.run(job, jobs.ignore, on_picture=_Cancel(1))
    with pytest.raises(runtime.Interrupted):
        session.run(job, jobs.cancel_after(5))
    resumed = session.run(job, jobs.ignore)
    assert resumed.report["resumed_at"] == 5 and resumed.report["kept_step"] == 4
    assert [look.step for look in resumed.looks] == [2, 4, 6]
    assert resumed.losses == whole.losses
    for kind, path in resumed.files.items():
        (values, fields), (wanted, said) = jobs.stored(path), jobs.stored(whole.files[kind])
        assert fields == said
        assert all(torch.equal(value, wanted[key]) for key, value in values.items())


def test_pictures_without_faces_decide_nothing_and_change_nothing(tmp_path):
    recipe = jobs.make_recipe("lora", ema=0.5)
    plain = session.run(jobs.make_job("flux", tmp_path / "plain", recipe), jobs.ignore)
    seen = session.run(jobs.make_job("flux", tmp_path / "seen", recipe, monitor=LOOKS),
                       jobs.ignore)
    assert {shot.status for look in seen.looks for shot in look.shots} == {monitor.NO_FACE}
    assert all(shot.pixels is None and shot.picture() is not None  # on disk, not in memory
               for look in seen.looks for shot in look.shots)
    assert seen.report["kept_step"] == 4 and seen.losses == plain.losses
    assert all(torch.equal(value, plain.tensors[key]) for key, value in seen.tensors.items())


def test_a_run_ends_when_likeness_has_stopped_rising(tmp_path, monkeypatch):
    _scores(monkeypatch, {2: 0.8, 4: 0.5, 6: 0.5, 8: 0.5})
    watched = dataclasses.replace(LOOKS, rule=StopRule(patience=1))
    job = jobs.make_job("flux", tmp_path, jobs.make_recipe("lora", steps=20), monitor=watched)
    outcome = session.run(job, jobs.ignore)
    assert len(outcome.losses) == 6 and outcome.report["kept_step"] == 2
    assert "has not risen" in outcome.report["ended"] or "highest" in outcome.report["ended"]


def test_another_monitor_is_another_run_and_named(tmp_path):
    job = jobs.make_job("flux", tmp_path, jobs.make_recipe("lora"), monitor=LOOKS)
    with pytest.raises(runtime.Interrupted):
        session.run(job, jobs.cancel_after(3))
    other = dataclasses.replace(job, monitor=dataclasses.replace(LOOKS, seed=5))
    with pytest.raises(session.LikenessError, match="the monitor has changed"):
        session.run(other, jobs.ignore)
