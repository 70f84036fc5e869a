"""A node whose files have gone runs again, once, though ComfyUI holds its result."""

from __future__ import annotations

import asyncio

import pytest
from comfy_execution.graph import DynamicPrompt
from comfy_execution.utils import CurrentNodeContext
from execution import IsChangedCache
from likeness.nodes import made_files, runtime
from likeness.nodes.dataset.coach.nodes import LikenessCoach
from likeness.nodes.dataset.prepare.nodes import LikenessPrepareTraining
from likeness.nodes.scoring.pick.nodes import LikenessPick
from likeness.nodes.scoring.report.nodes import LikenessReportNode
from likeness.nodes.scoring.score.nodes import LikenessScore
from likeness.nodes.training.pictures.class_nodes import ClassPhotosNode
from likeness.nodes.training.run.nodes import TrainNode

import nodes as core


@pytest.fixture
def files(tmp_path):
    found = [tmp_path / name for name in ("a.latent", "b.text")]
    for path in found:
        path.write_bytes(b"whole")
    return found


@pytest.mark.parametrize("kind", [
    ClassPhotosNode, LikenessCoach, LikenessPick, LikenessPrepareTraining, LikenessReportNode,
    LikenessScore, TrainNode])
def test_the_host_is_told_when_a_file_has_gone_and_not_before(kind, files, monkeypatch):
    monkeypatch.setitem(core.NODE_CLASS_MAPPINGS, kind.__name__, kind)
    node = f"node {kind.__name__}"
    prompt = {node: {"class_type": kind.__name__, "inputs": {"subject": ["1", 0]}}}

    def told():
        fresh = {key: dict(entry) for key, entry in prompt.items()}
        found = asyncio.run(IsChangedCache("p", DynamicPrompt(fresh), None).get(node))
        assert found == found, "it would run at every prompt"
        return found

    first = told()
    with CurrentNodeContext("p", node):
        made_files.remember(runtime.running_node(), files)
    assert told() == first
    files[0].unlink()
    second = told()
    assert second != first and told() == second, "it would run twice for one loss"
    files[0].write_bytes(b"whole")
    made_files.remember(node, files)
    assert told() == second
    files[1].write_bytes(b"cut")
    assert told() not in (first, second)


def test_an_older_result_that_may_still_be_held_is_watched_too(files):
    made_files.remember("older", files[:1])
    made_files.remember("older", files[1:])
    before = made_files.losses("older")
    files[0].unlink()
    assert made_files.losses("older") != before


def test_nothing_is_noted_outside_a_prompt(files):
    assert runtime.running_node() == ""
    made_files.remember("", files)
    files[0].unlink()
    assert made_files.losses("") == ""
