"""A batch of people through a real server: failures stop nobody, what is done stays done."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import pytest

from launcher.client import runs
from launcher.client.api import Client
from launcher.client.refusals import Unreachable
from launcher.command_line import main
from launcher.demo import prompts
from launcher.makers import sample_photos
from launcher.people import batch
from launcher.people.batch import RUNNING, Batch
from launcher.people.belongings import Places, find, traces
from launcher.people.folders import list_people
from launcher.people.forget import run_forget
from launcher.problems import Problem

# Small sizes and the test host's models; no control, no face adapter.
SMALL = {
    "Prepare.resolution": 192, "Recipe.steps": 3, "Picture size.width": 192,
    "Picture size.height": 240, "Picture size.batch_size": 2, "Sample.steps": 4}


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    """The flagship workflow without control, as a user's own file."""
    prompt = prompts.with_checkpoint("tiny_sd15.safetensors", None)
    file = tmp_path_factory.mktemp("workflow") / "small.json"
    file.write_text(json.dumps(prompt))
    return file


@pytest.fixture
def folder(tmp_path):
    """Ann and Ben with photos enough; Cid has one, which makes no subject."""
    place = tmp_path / "people"
    for name in ("Ann", "Ben", "Cid"):
        (place / name).mkdir(parents=True)
    sample_photos.write(place / "Ann")
    for file in (place / "Ann").iterdir():
        shutil.copy(file, place / "Ben")
    shutil.copy(sorted((place / "Ann").iterdir())[0], place / "Cid")
    (place / "Ben" / "settings.txt").write_text("# a woman\nSubject.class_noun=woman\n")
    return place


def command(host, folder, workflow, out):
    settings = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    return ["people", str(folder), "--out", str(out), "--workflow", str(workflow), *settings,
            "--server", host.client.url]


def subjects(host):
    """The names of the subjects that a server has been asked for, in order."""
    asked = sorted((record["prompt"] for record in host.client.get("/history").values()),
                   key=lambda prompt: prompt[0])
    return [node["inputs"]["name"] for prompt in asked for node in prompt[2].values()
            if node["class_type"] == "LikenessSubject"]


def test_a_failure_stops_nobody_and_what_is_done_stays_done(host, folder, workflow, tmp_path,
                                                            capfd):
    out, before = tmp_path / "out", len(subjects(host))
    assert main(command(host, folder, workflow, out)) == 8
    said, complained = capfd.readouterr()
    assert "Cid: `Subject` failed: " in complained
    assert "1 of 3 people failed (Cid)" in complained
    state = json.loads((out / "people.json").read_text("utf-8"))
    assert {name: entry["status"] for name, entry in state.items()} == {
        "Ann": "done", "Ben": "done", "Cid": "failed"}
    for name in ("Ann", "Ben"):
        assert state[name]["figures"]["pictures"] == 2
        assert all((out / file).is_file() for file in state[name]["files"])
        assert any(file.endswith(".safetensors") for file in state[name]["files"])
    table = said.splitlines()[-4:]
    assert [line.split()[:2] for line in table] == [
        ["person", "status"], ["Ann", "done"], ["Ben", "done"], ["Cid", "failed"]]
    assert subjects(host)[before:] == ["Ann", "Ben", "Cid"]

    for file in (folder / "Ann").iterdir():
        shutil.copy(file, folder / "Cid")
    assert main(command(host, folder, workflow, out)) == 0
    said, complained = capfd.readouterr()
    assert complained == "" and "[1/3] Ann: done before" in said
    assert subjects(host)[before:] == ["Ann", "Ben", "Cid", "Cid"]


def test_settings_of_a_person_alone_reach_that_person(host, folder, workflow, tmp_path):
    people = list_people(folder)
    prepared = Batch(host.client, json.loads(workflow.read_text()), (), tmp_path / "out")
    nouns = {person.name: prepared._prompt_of(person)["subject"]["inputs"]["class_noun"]
             for person in people}
    assert nouns == {"Ann": "person", "Ben": "woman", "Cid": "person"}


def test_a_batch_that_was_cut_off_waits_for_what_it_has_queued(host, folder, workflow, tmp_path,
                                                               monkeypatch):
    out, before = tmp_path / "out", len(subjects(host))
    prompt = json.loads(workflow.read_text())
    settings = tuple(f"{name}={value}" for name, value in SMALL.items())
    ann = list_people(folder)[:1]

    class Killed(BaseException):
        pass

    def killed_after_queuing(client, given, on_event, patience, on_queued):
        on_queued(client.queue(given))
        raise Killed

    with monkeypatch.context() as cut:
        cut.setattr(batch.runs, "run", killed_after_queuing)
        with pytest.raises(Killed):
            Batch(host.client, prompt, settings, out).run(ann)
    state = json.loads((out / "people.json").read_text("utf-8"))
    assert state["Ann"]["status"] == RUNNING
    entries = Batch(Client(host.client.url), prompt, settings, out).run(ann)
    assert entries["Ann"].status == "done" and entries["Ann"].figures["pictures"] == 2
    assert subjects(host)[before:] == ["Ann"]


def test_a_server_that_goes_away_ends_the_batch_and_keeps_who_is_done(host, folder, workflow,
                                                                      tmp_path, monkeypatch):
    prompt, out = json.loads(workflow.read_text()), tmp_path / "out"
    settings = tuple(f"{name}={value}" for name, value in SMALL.items())
    run = runs.run

    def gone_at_ben(client, given, on_event, **fields):
        if given["subject"]["inputs"]["name"] == "Ben":
            raise Unreachable("No ComfyUI server answers.")
        return run(client, given, on_event, **fields)

    monkeypatch.setattr(batch.runs, "run", gone_at_ben)
    with pytest.raises(Unreachable):
        Batch(host.client, prompt, settings, out).run(list_people(folder))
    state = json.loads((out / "people.json").read_text("utf-8"))
    assert state["Ann"]["status"] == "done" and "Cid" not in state


def made_unique(folder, salt):
    """Change every file without changing what it shows, so that nobody else has its hash."""
    for file in folder.glob("*.jpg"):
        file.write_bytes(file.read_bytes() + salt)


def test_a_person_is_forgotten_everywhere_and_nobody_else(host, folder, workflow, tmp_path, capfd):
    out = tmp_path / "out"
    shutil.rmtree(folder / "Cid")
    for name in ("Ann", "Ben"):
        made_unique((folder / name).rename(folder / f"{name} forgotten"), os.urandom(8))
    assert main(command(host, folder, workflow, out)) == 0
    own = host.input / "own photos"
    shutil.copytree(folder / "Ann forgotten", own)
    places = Places(host.input, host.output, (host.folder / "temp",), host.base / "models")
    ann, ben = find("Ann forgotten", places), find("Ben forgotten", places)
    assert ann.hashes and ben.hashes and not ann.hashes & ben.hashes
    assert traces(ann, places), "a search for the photos finds them before"

    run_forget("Ann forgotten", places, out, sure=False)
    assert "Nothing was removed; add --yes" in capfd.readouterr().out
    assert all(path.exists() for path in (*ann.folders, *ann.files))

    run_forget("Ann forgotten", places, out, sure=True)
    assert "Removed" in capfd.readouterr().out
    hashes = {hashlib.sha256(file.read_bytes()).hexdigest()
              for file in (folder / "Ann forgotten").iterdir()}
    assert ann.hashes <= hashes
    for room in (host.input, host.output, host.folder / "temp"):
        for file in (path for path in room.rglob("*") if path.is_file()):
            data = file.read_bytes()
            if own not in file.parents:
                assert hashlib.sha256(data).hexdigest() not in hashes, file
            assert not any(digest.encode() in data for digest in hashes), file
            assert b"Ann forgotten" not in data and "Ann_forgotten" not in str(file), file
    assert sorted(path.name for path in own.iterdir()) == sorted(
        path.name for path in (folder / "Ann forgotten").iterdir()), "a user's own photos stay"
    assert not (out / "Ann forgotten").exists()
    assert list(json.loads((out / "people.json").read_text("utf-8"))) == ["Ben forgotten"]
    assert all(path.exists() for path in ben.folders)
    assert all(path.exists() for path in ben.files if (host.folder / "temp") not in path.parents)
    with pytest.raises(Problem, match="Nothing of `Ann forgotten` is in"):
        run_forget("Ann forgotten", places, out, sure=True)
