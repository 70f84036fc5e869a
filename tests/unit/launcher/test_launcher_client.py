"""What the server's refusals and failures become in words, and what photos folders are refused."""

from __future__ import annotations

import io

import pytest

from launcher.client import (
    Client,
    FailedPrompt,
    FileReference,
    InterruptedPrompt,
    Run,
    _finished,
    failure_sentence,
    rejection_sentence,
)
from launcher.photos import list_photos, require_loader
from launcher.problems import Problem
from launcher.progress import Progress
from launcher.queue import reported_files
from launcher.server import free_port

PROMPT = {"1": {"class_type": "CheckpointLoaderSimple", "inputs": {}, "_meta": {"title": "Model"}},
          "2": {"class_type": "KSampler", "inputs": {}}}


def node_error(**error):
    return {"error": {"type": "prompt_outputs_failed_validation", "message": "x"},
            "node_errors": {"1": {"errors": [error], "class_type": "CheckpointLoaderSimple"}}}


def test_a_value_not_in_a_list_names_node_input_value_and_choices():
    answer = node_error(
        type="value_not_in_list", message="Value not in list", details="ckpt_name: 'a' not in []",
        extra_info={"input_name": "ckpt_name", "received_value": "a.safetensors",
                    "input_config": [["b.safetensors", "c.safetensors"], {}]})
    assert rejection_sentence(PROMPT, answer) == (
        "The host refused `Model`: Value not in list: `ckpt_name` is `a.safetensors`, but there "
        "is b.safetensors, c.safetensors.")


def test_a_missing_input_names_node_and_input():
    answer = node_error(type="required_input_missing", message="Required input is missing",
                        details="model", extra_info={"input_name": "model"})
    assert rejection_sentence(PROMPT, answer) == (
        "The host refused `Model`: Required input is missing: model.")


def test_a_refusal_without_a_node_says_the_servers_reason():
    answer = {"error": {"type": "invalid_prompt", "details": "Node ID '#7'",
                        "message": "Cannot execute because node Foo does not exist."}}
    assert rejection_sentence(PROMPT, answer) == (
        "The host refused the workflow: Cannot execute because node Foo does not exist "
        "(Node ID '#7').")


def test_the_packs_own_errors_are_passed_on_as_they_are():
    details = {"node_id": "1", "exception_message": "No face was found in a.jpg.\n",
               "exception_type": "custom_nodes.likeness.nodes.errors.LikenessError"}
    assert failure_sentence(PROMPT, details) == "`Model` failed: No face was found in a.jpg."


def test_other_errors_are_named_by_their_class():
    details = {"node_id": "2", "exception_message": "shape\n mismatch",
               "exception_type": "RuntimeError"}
    assert failure_sentence(PROMPT, details) == "`KSampler` failed: RuntimeError: shape mismatch"


@pytest.mark.parametrize("kind, error", [("execution_error", FailedPrompt),
                                         ("execution_interrupted", InterruptedPrompt)])
def test_a_prompt_that_did_not_end_well_raises(kind, error):
    record = {"status": {"messages": [[kind, {"node_id": "2"}]]}, "outputs": {}}
    with pytest.raises(error):
        _finished(PROMPT, "id", record, 1.0)


def test_a_run_tells_executed_from_cached_nodes():
    record = {"status": {"messages": [["execution_cached", {"nodes": ["1"]}]]}, "outputs": {}}
    assert _finished(PROMPT, "id", record, 1.0).executed == {"2"}


def test_a_run_lists_each_saved_file_once_and_no_previews():
    saved = {"filename": "a.png", "subfolder": "s", "type": "output"}
    run = Run("id", {"1": {"images": [saved, saved, {"filename": "p.png", "type": "temp"}],
                           "text": ["{}"]}}, 1.0)
    assert run.files() == (FileReference("a.png", "s"),)
    assert run.text("1") == "{}"


def test_files_that_nodes_name_in_their_json_are_found_below_the_output_folder():
    run = Run("id", {
        "train": {"text": ['{"lora": "/srv/ComfyUI/output/loras/me.safetensors"}']},
        "score": {"text": ['{"report": "C:\\\\c\\\\output\\\\likeness\\\\me\\\\s.json"}']},
        "kept": {"text": ['{"lora": "/srv/ComfyUI/models/loras/me.safetensors"}']},
        "words": {"text": ["no json"]}}, 1.0)
    assert reported_files(run) == (FileReference("me.safetensors", "loras"),
                                   FileReference("s.json", "likeness/me"))


def test_a_server_that_is_not_there_is_one_sentence():
    with pytest.raises(Problem, match="No ComfyUI server answers on http://127.0.0.1"):
        Client(f"http://127.0.0.1:{free_port()}").run(PROMPT)


def test_photo_folders_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(Problem, match="does not exist"):
        list_photos(tmp_path / "none")
    with pytest.raises(Problem, match="There is no photo in"):
        list_photos(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(Problem, match="There is no photo in"):
        list_photos(tmp_path)
    with pytest.raises(Problem, match="is a file"):
        list_photos(tmp_path / "notes.txt")


def test_photos_are_listed_by_name_whatever_the_case_of_their_ending(tmp_path):
    for name in ("b.JPG", "a.png", "c.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in list_photos(tmp_path)] == ["a.png", "b.JPG"]


def test_a_workflow_that_loads_no_photos_is_refused():
    with pytest.raises(Problem, match="no `LikenessLoadPhotos` node"):
        require_loader(PROMPT)


def test_progress_counts_cached_nodes_and_prints_long_steps():
    out = io.StringIO()
    progress = Progress(PROMPT, out, live=False)
    progress({"type": "execution_cached", "data": {"nodes": ["1"]}})
    progress({"type": "executing", "data": {"node": "2"}})
    progress({"type": "progress", "data": {"node": "2", "value": 4, "max": 4}})
    progress({"type": "executing", "data": {"node": None}})
    assert out.getvalue() == "[2/2] KSampler\n    4/4\n"


def test_the_live_line_shows_share_steps_and_title():
    out = io.StringIO()
    progress = Progress(PROMPT, out, live=True)
    progress({"type": "executing", "data": {"node": "1"}})
    progress({"type": "progress", "data": {"node": "1", "value": 1, "max": 2}})
    assert "[######..................] 0/2 Model 1/2" in out.getvalue()
