"""The graph that a sweep expands to, what it goes over, and a result without a recommendation."""

from __future__ import annotations

import json
from pathlib import Path

import folder_paths
import pytest
from comfy_execution.graph_utils import ExecutionBlocker
from likeness.nodes.errors import LikenessError
from likeness.nodes.scoring.score.score import yardstick
from likeness.nodes.scoring.sweep import nodes as sweep_nodes
from likeness.nodes.scoring.sweep.figures import Judge
from likeness.nodes.scoring.sweep.graph import Sampling, Source, Sweep, expand
from likeness.nodes.scoring.sweep.sweep import Column, Store, make_grid

SAMPLING = Sampling(1, 1.0, "euler", "normal", 3.5, 64, 64, "")
GIVEN = {"model": "base", "clip": "c", "vae": "v", "lora": "none", "strengths": "0, 1"}


@pytest.fixture
def sweep(obama, tmp_path, monkeypatch):
    """Two columns of two prompts, whose files lie below an output folder of their own."""
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))

    def make(missing, strengths=True):
        columns = [Column("0", 0.0, "a"), Column("1", 1.0, "b")]
        grid = make_grid(columns, ("one", "two"), "ohwx", obama, 0, 1, 10, strengths)
        return Sweep(grid, Store(tmp_path / "cells"), Judge(yardstick(obama, "dlib")), missing)

    return make


def classes(graph, name):
    return [node for node in graph.values() if node["class_type"] == name]


def test_only_missing_cells_are_in_the_graph_each_behind_the_one_before(sweep):
    source = Source(["base"], "clip", "vae", {"lora": "x", "lora_path": ""})
    graph, links = expand(sweep((1, 3)), source, SAMPLING)
    assert len(classes(graph, "KSampler")) == len(classes(graph, "LikenessSweepCell")) == 2
    first, second = classes(graph, "LikenessSweepCell")
    assert "before" not in first["inputs"] and second["inputs"]["before"][0].endswith("cell_1")
    strengths = [node["inputs"]["strength_model"]
                 for node in classes(graph, "LikenessApplyTrained")]
    assert strengths == [0.0, 1.0]
    assert [link[1] for link in links] == [0, 1, 2, 3] and links[0][0].endswith("result")


def test_nothing_is_sampled_when_every_cell_is_there(sweep):
    graph, _ = expand(sweep(()), Source(["base"], "clip", "vae", {"lora": "x"}), SAMPLING)
    assert [node["class_type"] for node in graph.values()] == ["LikenessSweepResult"]


def test_each_model_of_a_list_draws_its_own_column(sweep):
    graph, _ = expand(sweep((0, 1, 2, 3), False), Source(["m0", "m1"], "clip", "vae"), SAMPLING)
    assert [node["inputs"]["model"] for node in classes(graph, "KSampler")] == [
        "m0", "m0", "m1", "m1"]
    assert len(classes(graph, "CLIPTextEncode")) == 3  # two prompts and the negative, shared


def test_models_are_labelled_in_their_order_and_told_by_content(monkeypatch):
    monkeypatch.setattr(sweep_nodes, "model_key", lambda model: model * 12)
    source, columns, _ = sweep_nodes._source({**GIVEN, "labels": "early\nlate"}, ["a", "b"])
    assert [column.label for column in columns] == ["early", "late"]
    assert columns[0].key != columns[1].key and source.models == ["a", "b"]
    with pytest.raises(LikenessError, match="1 lines for 2 models"):
        sweep_nodes._source({**GIVEN, "labels": "early"}, ["a", "b"])


@pytest.mark.parametrize("changes, several, sentence", [
    ({}, [], "nothing to sweep over"), ({"lora_model": {"w": 1}}, ["a"], "leave one")])
def test_a_sweep_goes_over_exactly_one_thing(changes, several, sentence):
    with pytest.raises(LikenessError, match=sentence):
        sweep_nodes._source({**GIVEN, **changes}, several)


@pytest.mark.parametrize("inputs, word", [
    ({"strengths": ["0, x"], "prompts": ["a"]}, "`x`"), ({"prompts": [" "]}, "`prompts`")])
def test_bad_texts_are_refused_before_anything_runs(inputs, word):
    assert word in sweep_nodes.LikenessSweep.validate_inputs(**inputs)
    assert sweep_nodes.LikenessSweep.validate_inputs(strengths=[None], prompts=["a"]) is True


def test_without_a_recommendation_what_follows_is_stopped_and_told_why(sweep, pictures):
    made = sweep(())
    for cell in made.grid.cells:
        made.store.write(cell, pictures["nobody"])
    grid, chart, best, text = sweep_nodes.LikenessSweepResult.execute(made).args
    told = json.loads(text)
    assert isinstance(best, ExecutionBlocker) and best.message == told["advice"]
    assert (told["best"], told["sampled"], told["reused"]) == (None, 0, 4)
    assert grid.shape[-1] == chart.shape[-1] == 3 and Path(told["grid"]).is_file()
