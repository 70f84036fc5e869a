"""What the server's refusals and failures become in words, and what photos folders are refused."""

from __future__ import annotations

import http.server
import io
import json
import threading

import pytest

from launcher import queue
from launcher.client import runs
from launcher.client.api import Client, FileReference
from launcher.client.photos import list_photos, require_loader
from launcher.client.progress import Progress
from launcher.client.refusals import (
    FailedPrompt,
    InterruptedPrompt,
    failure_sentence,
    rejection_sentence,
)
from launcher.client.results import fetch, places, reported_paths
from launcher.client.runs import Run, finished
from launcher.hosts.server import free_port
from launcher.problems import Problem

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
        finished(PROMPT, "id", record, 1.0)


def test_a_run_tells_executed_from_cached_nodes():
    record = {"status": {"messages": [["execution_cached", {"nodes": ["1"]}]]}, "outputs": {}}
    assert finished(PROMPT, "id", record, 1.0).executed == {"2"}


def test_a_run_lists_each_saved_file_once_and_no_previews():
    saved = {"filename": "a.png", "subfolder": "s", "type": "output"}
    run = Run("id", {"1": {"images": [saved, saved, {"filename": "p.png", "type": "temp"}],
                           "text": ["{}"]}}, 1.0)
    assert run.files() == (FileReference("a.png", "s"),)
    assert run.text("1") == "{}"


def run_with(**reports):
    """A run whose nodes show these reports, with one saved picture."""
    saved = {"filename": "h.png", "subfolder": "likeness/me", "type": "output"}
    outputs = {node: {"text": [json.dumps(report)]} for node, report in reports.items()}
    return Run("id", {**outputs, "save": {"images": [saved]}, "words": {"text": ["no json"]}}, 1.0)


@pytest.mark.parametrize("path, expected", [
    ("/srv/ComfyUI/output/loras/me.safetensors", [("loras", "me.safetensors")]),
    ("C:\\c\\output\\likeness\\me\\s.json", [("likeness/me", "s.json")]),
    ("/mnt/output/ComfyUI/output/loras/a.safetensors",
     [("loras", "a.safetensors"), ("ComfyUI/output/loras", "a.safetensors")]),
    ("/srv/ComfyUI/models/loras/me.safetensors", []),
])
def test_a_reported_file_is_looked_for_below_the_last_output_folder_first(path, expected):
    run = run_with(train={"files": {"lora": path}})
    assert reported_paths(run) == (path,)
    assert [(place.subfolder, place.filename) for place in places(run, path)] == expected


def test_every_file_that_train_and_apply_trained_name_is_reported_once():
    word = "/srv/output/embeddings/me.safetensors"
    run = run_with(train={"files": {"lora": "/srv/output/loras/me.safetensors", "embedding": word},
                          "bytes": {"lora": 1, "embedding": 2}},
                   apply={"lora": None, "embedding": word})
    assert reported_paths(run) == ("/srv/output/loras/me.safetensors", word)


def test_a_saved_picture_tells_where_the_output_folder_is():
    run = run_with(score={"images": [{"file": "/data/results/likeness/me/h.png"}],
                          "report": "/data/results/likeness/output/s.json"},
                   train={"files": {"lora": "/x/output/loras/me.safetensors"}})
    assert places(run, "/data/results/likeness/output/s.json") == (
        FileReference("s.json", "likeness/output"),)
    assert places(run, "/x/output/loras/me.safetensors") == ()


@pytest.fixture
def web():
    """A web server that gives away h.png alone and says `hello` otherwise; its address."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            refused = self.path.startswith("/view") and "h.png" not in self.path
            self.send_response(404 if refused else 200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *words):
            """Keep quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_what_the_server_keeps_is_copied_when_it_is_here_and_else_named(web, tmp_path):
    here = tmp_path / "models" / "loras" / "me.safetensors"
    here.parent.mkdir(parents=True)
    here.write_bytes(b"lora")
    run = run_with(train={"files": {"lora": str(here)}},
                   score={"report": "/elsewhere/output/s.json"})
    fetched = fetch(Client(web), run, tmp_path / "out")
    assert [file.relative_to(tmp_path / "out").as_posix() for file in fetched.files] == [
        "likeness/me/h.png", "loras/me.safetensors"]
    assert fetched.files[1].read_bytes() == b"lora"
    assert fetched.left == ("/elsewhere/output/s.json",)


def test_a_picture_that_was_removed_since_keeps_nothing_else_and_is_told(web, tmp_path, monkeypatch,
                                                                         capsys):
    here = tmp_path / "loras" / "me.safetensors"
    here.parent.mkdir()
    here.write_bytes(b"lora")
    pictures = [{"filename": name, "subfolder": "likeness/me", "type": "output"}
                for name in ("a.png", "h.png")]
    run = Run("id", {"save": {"images": pictures},
                     "train": {"text": [json.dumps({"files": {"lora": str(here)}})]}}, 1.0)
    out = tmp_path / "out"
    fetched = fetch(Client(web), run, out)
    assert fetched.gone == ("likeness/me/a.png",)
    assert {path.name for path in fetched.files} == {"h.png", "me.safetensors"}
    monkeypatch.setattr(queue, "run_with_progress", lambda client, prompt, patience: run)
    with pytest.raises(Problem, match="1 of the pictures are gone .*likeness/me/a.png.*removed"):
        queue._run(Client(web), queue.Request(tmp_path / "w.json", [], None, out, web), {}, {}, [],
                   [])
    assert "h.png" in capsys.readouterr().out


def _folders_run(base):
    """A run that saved a set of photos, exported one and has a folder of its own; no pictures."""
    for file in ("set/likeness_photos.json", "set/10_ohwx/a.png", "export/train.toml", "own/a.png"):
        path = base / "output" / "likeness" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file)
    place = base / "output" / "likeness"
    return Run("id", {name: {"text": [json.dumps({"folder": str(place / name), **more})]}
                      for name, more in (("set", {"load_as": "output/likeness/set"}),
                                         ("export", {"script": "train.py"}), ("own", {}))}, 1.0)


def test_a_saved_set_of_a_server_on_this_machine_is_copied_and_other_folders_are_named(
        web, tmp_path):
    run, out = _folders_run(tmp_path), tmp_path / "out"
    fetched = fetch(Client(web), run, out)
    assert fetched.folders == (out / "likeness" / "set",)
    assert {path.relative_to(out).as_posix(): path.read_text()
            for path in out.rglob("*") if path.is_file()} == {
        f"likeness/{file}": file for file in ("set/likeness_photos.json", "set/10_ohwx/a.png")}
    place = tmp_path / "output" / "likeness"
    assert fetched.folders_left == (str(place / "export"), str(place / "own"))


def test_a_saved_set_of_a_server_elsewhere_or_that_is_not_here_is_named(web, tmp_path):
    run, out = _folders_run(tmp_path), tmp_path / "out"
    elsewhere = fetch(Client("http://192.0.2.1:8188"), run, out)
    assert elsewhere.folders == () and len(elsewhere.folders_left) == 3
    gone = Run("id", {"1": {"text": [json.dumps({"folder": "/gone/set", "load_as": "set"})]}}, 1.0)
    assert fetch(Client(web), gone, out).folders_left == ("/gone/set",)
    assert not out.exists()


def test_a_saved_set_that_lies_where_it_is_wanted_stays_as_it_is(web, tmp_path):
    run, out = _folders_run(tmp_path), tmp_path / "output"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert fetch(Client(web), run, out).folders == (out / "likeness" / "set",)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_web_server_that_is_no_comfyui_is_one_sentence(web):
    with pytest.raises(Problem, match="does not answer as ComfyUI does"):
        Client(web).require_comfyui()


def test_a_file_that_cannot_be_written_leaves_nothing(web, tmp_path):
    (tmp_path / "h.png").mkdir()
    with pytest.raises(Problem, match="h.png could not be written"):
        Client(web).download(FileReference("h.png"), tmp_path / "h.png")
    assert [path.name for path in tmp_path.iterdir()] == ["h.png"]


def test_a_photo_that_vanished_is_named(web, tmp_path):
    with pytest.raises(Problem, match="gone.jpg could not be read: No such file"):
        Client(web).upload(tmp_path / "gone.jpg", "x")


def test_a_server_that_is_not_there_is_one_sentence():
    with pytest.raises(Problem, match="No ComfyUI server answers on http://127.0.0.1"):
        runs.run(Client(f"http://127.0.0.1:{free_port()}"), PROMPT)


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
