"""What a finished run says of itself and what it kept on the way."""

from __future__ import annotations

import os

import pytest
import technique_jobs as jobs
import torch
from likeness.nodes import files
from likeness.nodes.training.run import session


@pytest.fixture(autouse=True)
def _as_the_executor_runs_prompts():
    with torch.inference_mode():
        yield


@pytest.mark.parametrize(("name", "fields", "told"), [
    ("sd15", {"min_snr": 3.0}, 3.0), ("sd15", {"min_snr": 0.0}, None),
    ("sd15", {"weighting": "none"}, None), ("sd15", {"weighting": "debiased"}, None),
    ("flux", {}, None)])
def test_min_snr_is_told_where_it_weighs_the_losses(name, fields, told, tmp_path):
    job = jobs.make_job(name, tmp_path, jobs.make_recipe("lora", steps=2, **fields))
    assert session.run(job, jobs.ignore).report["min_snr"] == told


@pytest.mark.parametrize("technique", ["lora", "dreambooth", "pivotal"])
def test_the_results_last_on_disk_before_the_state_goes(technique, tmp_path, monkeypatch):
    lasting, sync, delete = set(), os.fsync, session.Saved.delete
    at_the_end = {}

    def note(number):
        lasting.add(os.fstat(number).st_ino)
        sync(number)

    def check(saved):
        assert saved.path.exists()
        made = [*tmp_path.glob("loras/*"), *tmp_path.glob("embeddings/*"),
                *tmp_path.glob("checkpoints/*")]
        for path in made:
            at_the_end[path.name, path.parent.name] = {
                path.stat().st_ino, path.parent.stat().st_ino} <= lasting
        delete(saved)

    monkeypatch.setattr(files.os, "fsync", note)
    monkeypatch.setattr(session.Saved, "delete", check)
    job = jobs.make_job("flux", tmp_path, jobs.make_recipe(technique))
    session.run(job, jobs.ignore)
    assert len(at_the_end) == (2 if technique == "pivotal" else 1) and all(at_the_end.values())
