"""The score node: files, report, sheet and what the history shows."""

from __future__ import annotations

import json
from pathlib import Path

import folder_paths
import numpy as np
import pytest
import torch
from likeness.nodes import files
from likeness.nodes.errors import LikenessError
from likeness.nodes.media.images import to_image
from likeness.nodes.scoring.score import report as reports
from likeness.nodes.scoring.score.nodes import LikenessScore
from likeness.nodes.scoring.score.sheet import CELL, HEADER, columns_for, sheet_size
from PIL import Image

NAMES = ("nobody", "biden2", "obama3", "obama")


@pytest.fixture
def output(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    return tmp_path


@pytest.fixture
def batch(pictures) -> torch.Tensor:
    return to_image(np.stack([pictures[name] for name in NAMES]))


def score(images, subject, **changes):
    inputs = {"backend": "dlib", "several_faces": "largest", "max_yaw": 35.0,
              "save_prefix": "likeness/%subject%/headshot", **changes}
    with torch.inference_mode():
        output = LikenessScore.execute(images, subject, **inputs)
    sheet, ranked, accepted, text, report = output.args
    return sheet, ranked, accepted, json.loads(text), report, output.ui


def test_every_picture_is_in_the_report_best_first(output, batch, obama):
    _, ranked, accepted, data, report, _ = score(batch, obama)
    assert [entry["index"] for entry in data["images"]] == [3, 2, 1, 0]
    assert [entry["rank"] for entry in data["images"]] == [1, 2, 3, 4]
    assert torch.equal(ranked, batch[[3, 2, 1, 0]])
    assert accepted == report.accepted == data["counts"]["keep"] >= 1
    assert sum(data["counts"].values()) == len(NAMES)


def test_the_report_gives_null_and_never_a_number_without_a_face(output, batch, obama):
    nobody = score(batch, obama)[3]["images"][-1]
    assert nobody["status"] == "no_face"
    assert nobody["verdict"] == "reject"
    assert {nobody[key] for key in ("score", "score_held_out", "percentile", "face_box", "yaw")
            } == {None}


def test_the_report_says_what_was_measured_with_what(output, batch, obama):
    data = score(batch, obama)[3]
    assert (data["subject"], data["trigger"], data["backend"]["id"]) == ("Obama", "ohwx", "dlib")
    named = [photo["name"] for kind in ("references", "held_out") for photo in data["photos"][kind]]
    assert named == [photo.name for photo in obama.photos]
    assert data["spread"]["photos"] == 4
    limits = data["thresholds"]
    assert limits["reject_below"] < limits["keep_from"] < data["spread"]["median"]


def test_the_ranked_pictures_are_saved_and_named_in_the_report(output, batch, obama):
    entries = score(batch, obama)[3]["images"]
    files = [Path(entry["file"]) for entry in entries]
    assert all(file.is_absolute() and file.parent == output / "likeness" / "Obama"
               for file in files)
    for file, place in zip(files, (3, 2, 1, 0), strict=True):
        saved = np.asarray(Image.open(file))
        assert np.abs(saved - batch[place].numpy() * 255).max() < 1.01


def test_an_empty_prefix_saves_no_pictures_but_the_report(output, batch, obama):
    data = score(batch, obama, save_prefix="")[3]
    assert all(entry["file"] is None for entry in data["images"])
    assert {path.name for path in (output / "likeness" / "Obama").iterdir()} == {
        "scores_00001.json", "scores_00001.png"}


def test_a_prefix_outside_the_output_folder_is_an_error_and_nothing_is_written(
        output, batch, obama):
    with pytest.raises(LikenessError, match="outside"):
        score(batch, obama, save_prefix="../headshot")
    assert not list(output.iterdir())


def test_report_and_sheet_lie_where_the_report_says(output, batch, obama):
    sheet, _, _, data, report, _ = score(batch, obama)
    assert json.loads(Path(data["report"]).read_text()) == data == report.data
    picture = Image.open(data["sheet"])
    assert picture.size == sheet_size(len(NAMES)) == (sheet.shape[2], sheet.shape[1])


def test_a_second_run_leaves_the_first_report_alone(output, batch, obama):
    first, second = (score(batch, obama)[3] for _ in range(2))
    assert first["report"] != second["report"]
    assert Path(first["report"]).is_file() and Path(second["report"]).is_file()
    assert {entry["file"] for entry in first["images"]}.isdisjoint(
        entry["file"] for entry in second["images"])


def test_the_history_lists_the_sheet_and_the_saved_pictures(output, batch, obama):
    data, _, shown = score(batch, obama)[3:]
    places = [output / place["subfolder"] / place["filename"] for place in shown["images"]]
    assert {place["type"] for place in shown["images"]} == {"output"}
    assert [str(path) for path in places] == [
        data["sheet"], *(entry["file"] for entry in data["images"])]
    assert json.loads(shown["text"][0]) == data


def test_the_sheet_shows_each_picture_in_its_place(output, batch, obama):
    sheet = score(batch, obama)[0][0].numpy() * 255
    best = np.asarray(Image.fromarray((batch[3].numpy() * 255).astype(np.uint8)).resize(
        (CELL, CELL), Image.Resampling.LANCZOS), np.float32)
    left, top = 16, HEADER
    inner = slice(40, CELL - 40)
    shown = sheet[top:top + CELL, left:left + CELL][inner, inner]
    assert np.median(np.abs(shown - best[inner, inner])) < 2


def test_nothing_to_keep_is_a_ranking_like_any_other(output, batch, obama):
    _, ranked, accepted, data, _, _ = score(batch[:2], obama)
    assert (accepted, len(ranked)) == (0, 2)
    assert [entry["verdict"] for entry in data["images"]] == ["reject", "reject"]


@pytest.mark.parametrize("count, columns", [(1, 4), (6, 4), (12, 5), (500, 8)])
def test_the_sheet_grows_with_the_pictures(count, columns):
    assert columns_for(count) == columns
    assert sheet_size(count)[0] == 16 + columns * (CELL + 16)


def test_a_report_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(LikenessError, match="No space left"):
        reports.write_json(tmp_path / "report.json", {"a": 1})
    assert not list(tmp_path.iterdir())


def test_pictures_that_cannot_be_saved_leave_nothing_behind(output, batch, obama, monkeypatch):
    real, count = Image.Image.save, iter(range(100))

    def save(picture, target, *args, **kwargs):
        real(picture, target, *args, **kwargs)
        if next(count) == 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(LikenessError, match="No space left"):
        score(batch, obama)
    assert not list((output / "likeness" / "Obama").iterdir())
