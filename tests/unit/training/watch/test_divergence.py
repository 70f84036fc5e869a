"""Rates that make a model worse are told by what it loses on fixed photos, and no others are."""

from __future__ import annotations

import dataclasses
from contextlib import closing

import pytest
import technique_jobs as jobs
import torch
import training_models
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.run import resume, session
from likeness.nodes.training.watch.divergence import Diverged, Harm, HarmWatch


@pytest.fixture(autouse=True)
def _as_the_executor_runs_prompts():
    with torch.inference_mode():
        yield


def _job(folder, name="flux", technique="lora", rate=1e-3, **fields):
    return jobs.make_job(name, folder, jobs.make_recipe(technique, learning_rate=rate, **fields),
                         photos=4)


def _shares(job):
    """How much worse the model is after every step of a run."""
    trainer, found = session.make_trainer(job), []
    watch = HarmWatch(trainer)
    with closing(trainer.run()) as steps:
        for _ in steps:
            found.append([harm.share for harm in watch.measure()])
    return found


@pytest.fixture(scope="module")
def knowing(tmp_path_factory):
    """A MODEL that has learned its photos, as real models know pictures."""
    with torch.inference_mode():
        job = _job(tmp_path_factory.mktemp("knowing"), rate=1e-2, steps=60, target="all linear")
        return session.run(job, jobs.ignore).model


@pytest.mark.parametrize("name", training_models.ARCHITECTURES)
@pytest.mark.parametrize("technique", ["lora", "dreambooth"])
def test_a_run_at_a_usual_rate_never_comes_near_an_alarm(name, technique, tmp_path):
    shares = _shares(_job(tmp_path, name, technique, rate=1e-4, steps=4))
    assert max(sum(row) / len(row) for row in shares) < 0.01


@pytest.mark.parametrize("rate", [0.05, 0.3, 1.0])
def test_a_rate_that_wrecks_a_model_that_knows_its_photos_is_told_within_eight_steps(
        rate, knowing, tmp_path):
    job = dataclasses.replace(_job(tmp_path, rate=rate, steps=60, target="all linear"),
                              model=knowing)
    seen = []
    sentence = (r"worse by step (\d+) \(photo photo\d.jpg; noise level [\d.]+: its loss is .* was "
                r".* before training, and predicting nothing loses .*\); lower the learning rate "
                r"\(nothing was worth keeping\)\.$")
    with pytest.raises(Diverged, match=sentence) as caught:
        session.run(job, lambda result: seen.append(result.loss))
    assert len(seen) < 8 and "\n" not in str(caught.value)
    assert not list((tmp_path / "loras").glob("*"))


def test_a_usual_rate_goes_on_teaching_a_model_that_knows_its_photos(knowing, tmp_path):
    job = dataclasses.replace(_job(tmp_path, rate=1e-3, steps=17), model=knowing)
    assert session.run(job, jobs.ignore).report["steps"] == 17


def test_the_last_update_of_a_short_run_is_measured_too(knowing, tmp_path, monkeypatch):
    monkeypatch.setattr(HarmWatch, "due", lambda watch, step: False)
    job = dataclasses.replace(_job(tmp_path, rate=1.0, steps=3, target="all linear"),
                              model=knowing)
    with pytest.raises(Diverged, match="worse by step 3 "):
        session.run(job, jobs.ignore)


def test_a_model_that_gets_lost_late_does_not_replace_the_good_state(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "STATE_EVERY", 5)
    monkeypatch.setattr(resume, "WRITE_SHARE", 0.0)
    job = _job(tmp_path, steps=30)
    real, broken = HarmWatch.measure, []

    def measure(watch):
        found = real(watch)
        broken.append(watch.trainer.step)
        return [dataclasses.replace(harm, loss=harm.loss + (watch.trainer.step > 12) * 9)
                for harm in found]

    with monkeypatch.context() as patch:
        patch.setattr(HarmWatch, "measure", measure)
        with pytest.raises(LikenessError, match="by step 15 .*up to step 10 is kept"):
            session.run(job, jobs.ignore)
    assert broken == [1, 2, 4, 5, 8, 10, 15]
    assert session.run(job, jobs.ignore).report["resumed_at"] == 10


@pytest.mark.parametrize("technique", ["lora", "pivotal", "dreambooth", "lora of text encoders"])
def test_a_run_learns_the_same_whether_it_is_watched_or_not(technique, tmp_path, monkeypatch):
    fields = {"rank_dropout": 0.5} if technique == "lora" else {}
    watched = session.run(_job(tmp_path / "a", technique=technique, steps=5, ema=0.5, **fields),
                          jobs.ignore)
    monkeypatch.setattr(HarmWatch, "check", lambda watch: None)
    alone = session.run(_job(tmp_path / "b", technique=technique, steps=5, ema=0.5, **fields),
                        jobs.ignore)
    assert watched.losses == alone.losses


def test_what_was_lost_before_is_the_models_own_loss_whenever_the_watch_begins(tmp_path):
    trainer = session.make_trainer(_job(tmp_path, rate=1e-2, steps=6))
    with trainer.attached():
        start = [harm.loss for harm in HarmWatch(trainer).measure()]
    list(trainer.run())
    with trainer.attached():
        found = HarmWatch(trainer).measure()  # as after an interruption
    assert [harm.before for harm in found] == start
    assert all(harm.loss != harm.before for harm in found)


def test_harm_is_a_share_of_predicting_nothing_or_of_what_was_lost_before():
    assert Harm("a", 1.0, loss=0.6, before=0.1, nothing=1.0).share == pytest.approx(0.5)
    assert Harm("a", 1.0, loss=3.0, before=2.0, nothing=1.0).share == pytest.approx(0.5)
    assert Harm("a", 1.0, loss=0.1, before=0.3, nothing=1.0).share < 0
    assert Harm("a", 1.0, loss=float("nan"), before=0.3, nothing=1.0).share == float("inf")


def test_predicting_nothing_loses_the_target_itself(tmp_path):
    trainer = session.make_trainer(_job(tmp_path, "flux", background=1.0))
    batch = trainer.live_batch(trainer.samples[:1], [trainer.samples[0].captions[0]])
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(0))
    loss = trainer.objective.nothing_loss(batch, torch.tensor([0.5]), noise)
    assert float(loss) == pytest.approx(float((noise - batch.latents).square().mean()), rel=1e-5)
