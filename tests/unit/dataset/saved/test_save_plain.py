"""A saved set's pictures are what a trainer sees that knows neither EXIF nor colour profiles."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import icc_profiles
import numpy as np
import pytest
from likeness.nodes.dataset.files.load import read_record
from likeness.nodes.dataset.saved.reading import read_saved
from likeness.nodes.dataset.saved.save import SaveSettings, save
from likeness.nodes.faces.detect import find_face
from likeness.nodes.media.images import read_photo
from likeness.nodes.quality.look import look
from likeness.nodes.sockets import Photo, PhotoSet, Verdict
from PIL import Image

SETTINGS = SaveSettings("anna", "ohwx", "man")
LISTED = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}  # what sd-scripts lists


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


# File name -> how it is stored, and whether a plain copy is right.
FILES = {
    "turned.jpg": ({"format": "JPEG", "exif": _turned()}, False),
    "scan.tif": ({"format": "TIFF"}, False),
    "wide.png": ({"format": "PNG", "icc_profile": icc_profiles.profile("Display P3")}, False),
    "moving.gif": ({"format": "GIF"}, False),
    "plain.jfif": ({"format": "JPEG"}, True),
    "plain.JPG": ({"format": "JPEG"}, True),
    "bare": ({"format": "PNG"}, True),
}


@pytest.fixture(scope="module")
def portrait(assets) -> Image.Image:
    with Image.open(assets / "obama3.jpg") as picture:
        return picture.convert("RGB").reduce(2)


@pytest.fixture(scope="module")
def face(assets):
    return find_face(read_photo(assets / "obama3.jpg"))


def _photo(path: Path, portrait: Image.Image, options) -> Photo:
    portrait.save(path, **options)
    record = read_record(path, path.name)
    return dataclasses.replace(record, verdict=Verdict.KEEP, caption="ohwx man")


@pytest.mark.parametrize("name", list(FILES))
def test_what_a_plain_reader_sees_is_what_was_judged(portrait, face, tmp_path, name):
    options, copied = FILES[name]
    photo = _photo(tmp_path / name, portrait, options)
    mask = Image.linear_gradient("L").resize((photo.width, photo.height))
    mask.save(tmp_path / "mask.png")
    photo = dataclasses.replace(photo, face=face, mask=tmp_path / "mask.png")
    before, judged = (tmp_path / name).read_bytes(), read_photo(tmp_path / name)
    place, _ = save(PhotoSet((photo,), "x"), SETTINGS, tmp_path / "out", lambda done: None)
    (saved,) = [path for path in (place / SETTINGS.folder).iterdir() if path.suffix != ".txt"]
    assert saved.suffix.lower() in LISTED and (tmp_path / name).read_bytes() == before
    with Image.open(saved) as plain, Image.open(place / "masks" / f"{saved.stem}.png") as weight:
        assert np.array_equal(np.asarray(plain.convert("RGB")), judged)
        assert weight.size == plain.size
    assert (saved.read_bytes() == before) == copied


def test_a_turned_photo_comes_back_with_all_that_was_known(portrait, tmp_path):
    # Stored on its side, so that it is upright when it is read.
    photo = _photo(tmp_path / "a.jpg", portrait.transpose(Image.Transpose.ROTATE_90),
                   {"format": "JPEG", "exif": _turned(), "quality": 95})
    seen = look(photo.file, photo.sha256)
    assert seen.face is not None
    photo = dataclasses.replace(photo, face=seen.face, measures=seen.measures,
                                embedding=seen.embedding)
    place, _ = save(PhotoSet((photo,), "x"), SETTINGS, tmp_path / "out", lambda done: None)
    loaded = read_saved(place, "x", lambda done: None)
    (back,) = loaded.photos.photos
    assert not loaded.notes and back.verdict is Verdict.KEEP and back.caption == photo.caption
    assert back.sha256 == hashlib.sha256(back.file.read_bytes()).hexdigest() != photo.sha256
    assert (back.width, back.height) == (photo.width, photo.height) == portrait.size
    assert np.array_equal(back.face.landmarks, photo.face.landmarks)
    assert np.array_equal(back.embedding, photo.embedding) and back.measures == photo.measures
    assert np.array_equal(read_photo(back.file), read_photo(photo.file))


def test_photos_that_do_not_train_are_left_as_they_are(portrait, face, tmp_path):
    photo = dataclasses.replace(_photo(tmp_path / "a.tif", portrait, {"format": "TIFF"}),
                                verdict=Verdict.REJECT)
    kept = _photo(tmp_path / "b.png", portrait, {"format": "PNG"})
    kept = dataclasses.replace(kept, face=face)
    place, _ = save(PhotoSet((photo, kept), "x"), SETTINGS, tmp_path / "out", lambda done: None)
    assert (place / "left_out" / "a.tif").read_bytes() == (tmp_path / "a.tif").read_bytes()
