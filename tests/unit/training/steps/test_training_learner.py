"""Gradients become steps: clipped norm, rates of groups, the average saved, steps cut in two."""

from __future__ import annotations

import pytest
import technique_jobs as jobs
import torch
from likeness.nodes import runtime
from likeness.nodes.training.run import resume, session
from likeness.nodes.training.steps.learner import Learner
from likeness.nodes.training.watch.divergence import Diverged, HarmWatch


@pytest.fixture(autouse=True)
def _as_the_executor_runs_prompts():
    with torch.inference_mode():
        yield


def _trainer(folder, technique="lora", **fields):
    return session.make_trainer(jobs.make_job("sd3", folder, jobs.make_recipe(technique, **fields)))


@pytest.mark.parametrize(("largest", "kept"), [(0.0, 1.0), (2.0, 0.4), (8.0, 1.0)])
def test_a_gradient_is_held_at_its_largest_norm_and_left_alone_at_none(largest, kept, tmp_path):
    learner = _trainer(tmp_path).learner
    with torch.inference_mode(False):
        for parameter in learner.parameters:
            parameter.grad = torch.randn_like(parameter)
        whole = torch.cat([value.grad.flatten() for value in learner.parameters]).norm()
        for parameter in learner.parameters:
            parameter.grad *= 5 / whole
        before = [parameter.grad.clone() for parameter in learner.parameters]
        assert float(learner.clip(largest)) == pytest.approx(5.0, rel=1e-4)
    for parameter, gradient in zip(learner.parameters, before, strict=True):
        assert torch.allclose(parameter.grad, kept * gradient, rtol=1e-4, atol=1e-7)


def test_rates_of_groups_are_multiples_of_the_recipes(tmp_path):
    learner = _trainer(tmp_path, "lora+", learning_rate=1e-3).learner
    rates = {group["lr"]: group["params"] for group in learner.groups}
    assert sorted(rates) == pytest.approx([1e-3, 16e-3])
    assert all(not parameter.any() for parameter in rates[max(rates)])  # `up` starts at zero


def test_the_average_is_what_is_saved_and_the_trained_values_are_what_trains_on(tmp_path,
                                                                                monkeypatch):
    seen, real = [], session.products.save

    def save(job, trainer, key, told):
        learner = trainer.learner
        *averages, updates = learner.ema.tensors().values()
        assert updates == 6
        trained = [value.detach().clone() for value in learner.parameters]
        with learner.evaluated():
            counted = [value.detach().clone() for value in learner.parameters]
        seen.append((averages, counted, trained, [value.clone() for value in learner.parameters]))
        return real(job, trainer, key, told)

    monkeypatch.setattr(session.products, "save", save)
    recipe = jobs.make_recipe("lora", ema=0.5, steps=6, learning_rate=1e-2)
    outcome = session.run(jobs.make_job("sd3", tmp_path, recipe, file_type="fp32"), jobs.ignore)
    (averages, counted, trained, after), = seen
    for average, inside, own, back in zip(averages, counted, trained, after, strict=True):
        assert torch.equal(inside, average) and torch.equal(back, own)
        assert average.any() and not torch.equal(average, own)
    stored, _ = jobs.stored(outcome.path)
    known = {tuple(value.shape): [] for value in averages}
    for value in averages:
        known[tuple(value.shape)].append(value)
    saved = [value for name, value in stored.items() if not name.endswith("alpha")]
    assert len(saved) == len(averages)
    assert all(any(torch.equal(value, average) for average in known[tuple(value.shape)])
               for value in saved)


def test_a_cancel_within_an_update_goes_on_from_the_last_whole_step(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "STATE_EVERY", 2)
    monkeypatch.setattr(resume, "WRITE_SHARE", 0.0)
    recipe = jobs.make_recipe("lora")
    whole = session.run(jobs.make_job("sd3", tmp_path / "whole", recipe), jobs.ignore)
    job, real = jobs.make_job("sd3", tmp_path / "parts", recipe), Learner.update

    def update(learner, step):
        real(learner, step)
        if step == 2:
            raise runtime.Interrupted

    with monkeypatch.context() as patch, pytest.raises(runtime.Interrupted):
        patch.setattr(Learner, "update", update)
        session.run(job, jobs.ignore)
    resumed = session.run(job, jobs.ignore)
    assert resumed.report["resumed_at"] == 2
    assert resumed.losses == whole.losses
    ours, truth = jobs.stored(resumed.path)[0], jobs.stored(whole.path)[0]
    assert all(torch.equal(value, truth[name]) for name, value in ours.items())


def test_a_run_that_went_on_and_got_lost_says_which_step_is_kept(tmp_path, monkeypatch):
    job = jobs.make_job("sd3", tmp_path, jobs.make_recipe("lora"))
    with pytest.raises(runtime.Interrupted):
        session.run(job, jobs.cancel_after(2))

    def lost(watch):
        raise Diverged("The model is lost")

    monkeypatch.setattr(HarmWatch, "check", lost)
    with pytest.raises(Diverged, match="lost .*what was learned up to step 2 is kept"):
        session.run(job, jobs.ignore)
