"""Runs that were cut off and go on: equal, bit for bit, to runs that were not."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
import technique_jobs as jobs
import text_models
import torch
from likeness.nodes import runtime
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.recipes.base import TokenSettings
from likeness.nodes.training.run import session
from likeness.nodes.training.run.job import ANEW

OPTIMIZERS = ("adamw", "adamw 8-bit", "adafactor", "prodigy", "lion", "adamw schedule-free")


@pytest.fixture(autouse=True)
def _as_the_executor_runs_prompts():
    with torch.inference_mode():
        yield


def _run(job):
    """A run's outcome, and the state that its last step left."""
    states = []
    real = session.products.save

    def save(job, trainer, key, said):
        states.append(trainer.learner.tensors())
        return real(job, trainer, key, said)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session.products, "save", save)
        return session.run(job, jobs.ignore), states[0]


def _assert_equal(one, other):
    (ours, tensors), (truth, true_tensors) = one, other
    assert ours.losses == truth.losses and all(loss == loss for loss in ours.losses)
    assert tensors.keys() == true_tensors.keys()
    assert all(torch.equal(value, true_tensors[name]) for name, value in tensors.items())
    assert ours.files.keys() == truth.files.keys()
    for kind, path in ours.files.items():
        (values, fields), (wanted, said) = jobs.stored(path), jobs.stored(truth.files[kind])
        assert fields == said and values.keys() == wanted.keys()
        assert all(torch.equal(value, wanted[key]) for key, value in values.items())


def _moved(outcome, job):
    """Whether the run has learned anything at all."""
    start = session.make_trainer(job).learner.tensors()
    return any(not torch.equal(value, start[name]) for name, value in outcome[1].items())


def _assert_goes_on(name, folder, recipe, at=2, **fields):
    whole_job = jobs.make_job(name, folder / "whole", recipe, **fields)
    whole = _run(whole_job)
    job = jobs.make_job(name, folder / "parts", recipe, **fields)
    for step in [at] if isinstance(at, int) else at:
        with pytest.raises(runtime.Interrupted):
            session.run(job, jobs.cancel_after(step))
    resumed = _run(job)
    assert resumed[0].report["resumed_at"] == (at if isinstance(at, int) else at[-1])
    _assert_equal(resumed, whole)
    assert _moved(whole, whole_job)
    assert not list(job.work_folder.iterdir())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("technique", ["lora", "textual inversion", "dreambooth"])
def test_a_cancelled_run_goes_on_exactly_with_each_optimiser(technique, optimizer, tmp_path):
    fields = {"optimizer": optimizer}
    if optimizer == "prodigy":
        fields["learning_rate"] = 1.0
        if technique == "textual inversion":
            fields["tokens"] = TokenSettings(learning_rate=1.0)
    name = "sd3" if technique == "lora" else "flux"
    if technique == "textual inversion":
        name = "sd15"  # one encoder: Prodigy has one rate, and flux has two with rates of their own
    _assert_goes_on(name, tmp_path, jobs.make_recipe(technique, **fields))


@pytest.mark.parametrize(("technique", "fields"), [
    ("lora", {"ema": 0.9}),
    ("lora", {"accumulate": 2, "batch_size": 2}),
    ("lora", {"rank_dropout": 0.5}),
    ("dora", {"rank_dropout": 0.5, "ema": 0.9}),
    ("loha", {"schedule": "cosine", "warmup": 2}),
    ("lokr", {"schedule": "linear", "accumulate": 3}),
    ("oft", {"weight_decay": 0.1}),
    ("qlora nf4", {"ema": 0.5}),
    ("lora", {"class_word_weight": 1.0, "outside_weight": 0.5}),
    ("lora of text encoders", {"rank_dropout": 0.5, "accumulate": 2}),
    ("lora of text encoders", {"optimizer": "adamw schedule-free"}),
    ("pivotal", {"ema": 0.9, "class_word_weight": 1.0}),
    ("textual inversion", {"ema": 0.9, "accumulate": 2}),
    ("dreambooth", {"ema": 0.9}),
    ("dreambooth with a word", {"accumulate": 2}),
], ids=lambda value: value if isinstance(value, str) else "-".join(value))
def test_a_cancelled_run_goes_on_exactly_with_each_setting(technique, fields, tmp_path):
    _assert_goes_on("flux", tmp_path, jobs.make_recipe(technique, **fields), at=[1, 3])


@pytest.mark.parametrize("technique", ["lora", "pivotal", "dreambooth"])
def test_class_photos_and_mixed_shapes_go_on_exactly(technique, tmp_path):
    recipe = jobs.make_recipe(technique, steps=5, batch_size=2, class_word_weight=0.5)
    _assert_goes_on("sd3", tmp_path, recipe, at=[1, 2, 4], classes=3, photos=4,
                    sizes=((16, 16), (16, 24), (16, 16), (16, 24)))


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_a_unet_goes_on_exactly(name, tmp_path):
    recipe = jobs.make_recipe("pivotal", target="cross-attention", rank_dropout=0.3, ema=0.9,
                              noise_offset=0.1)
    _assert_goes_on(name, tmp_path, recipe)


def test_words_that_stopped_learning_stay_stopped_after_an_interruption(tmp_path):
    recipe = jobs.make_recipe("pivotal", steps=6, tokens=TokenSettings(share=0.34))
    _assert_goes_on("flux", tmp_path, recipe, at=[2, 3, 5])


_CHILD = """
import importlib.util, os, signal, sys
from pathlib import Path
root, folder = Path(sys.argv[1]), Path(sys.argv[2])
sys.path[:0] = [str(root / "tests" / "unit" / "training")]
spec = importlib.util.spec_from_file_location("host", root / "tests" / "conftest.py")
spec.loader.exec_module(importlib.util.module_from_spec(spec))
import technique_jobs as jobs
import torch
from likeness.nodes.training.run import session
session.STATE_EVERY = 2
session.Saved.due = lambda saved, regular: regular

def on_step(result):
    if result.step == 3:
        os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL)

with torch.inference_mode():
    session.run(jobs.make_job("flux", folder, jobs.make_recipe("pivotal", steps=6)), on_step)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_process_killed_while_it_writes_a_state_goes_on_from_the_one_before(tmp_path):
    root = Path(__file__).resolve().parents[4]
    child = subprocess.run([sys.executable, "-c", _CHILD, str(root), str(tmp_path / "killed")],
                           capture_output=True, text=True, timeout=120)
    assert child.returncode == -signal.SIGKILL, child.stderr[-2000:]
    recipe = jobs.make_recipe("pivotal", steps=6)
    job = jobs.make_job("flux", tmp_path / "killed", recipe)
    assert len(list(job.work_folder.glob("*.part"))) == 1
    resumed = _run(job)
    assert resumed[0].report["resumed_at"] == 2
    _assert_equal(resumed, _run(jobs.make_job("flux", tmp_path / "whole", recipe)))
    assert not list(job.work_folder.iterdir())


@pytest.mark.parametrize("technique", ["textual inversion", "dreambooth"])
def test_a_changed_setting_is_refused_by_name(technique, tmp_path):
    job = jobs.make_job("flux", tmp_path, jobs.make_recipe(technique))
    with pytest.raises(runtime.Interrupted):
        session.run(job, jobs.cancel_after(2))
    rate = dataclasses.replace(job, recipe=job.recipe.with_options({"learning_rate": 3e-3}))
    with pytest.raises(LikenessError, match="stopped at step 2 .*`learning_rate` was .* and is"):
        session.run(rate, jobs.ignore)
    assert session.run(dataclasses.replace(rate, unfinished=ANEW),
                       jobs.ignore).report["resumed_at"] == 0
    assert session.run(job, jobs.ignore).report["resumed_at"] == 2


def test_changed_words_are_refused_by_the_setting_that_changed(tmp_path):
    job = jobs.make_job("flux", tmp_path, jobs.make_recipe("textual inversion"))
    with pytest.raises(runtime.Interrupted):
        session.run(job, jobs.cancel_after(2))
    recipe = dataclasses.replace(job.recipe, tokens=TokenSettings(vectors=3))
    with pytest.raises(LikenessError, match="`tokens.vectors` was 2 and is 3") as caught:
        session.run(dataclasses.replace(job, recipe=recipe), jobs.ignore)
    assert "initial_word" not in str(caught.value)


def test_changed_photos_are_refused_by_their_names(tmp_path):
    job = jobs.make_job("flux", tmp_path, jobs.make_recipe("textual inversion"))
    with pytest.raises(runtime.Interrupted):
        session.run(job, jobs.cancel_after(2))
    items = list(job.training_set.items)
    items[1] = dataclasses.replace(items[1], photo_sha256="f" * 64)
    fewer = dataclasses.replace(job.training_set, items=tuple(items[:2]), key="other")
    with pytest.raises(LikenessError, match="photo photo2.jpg is gone; photo photo1.jpg or its"):
        session.run(dataclasses.replace(job, training_set=fewer), jobs.ignore)


@pytest.mark.parametrize(("part", "said"), [
    ("class_set", "class photos"), ("token_start", "token start"), ("clip", "text encoder")])
def test_other_parts_are_refused_by_their_names(part, said, tmp_path):
    job = jobs.make_job("flux", tmp_path, jobs.make_recipe("pivotal"), classes=2)
    with pytest.raises(runtime.Interrupted):
        session.run(job, jobs.cancel_after(2))
    other = {"class_set": lambda: dataclasses.replace(job.class_set, key="other"),
             "clip": lambda: text_models.make_clip("flux", tmp_path, seed=5),
             "token_start": lambda: _start(job)}[part]()
    with pytest.raises(LikenessError, match=f"the {said} has changed") as caught:
        session.run(dataclasses.replace(job, **{part: other}), jobs.ignore)
    assert str(caught.value).count("has changed") == 1 and "\n" not in str(caught.value)


def _start(job):
    rows = session.make_trainer(job).text.encoders.tokens.rows
    return types.SimpleNamespace(key="other", rows={name: value.detach().clone()
                                                    for name, value in rows.items()})


def test_a_damaged_state_of_each_kind_is_named_and_nothing_is_lost(tmp_path):
    job = jobs.make_job("flux", tmp_path, jobs.make_recipe("pivotal"))
    with pytest.raises(runtime.Interrupted):
        session.run(job, jobs.cancel_after(2))
    path, = job.work_folder.glob("*.state")
    content = path.read_bytes()
    for damaged in (b"", content[:100], content[:-1000], b"\0" * len(content)):
        path.write_bytes(damaged)
        with pytest.raises(LikenessError, match="cannot be read .* delete it") as caught:
            session.run(job, jobs.ignore)
        assert "\n" not in str(caught.value) and path.read_bytes() == damaged
    path.write_bytes(content)
    assert session.run(job, jobs.ignore).report["resumed_at"] == 2
    assert os.listdir(job.work_folder) == []
