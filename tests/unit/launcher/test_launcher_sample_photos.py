"""The demo's ten photos."""

from __future__ import annotations

import hashlib

import pytest
from PIL import Image

from launcher.makers import sample_photos


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return sample_photos.write(tmp_path_factory.mktemp("photos"))


def test_there_are_ten_and_nothing_else_in_the_folder(written):
    folder = next(iter(written.values())).parent
    assert sorted(path.name for path in folder.iterdir()) == sorted(written)
    assert len(written) == 10


def test_writing_them_again_gives_the_same_bytes(written, tmp_path):
    again = sample_photos.write(tmp_path)
    for name, path in written.items():
        digest = [hashlib.sha256(file.read_bytes()).digest() for file in (path, again[name])]
        assert digest[0] == digest[1], name


def test_one_is_stored_on_its_side_and_says_so(written):
    with Image.open(written["03_phone_on_its_side.jpg"]) as picture:
        assert picture.width > picture.height
        assert picture.getexif()[0x0112] == 6
