"""InsightFace packs run from the user's folder, never download, and are named when absent."""

from __future__ import annotations

import itertools
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from likeness.nodes.errors import LikenessError, MissingModelError
from likeness.nodes.faces.recognise import backends, insight
from likeness.nodes.faces.recognise.embed import embed, similarity
from likeness.nodes.faces.turned import turn_face

pytest.importorskip("insightface")
onnx = pytest.importorskip("onnx")
from launcher.tiny.insightface import make_pack  # noqa: E402

PEOPLE = {"obama": "Obama", "obama3": "Obama", "biden": "Biden", "biden2": "Biden",
          "astronaut": "Collins"}


@pytest.fixture(scope="session")
def pack(tmp_path_factory) -> Path:
    """A hand-made buffalo_l."""
    folder = tmp_path_factory.mktemp("packs") / "models" / "buffalo_l"
    make_pack(folder, backends.VENDORED, *backends.backend("buffalo_l").files)
    return folder


@pytest.fixture
def root(monkeypatch, tmp_path) -> Path:
    """An empty models/insightface of the host, with the network cut off."""
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(backends, "_roots", lambda registry: [tmp_path])
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    insight._models.cache_clear()
    yield tmp_path
    insight._models.cache_clear()


def test_a_pack_tells_people_apart(root, pack, seen):
    shutil.copytree(pack, root / "models" / "buffalo_l")
    rows = {name: embed(*seen(name), "buffalo_l") for name in PEOPLE}
    same, different = [], []
    for a, b in itertools.combinations(PEOPLE, 2):
        alike = similarity(rows[a], rows[b], "buffalo_l")
        (same if PEOPLE[a] == PEOPLE[b] else different).append(alike)
    assert rows["obama"].shape == (512,)
    assert min(same) > max(different) + 0.01


def test_the_pack_gets_blue_first_pixels(root, pack, seen, monkeypatch):
    """The hand-made recogniser holds dlib's weights: right colours give nearly dlib's angles."""
    shutil.copytree(pack, root / "models" / "buffalo_l")
    pixels, face = seen("obama")
    right = embed(pixels, face, "buffalo_l")
    swapped = embed(np.ascontiguousarray(pixels[..., ::-1]), face, "buffalo_l")
    spread = np.linalg.qr(np.random.default_rng(0).normal(size=(512, 128)))[0].T
    expected = embed(pixels, face, "dlib") @ spread
    assert similarity(right, expected, "buffalo_l") > 0.985
    assert similarity(swapped, expected, "buffalo_l") < similarity(right, expected, "buffalo_l")


def test_antelopev2_is_found_in_the_folder_that_its_zip_makes(root, pack):
    nested = root / "models" / "antelopev2" / "antelopev2"
    nested.mkdir(parents=True)
    for old, new in zip(sorted(pack.iterdir()), sorted(backends.backend("antelopev2").files,
                                                       reverse=True), strict=True):
        shutil.copy(old, nested / new)
    assert [path.name for path in backends.require("antelopev2")] == [
        "scrfd_10g_bnkps.onnx", "glintr100.onnx"]
    assert backends.require("antelopev2")[0].parent == nested


@pytest.mark.parametrize("name", ["buffalo_l", "antelopev2", "buffalo_s", "auraface"])
def test_a_missing_pack_names_files_folder_source_and_licence(root, seen, name):
    known = backends.backend(name)
    with pytest.raises(MissingModelError) as caught:
        embed(*seen("obama"), name)
    text = str(caught.value)
    assert all(file in text for file in known.files)
    assert str(root / known.folder) in text and known.licence in text and known.source in text


def test_half_a_pack_is_a_missing_pack(root, pack):
    folder = root / "models" / "buffalo_l"
    folder.mkdir(parents=True)
    shutil.copy(pack / "w600k_r50.onnx", folder)
    with pytest.raises(MissingModelError, match=r"det_10g\.onnx"):
        backends.require("buffalo_l")


def test_a_detector_that_sees_another_face_is_an_error_not_another_person(root, pack, seen,
                                                                          monkeypatch):
    shutil.copytree(pack, root / "models" / "buffalo_l")
    detector, recogniser = insight._models("buffalo_l", backends.require("buffalo_l"))
    elsewhere = np.array([[0.0, 0.0, 20.0, 20.0, 0.9]], np.float32)
    monkeypatch.setattr(detector, "detect",
                        lambda *_, **__: (elsewhere, np.zeros((1, 5, 2), np.float32)))
    with pytest.raises(LikenessError, match="does not find the face"):
        embed(*seen("obama"), "buffalo_l")


def test_a_file_with_another_content_than_published_is_logged(root, pack, caplog):
    folder = root / "models" / "buffalo_l"
    shutil.copytree(pack, folder)
    with caplog.at_level("WARNING", logger="likeness"):
        insight._models("buffalo_l", backends.require("buffalo_l"))
    assert "w600k_r50.onnx is not the published file" in caplog.text


def test_a_face_on_its_side_gives_the_same_embedding(root, pack, seen):
    shutil.copytree(pack, root / "models" / "buffalo_l")
    pixels, face = seen("obama3")
    upright = embed(pixels, face, "buffalo_l")
    side = np.ascontiguousarray(np.rot90(pixels))
    turned = embed(side, turn_face(face, 1, *pixels.shape[:2]), "buffalo_l")
    assert similarity(upright, turned, "buffalo_l") > 0.995


def test_auraface_is_given_our_points_and_needs_no_detector(root, pack, seen):
    folder = root / "models" / "auraface"
    folder.mkdir(parents=True)
    shutil.copy(pack / "w600k_r50.onnx", folder / "glintr100.onnx")
    rows = {name: embed(*seen(name), "auraface") for name in ("obama", "obama3", "biden")}
    same = similarity(rows["obama"], rows["obama3"], "auraface")
    other = similarity(rows["obama"], rows["biden"], "auraface")
    spread = np.linalg.qr(np.random.default_rng(0).normal(size=(512, 128)))[0].T
    assert same > other + 0.02
    assert similarity(rows["obama"], embed(*seen("obama")) @ spread, "auraface") > 0.985
