"""Memory that runs out beside the steps: one clear sentence, and nothing that was learned is lost.

The host's own error is raised where its tensors would be made; a test has no card to fill.
"""

from __future__ import annotations

import pytest
import technique_jobs as jobs
import torch
from likeness.nodes import runtime
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.export import checkpoint, embedding, lora
from likeness.nodes.training.run import products, session


@pytest.fixture(autouse=True)
def _as_the_executor_runs_prompts():
    with torch.inference_mode():
        yield


def _run_out(*given, **more):
    raise runtime.OutOfMemory("no memory left")


def _told(job, sentence):
    seen = []
    with pytest.raises(LikenessError, match=sentence) as caught:
        session.run(job, lambda result: seen.append(result.step))
    assert "\n" not in str(caught.value)
    return seen


_PLACES = {"lora": (lora, "write_lora", "check_file"),
           "dreambooth": (checkpoint, "write_checkpoint", "check_checkpoint"),
           "textual inversion": (embedding, "save_embedding", "check_embedding")}


@pytest.mark.parametrize("technique", _PLACES)
@pytest.mark.parametrize("place", [1, 2])
def test_a_result_that_finds_no_memory_is_saved_later_without_training_again(
        technique, place, tmp_path, monkeypatch):
    job = jobs.make_job("flux", tmp_path, jobs.make_recipe(technique))
    module, *names = _PLACES[technique]
    with monkeypatch.context() as patch:
        patch.setattr(module, names[place - 1], _run_out)
        seen = _told(job, r"^Memory ran out while the result was saved and proven; what was "
                          r"learned up to step 4 is kept on disk, .* queue it again; .* train with "
                          r"less. \w+ `\w+`")
        # Again with too little memory: what is on disk is still there.
        assert seen == [1, 2, 3, 4] and _told(job, "up to step 4 is kept on disk") == []
    assert not [path for kind in ("loras", "checkpoints", "embeddings")
                for path in (tmp_path / kind).glob("*")]
    steps = []
    outcome = session.run(job, steps.append)
    assert steps == [] and outcome.report["resumed_at"] == 4 and outcome.path.exists()
    fresh = jobs.make_job("flux", tmp_path / "fresh", job.recipe)
    again = session.run(fresh, jobs.ignore)
    learned, other = (jobs.stored(one.path)[0] for one in (outcome, again))
    assert learned.keys() == other.keys()
    assert all(torch.equal(learned[name], other[name]) for name in learned)


@pytest.mark.parametrize("technique", _PLACES)
def test_a_finished_run_that_finds_no_memory_is_not_taken_for_damaged(technique, tmp_path,
                                                                      monkeypatch, caplog):
    job = jobs.make_job("flux", tmp_path, jobs.make_recipe(technique))
    path = session.run(job, jobs.ignore).path
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(products, "_take_over", _run_out)
        assert _told(job, "while the files of the finished run were loaded; they stay as") == []
    assert path.read_bytes() == before and "damaged" not in caplog.text
    assert session.run(job, jobs.ignore).report["reused"]


def test_memory_that_runs_out_while_a_run_goes_on_leaves_its_state(tmp_path, monkeypatch):
    job = jobs.make_job("flux", tmp_path, jobs.make_recipe("lora"))
    with pytest.raises(runtime.Interrupted):
        session.run(job, jobs.cancel_after(2))
    with monkeypatch.context() as patch:
        patch.setattr(session.Trainer, "restore", _run_out)
        assert _told(job, "while the run was made ready; no state on disk has changed") == []
    assert session.run(job, jobs.ignore).report["resumed_at"] == 2


def test_memory_that_runs_out_before_anything_learns_is_told(tmp_path, monkeypatch):
    job = jobs.make_job("flux", tmp_path, jobs.make_recipe("lora"))
    monkeypatch.setattr(session.Trainer, "_load", _run_out)
    assert _told(job, "before the first step, .*unload other models") == []
