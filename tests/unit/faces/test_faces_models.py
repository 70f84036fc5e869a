"""The vendored files are complete, small, listed with their digests, and free of download code."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile

import pytest
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces import tasks
from likeness.nodes.faces.recognise import backends

FILES = sorted(path for path in backends.VENDORED.iterdir() if path.suffix != ".md")


def test_the_models_stay_under_thirty_five_megabytes():
    assert len(FILES) == 8
    assert sum(path.stat().st_size for path in FILES) < 35e6


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_model_is_listed_with_licence_and_digest(path):
    text = (backends.VENDORED / "LICENSES.md").read_text(encoding="utf-8")
    assert f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" in text
    assert f"| `{path.name}` |" in text


@pytest.mark.parametrize("id", ["dlib", "mobilefacenet"])
def test_the_registry_knows_the_digest_of_the_vendored_recognisers(id):
    (path,) = backends.require(id)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == backends.backend(id).sha256[path.name]


def test_what_is_known_of_the_second_recogniser_stands_wherever_a_judge_is_chosen():
    for text in (backends.choices_text(), backends.backend("mobilefacenet").licence,
                 backends.backend(backends.BOTH).licence,
                 (backends.VENDORED / "LICENSES.md").read_text(encoding="utf-8")):
        assert "MS-Celeb-1M" in text and "withdrawn" in text


def test_every_backend_says_what_it_costs():
    for known in backends.BACKENDS:
        assert known.licence and known.source and known.files
        assert known.commercial == ("non-commercial" not in known.licence)
    assert backends.ids()[0] == backends.BOTH and backends.backend(backends.BOTH).commercial


def test_an_unknown_recogniser_is_refused_with_the_choices():
    with pytest.raises(LikenessError, match="both, dlib, mobilefacenet, buffalo_l"):
        backends.backend("clip")


def test_the_full_range_bundle_differs_from_the_stock_one_by_the_detector_alone():
    stock = tasks.model_bytes("face_landmarker.task")
    detector = tasks.model_bytes("face_detector_full_range.tflite")
    swapped = zipfile.ZipFile(io.BytesIO(tasks.with_detector(stock, detector)))
    original = zipfile.ZipFile(io.BytesIO(stock))
    assert swapped.namelist() == original.namelist()
    for name in original.namelist():
        expected = detector if name == "face_detector.tflite" else original.read(name)
        assert swapped.read(name) == expected


def test_a_published_cut_comes_with_its_source():
    for known in backends.BACKENDS:
        assert (known.same_person is None) == (known.cut_source == "")
    assert backends.backend("sface").same_person == 0.363


def test_every_recogniser_outside_the_pack_says_where_its_files_go():
    assert backends.backend("sface").place == "models/opencv_zoo"
    assert backends.backend("auraface").place == "models/insightface/models/auraface"
    assert {known.id for known in backends.BACKENDS if not known.registry} == {
        "both", "dlib", "mobilefacenet"}


def test_the_tooltip_text_marks_exactly_the_non_commercial_recognisers():
    free, bound = backends.choices_text().split("NON-COMMERCIAL")
    for known in backends.BACKENDS:
        assert (known.id in re.findall(r"\w+", free)) == known.commercial
        assert (known.id in re.findall(r"\w+", bound)) == (not known.commercial)
