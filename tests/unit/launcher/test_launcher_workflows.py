"""Reading workflow files and the command line's `--set node.input=value`."""

from __future__ import annotations

import json

import pytest

from launcher.client.workflows import (
    find_node,
    load_workflow,
    parse_setting,
    read_settings,
    with_settings,
)
from launcher.problems import Problem

PROMPT = {
    "3": {"class_type": "KSampler", "_meta": {"title": "Sample"},
          "inputs": {"seed": 1, "cfg": 2.0, "sampler_name": "euler", "model": ["4", 0]}},
    "4": {"class_type": "CheckpointLoaderSimple", "_meta": {"title": "Model v1.5"},
          "inputs": {"ckpt_name": "a.safetensors"}},
    "5": {"class_type": "CLIPTextEncode", "_meta": {"title": "Words"}, "inputs": {"text": "x"}},
    "6": {"class_type": "CLIPTextEncode", "_meta": {"title": "Words"},
          "inputs": {"text": "y", "flag": True}},
}


@pytest.mark.parametrize("text, parts", [
    ("Sample.seed=5", ("Sample", "seed", "5")),
    ("Model v1.5.ckpt_name=x", ("Model v1.5", "ckpt_name", "x")),
    ("5.text=a=b.c", ("5", "text", "a=b.c")),
    ("5.text=", ("5", "text", "")),
])
def test_a_setting_splits_at_the_last_dot_before_the_first_equals_sign(text, parts):
    assert parse_setting(text) == parts


@pytest.mark.parametrize("text", ["seed=5", "Sample.seed", "=5", ".seed=5", "Sample.=5"])
def test_a_malformed_setting_is_refused_with_an_example(text):
    with pytest.raises(Problem, match="not of the form node.input=value"):
        parse_setting(text)


def test_values_take_the_kind_of_what_stands_there():
    settings = read_settings(PROMPT, ["Sample.seed=7", "Sample.cfg=3", "5.text=12",
                                      "6.flag=false", "Sample.model=[\"4\", 1]"])
    assert settings == {"3.seed": 7, "3.cfg": 3.0, "5.text": "12", "6.flag": False,
                        "3.model": ["4", 1]}


def test_a_value_of_the_wrong_kind_is_refused():
    with pytest.raises(Problem, match="`seed` of `Sample` is now 1, so give a number"):
        read_settings(PROMPT, ["Sample.seed=many"])


def test_an_unknown_node_is_refused_and_the_known_ones_are_named():
    with pytest.raises(Problem, match="no node `Sampel`; it has `Sample`, `Model v1.5`"):
        read_settings(PROMPT, ["Sampel.seed=7"])


def test_a_title_that_two_nodes_have_is_refused():
    with pytest.raises(Problem, match="2 nodes are called `Words`; use one of the ids 5, 6"):
        find_node(PROMPT, "Words")


def test_a_class_that_one_node_has_names_it():
    assert find_node(PROMPT, "KSampler") == "3"


def test_settings_do_not_change_the_original():
    changed = with_settings(PROMPT, {"Sample.seed": 9})
    assert (changed["3"]["inputs"]["seed"], PROMPT["3"]["inputs"]["seed"]) == (9, 1)


def test_a_workflow_without_inputs_on_a_node_gets_empty_ones(tmp_path):
    file = tmp_path / "w.json"
    file.write_text(json.dumps({"1": {"class_type": "Preview"}}))
    assert load_workflow(file) == {"1": {"class_type": "Preview", "inputs": {}}}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_a_workflow_that_an_editor_or_a_shell_saved_its_way_is_read(tmp_path, encoding):
    file, prompt = tmp_path / "w.json", {"1": {"class_type": "Zo\u00eb", "inputs": {}}}
    file.write_bytes(json.dumps(prompt, ensure_ascii=False).encode(encoding))
    assert load_workflow(file) == prompt


def test_a_workflow_that_is_no_text_is_refused(tmp_path):
    file = tmp_path / "w.json"
    file.write_bytes(b'{"1": "Zo\xeb"}')
    with pytest.raises(Problem, match="not a text file"):
        load_workflow(file)


@pytest.mark.parametrize("content, sentence", [
    ("{", "not valid JSON"),
    ("[]", "not a workflow in API format"),
    ("{}", "not a workflow in API format"),
    ('{"nodes": [], "links": []}', "graph for the canvas"),
    ('{"1": {"inputs": {}}}', "not a workflow in API format"),
])
def test_a_file_that_is_no_api_workflow_is_refused(tmp_path, content, sentence):
    file = tmp_path / "w.json"
    file.write_text(content)
    with pytest.raises(Problem, match=sentence):
        load_workflow(file)


def test_a_missing_workflow_file_is_named(tmp_path):
    with pytest.raises(Problem, match="no workflow file .*none.json"):
        load_workflow(tmp_path / "none.json")
