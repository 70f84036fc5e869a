"""What a workflow takes: every name works with `--set`, every value is of the kind that is told."""

from __future__ import annotations

import json

import pytest

from launcher.client.workflows import load_workflow, read_settings, with_settings
from launcher.command_line import main
from launcher.hosts.host import ROOT
from launcher.inputs import as_json_schema, inputs_of

WORKFLOWS = sorted((ROOT / "workflows" / "api").glob("*.json"))
KINDS = {"boolean": bool, "integer": int, "number": float, "string": str}


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_every_input_can_be_set_by_its_name_and_none_is_left_out(file):
    prompt = load_workflow(file)
    inputs = inputs_of(prompt)
    assert len({one.name for one in inputs}) == len(inputs)
    texts = [f"{one.name}={json.dumps(one.value) if not isinstance(one.value, str) else one.value}"
             for one in inputs]
    assert with_settings(prompt, read_settings(prompt, texts)) == prompt
    links = sum(isinstance(value, list) for node in prompt.values()
                for value in node["inputs"].values())
    assert len(inputs) + links == sum(len(node["inputs"]) for node in prompt.values())
    for one in inputs:
        assert type(one.value) is KINDS[one.schema["type"]], one.name


def test_nodes_of_one_title_are_told_apart_by_their_id():
    node = {"class_type": "CLIPTextEncode", "inputs": {"text": "a"}, "_meta": {"title": "Words"}}
    assert [one.name for one in inputs_of({"3": node, "7": node})] == ["3.text", "7.text"]


def test_what_the_host_knows_becomes_schema():
    prompt = {"1": {"class_type": "N", "inputs": {
        "steps": 3, "kind": "b", "old": "x", "model": ["2", 0], "odd": 1.5}},
        "2": {"class_type": "M", "inputs": {}}}
    nodes = {"N": {"input": {
        "required": {"steps": ["INT", {"min": 1, "max": 9, "tooltip": "How many."}],
                     "kind": ["COMBO", {"options": ["a", "b"]}], "old": [["x", "y"], {}]},
        "optional": {"odd": ["FLOAT", {}]}}}}
    schema = as_json_schema("n", prompt, inputs_of(prompt, nodes))
    assert schema["properties"] == {
        "N.steps": {"default": 3, "type": "integer", "minimum": 1, "maximum": 9,
                    "description": "How many."},
        "N.kind": {"default": "b", "type": "string", "enum": ["a", "b"]},
        "N.old": {"default": "x", "type": "string", "enum": ["x", "y"]},
        "N.odd": {"default": 1.5, "type": "number"}}
    assert schema["x-takes-photos"] is False


def test_the_command_prints_them_and_writes_the_schema(tmp_path, capfd):
    file = ROOT / "workflows" / "api" / "selfies_to_headshots.json"
    assert main(["inputs", str(file), "--json", str(tmp_path / "schema.json")]) == 0
    assert "\n  Subject.class_noun = \"person\"\n" in capfd.readouterr().out
    schema = json.loads((tmp_path / "schema.json").read_text("utf-8"))
    assert schema["title"] == "selfies_to_headshots" and schema["x-takes-photos"]
    assert schema["properties"]["Train.seed"] == {"default": 0, "type": "integer"}
