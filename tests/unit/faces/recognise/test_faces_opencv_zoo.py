"""OpenCV's YuNet and SFace run from the user's folder and get the colours they were made for."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
from likeness.nodes.errors import FaceNotFoundError, LikenessError, MissingModelError
from likeness.nodes.faces.recognise import backends, near, opencv_zoo
from likeness.nodes.faces.recognise.embed import embed, similarity
from likeness.nodes.faces.turned import turn_face

pytest.importorskip("onnx")
from launcher.tiny.opencv_zoo import make_files  # noqa: E402

PEOPLE = {"obama": "Obama", "obama3": "Obama", "biden": "Biden", "biden2": "Biden",
          "astronaut": "Collins"}
FILES = backends.backend("sface").files


@pytest.fixture(scope="session")
def zoo(tmp_path_factory) -> Path:
    """Hand-made files of the right names."""
    folder = tmp_path_factory.mktemp("zoo")
    make_files(folder, backends.VENDORED, *FILES)
    return folder


@pytest.fixture
def root(monkeypatch, tmp_path) -> Path:
    """An empty models/opencv_zoo of the host."""
    monkeypatch.setattr(backends, "_roots", lambda registry: [tmp_path / registry])
    opencv_zoo._models.cache_clear()
    yield tmp_path / "opencv_zoo"
    opencv_zoo._models.cache_clear()


def test_sface_tells_people_apart(root, zoo, seen):
    shutil.copytree(zoo, root)
    rows = {name: embed(*seen(name), "sface") for name in PEOPLE}
    same, different = [], []
    for a, b in itertools.combinations(PEOPLE, 2):
        alike = similarity(rows[a], rows[b], "sface")
        (same if PEOPLE[a] == PEOPLE[b] else different).append(alike)
    assert rows["obama"].shape == (128,) and rows["obama"].dtype == np.float32
    assert min(same) > max(different) + 0.01


def test_sface_gets_its_colours_in_opencvs_order(root, zoo, seen, monkeypatch):
    """The hand-made recogniser holds dlib's weights: right colours give nearly dlib's angles."""
    shutil.copytree(zoo, root)
    expected = embed(*seen("obama"), "dlib")
    right = similarity(embed(*seen("obama"), "sface"), expected, "sface")
    monkeypatch.setattr(near.Surroundings, "blue_first", property(lambda self: self.pixels))
    swapped = similarity(embed(*seen("obama"), "sface"), expected, "sface")
    assert right > 0.985 and swapped < right - 0.005


def test_a_face_on_its_side_gives_the_same_embedding(root, zoo, seen):
    shutil.copytree(zoo, root)
    pixels, face = seen("obama3")
    side = np.ascontiguousarray(np.rot90(pixels, 3))
    turned = embed(side, turn_face(face, 3, *pixels.shape[:2]), "sface")
    assert similarity(embed(pixels, face, "sface"), turned, "sface") > 0.995


def test_missing_files_are_named_with_folder_source_and_licence(root, seen):
    with pytest.raises(MissingModelError) as caught:
        embed(*seen("obama"), "sface")
    text = str(caught.value)
    known = backends.backend("sface")
    assert all(name in text for name in FILES)
    assert str(root) in text and known.source in text and known.licence in text


def test_a_damaged_file_is_named(root, seen):
    root.mkdir()
    for name in FILES:
        (root / name).write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(LikenessError, match="face_detection_yunet_2023mar"):
        embed(*seen("obama"), "sface")


def test_a_face_that_yunet_does_not_see_is_an_error(root, zoo, seen, monkeypatch):
    shutil.copytree(zoo, root)
    monkeypatch.setattr(opencv_zoo, "_SCORE", 0.95)  # the hand-made detector is sure to 0.9
    with pytest.raises(FaceNotFoundError, match="SFace"):
        embed(*seen("obama"), "sface")
