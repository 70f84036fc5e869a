"""What tells two runs apart, and jobs whose parts do not belong together."""

from __future__ import annotations

import dataclasses
import types

import pytest
import technique_jobs as jobs
import torch
from likeness.nodes.errors import LikenessError
from likeness.nodes.sockets import Photo
from likeness.nodes.training.run import job as jobs_of_product
from likeness.nodes.training.run import session
from likeness.nodes.training.run.job import differences, run_inputs, run_key, without_files
from likeness.nodes.training.steps import state


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A job with class photos and its trainer."""
    with torch.inference_mode():
        job = jobs.make_job("sd3", tmp_path_factory.mktemp("job"), jobs.make_recipe("lora"),
                            classes=2)
        return job, session.make_trainer(job)


def _recaptioned(job):
    first, *others = job.training_set.items
    items = (dataclasses.replace(first, caption="ohwx woman laughs"), *others)
    return {"training_set": dataclasses.replace(job.training_set, items=items)}


CHANGES = {
    "photo photo0.jpg or its caption or crop has changed": _recaptioned,
    "the training set has changed": lambda job: {
        "training_set": dataclasses.replace(job.training_set, key="another mask")},
    "`seed` was 1 and is 2": lambda job: {"seed": 2},
    "the class photos has changed": lambda job: {"class_set": None},
    "the monitor has changed": lambda job: {
        "monitor": types.SimpleNamespace(as_dict=lambda: {"every": 100})},
    "the token start has changed": lambda job: {"token_start": types.SimpleNamespace(key="mean")}}


@pytest.mark.parametrize("said", CHANGES)
def test_whatever_changes_what_is_learned_is_another_run_and_said(said, run):
    job, trainer = run
    changed = dataclasses.replace(job, **CHANGES[said](job))
    before, now = run_inputs(job, trainer), run_inputs(changed, trainer)
    assert run_key(before) != run_key(now)
    assert said in differences(before, now)


def test_the_engine_and_the_number_format_are_parts_of_a_run(run, monkeypatch):
    job, trainer = run
    before = run_key(run_inputs(job, trainer))
    monkeypatch.setattr(trainer, "dtype", torch.bfloat16)
    other = run_key(run_inputs(job, trainer))
    monkeypatch.setattr(jobs_of_product, "ENGINE", 10 ** 6)
    assert len({before, other, run_key(run_inputs(job, trainer))}) == 3


def test_the_kind_of_file_is_no_part_of_what_is_learned(run):
    job, trainer = run
    other = run_inputs(dataclasses.replace(job, file_type="bf16"), trainer)
    before = run_inputs(job, trainer)
    assert run_key(before) != run_key(other)
    assert run_key(without_files(before)) == run_key(without_files(other))


@pytest.mark.parametrize("asked", ["identity", "monitor"])
def test_who_the_recogniser_looks_for_and_the_vae_matter_where_it_is_asked(asked, run):
    job, real = run
    trainer = types.SimpleNamespace(dtype=real.dtype, patcher=real.patcher, text=None,
                                    identity=None)
    face = Photo(job.lora_folder, "face.png", "a" * 64)
    others = dataclasses.replace(job.subject, references=(face,))
    plain = [run_inputs(dataclasses.replace(job, subject=subject), trainer)
             for subject in (job.subject, others)]
    assert plain[0] == plain[1] and "VAE" not in plain[0]
    if asked == "identity":
        trainer.identity = object()
    else:
        job = dataclasses.replace(job, monitor=types.SimpleNamespace(as_dict=dict))
    found = [run_inputs(dataclasses.replace(job, subject=subject), trainer)
             for subject in (job.subject, others)]
    assert differences(*found) == ["the subject's photos has changed"]
    assert found[0]["VAE"] == found[1]["VAE"]


def test_a_set_of_the_same_name_with_another_trigger_is_refused(run):
    job, _ = run
    subject = dataclasses.replace(job.subject, trigger="sks")
    with pytest.raises(LikenessError, match=r"\(trigger ohwx\), not from `Ann` \(trigger sks\)"):
        jobs_of_product.check(dataclasses.replace(job, subject=subject))


@pytest.mark.parametrize(("fields", "text"), [
    ({}, "Class photos hold the model back"),
    ({"outside_weight": 0.5}, "`class_word_weight` and `outside_weight` hold the model back")])
def test_a_word_alone_is_not_held_back_from_what_it_does_not_change(fields, text, run):
    job, _ = run
    recipe = jobs.make_recipe("textual inversion", **fields)
    with pytest.raises(LikenessError, match=text):
        jobs_of_product.check(dataclasses.replace(job, recipe=recipe))


def test_an_unknown_word_about_unfinished_runs_is_refused(run):
    with pytest.raises(LikenessError, match="`unfinished` must be continue or start anew, got no"):
        jobs_of_product.check(dataclasses.replace(run[0], unfinished="no"))


def test_the_recogniser_needs_a_vae(run):
    job = dataclasses.replace(run[0], vae=None, recipe=jobs.make_recipe("lora",
                                                                        identity_weight=0.1))
    with pytest.raises(LikenessError, match="This run needs `vae`"):
        jobs_of_product.check(job)


def test_a_state_in_an_older_format_is_not_taken_up(tmp_path, monkeypatch):
    path = tmp_path / "run.state"
    monkeypatch.setattr(state, "FORMAT", state.FORMAT - 1)
    state.write_state(path, state.RunState("key", 3, {}, {}, (1.0,)))
    monkeypatch.undo()
    with pytest.raises(LikenessError, match=r"run.state cannot be read .*; delete it"):
        state.read_state(path)
