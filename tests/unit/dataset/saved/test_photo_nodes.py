"""The nodes from photos to a subject, called as the executor calls them."""

from __future__ import annotations

import json

import folder_paths
import numpy as np
import pytest
import torch
from likeness.nodes import runtime
from likeness.nodes.dataset.curate.nodes import LikenessCuratePhotos
from likeness.nodes.dataset.nodes import NODES
from likeness.nodes.dataset.saved.load_nodes import LikenessLoadPhotos
from likeness.nodes.dataset.subject.nodes import LikenessSubject
from likeness.nodes.errors import LikenessError
from likeness.nodes.media.images import read_photo, to_uint8
from PIL import Image

CURATE = {"min_face": 128, "min_sharpness": 40.0, "soft_sharpness": 100.0,
          "several_faces": "reject", "max_distance": 0.58, "duplicate_bits": 10}
SUBJECT = {"name": "me", "trigger": "ohwx", "class_noun": "person", "held_out": 1,
           "include_unsure": False}


@pytest.fixture(autouse=True)
def host(monkeypatch, tmp_path, folder):
    """The host's folders; the input directory holds the folder `photos`."""
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    with torch.inference_mode():
        yield tmp_path


def load(folder: str = "", files: str = ""):
    return LikenessLoadPhotos.execute(folder, files).result[0]


def test_the_path_from_a_folder_to_a_subject(host):
    photos, count, text = LikenessLoadPhotos.execute("photos", "").result
    assert count == 3 and len(json.loads(text)["photos"]) == 3
    judged, sheet, report, kept = LikenessCuratePhotos.execute(photos, **CURATE).result
    assert kept == 3 and sheet.ndim == 4 and sheet.shape[-1] == 3 and sheet.max() <= 1
    subject, sheet, text = LikenessSubject.execute(judged, **SUBJECT).result
    assert len(subject.references) == 2 and json.loads(text)["trigger"] == "ohwx"
    assert sheet.dtype == torch.float32


def test_the_curation_report_and_its_sheet_are_also_files(host):
    result = LikenessCuratePhotos.execute(load("photos"), **CURATE)
    data = json.loads(result.result[2])
    file, sheet = sorted((host / "output" / "likeness").iterdir())
    assert np.array_equal(read_photo(sheet), to_uint8(result.result[1][0]))
    assert data["report"] == str(file) and json.loads(file.read_text()) == data
    assert file.name.startswith("curation-") and file.suffix == ".json"


def test_sheet_and_report_are_shown_in_the_history(host):
    for result in (LikenessCuratePhotos.execute(load("photos"), **CURATE),
                   LikenessSubject.execute(
                       LikenessCuratePhotos.execute(load("photos"), **CURATE).result[0],
                       **SUBJECT)):
        (shown,) = result.ui["images"]
        assert (host / shown["type"] / shown["subfolder"] / shown["filename"]).is_file()
        assert json.loads(result.ui["text"][0])


def test_a_full_disk_leaves_no_partial_report(host, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(LikenessError, match="No space left"):
        LikenessCuratePhotos.execute(load("photos"), **CURATE)
    assert list((host / "output" / "likeness").iterdir()) == []


def test_an_output_folder_that_cannot_be_made_is_one_sentence(host):
    (host / "output").mkdir()
    (host / "output" / "likeness").write_text("a file where the folder should be")
    with pytest.raises(LikenessError, match="could not be written"):
        LikenessCuratePhotos.execute(load("photos"), **CURATE)
    assert [path.name for path in (host / "output").iterdir()] == ["likeness"]


def test_uploaded_files_are_taken_in_the_order_given(host):
    lines = "photos/good_obama3.jpg\n\n  photos/good_obama.jpg  \nphotos/good_obama3.jpg\n"
    names = [photo.name for photo in load(files=lines).photos]
    assert names == ["photos/good_obama3.jpg", "photos/good_obama.jpg"]


@pytest.mark.parametrize(("folder_name", "files", "words"), [
    ("", "", "both are empty"),
    ("photos", "photos/good_obama.jpg", "both are given"),
    ("nowhere", "", "does not exist"),
    ("../..", "", "lies outside"),
    ("/etc", "", "lies outside"),
    ("", "photos/none.jpg", "does not exist"),
    ("", "../secret.jpg", "lies outside"),
])
def test_useless_widgets_are_told_before_and_while_running(folder_name, files, words):
    assert words in LikenessLoadPhotos.validate_inputs(folder_name, files)
    with pytest.raises(LikenessError, match=words):
        LikenessLoadPhotos.execute(folder_name, files)


def test_good_and_linked_widgets_pass_the_check():
    assert LikenessLoadPhotos.validate_inputs("photos", "") is True
    assert LikenessLoadPhotos.validate_inputs(None, "") is True


def test_the_fingerprint_changes_with_the_folder(host):
    first = LikenessLoadPhotos.fingerprint_inputs("photos", "")
    assert LikenessLoadPhotos.fingerprint_inputs("photos", "") == first
    Image.new("RGB", (8, 8)).save(host / "photos" / "new.png")
    assert LikenessLoadPhotos.fingerprint_inputs("photos", "") != first
    unknown = LikenessLoadPhotos.fingerprint_inputs(None, "")
    assert unknown != unknown, "NaN: run again"


def test_nothing_usable_still_gives_the_sheet_and_then_one_sentence(host):
    judged, sheet, report, kept = LikenessCuratePhotos.execute(
        load("photos"), **{**CURATE, "min_face": 2000}).result
    assert kept == 0 and sheet.shape[0] == 1
    assert json.loads(report)["by_rule"]["too_small"] == 3
    with pytest.raises(LikenessError, match="too_small 3.*min_face"):
        LikenessSubject.execute(judged, **SUBJECT)


def test_an_unknown_policy_is_refused(host):
    with pytest.raises(LikenessError, match="several_faces"):
        LikenessCuratePhotos.execute(load("photos"), **{**CURATE, "several_faces": "guess"})


def test_cancel_passes_through(host, monkeypatch):
    def cancel():
        raise runtime.Interrupted

    photos = load("photos")
    monkeypatch.setattr(runtime, "throw_if_cancelled", cancel)
    with pytest.raises(runtime.Interrupted):
        LikenessCuratePhotos.execute(photos, **CURATE)


def test_the_limit_of_strangers_moves_with_its_input(host, assets):
    (host / "photos" / "guest.jpg").write_bytes((assets / "biden2.jpg").read_bytes())
    strict = LikenessCuratePhotos.execute(load("photos"), **CURATE).result[3]
    loose = LikenessCuratePhotos.execute(load("photos"), **{**CURATE, "max_distance": 1.5})
    assert (strict, loose.result[3]) == (3, 4)


def test_the_room_offers_its_nodes():
    ids = [node.GET_SCHEMA().node_id for node in NODES]
    assert ids == ["LikenessLoadPhotos", "LikenessCuratePhotos", "LikenessSelectPhotos",
                   "LikenessCoach", "LikenessCropPhotos", "LikenessCaptionPhotos",
                   "LikenessSavePhotos", "LikenessSubject", "LikenessPrepareTraining"]
