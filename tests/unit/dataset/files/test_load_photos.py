"""Photo files are listed in a stable order, turned upright, and never break the loader."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from likeness.nodes.dataset.files import load
from likeness.nodes.errors import LikenessError
from likeness.nodes.media import decoding
from likeness.nodes.media.images import read_photo
from PIL import Image

ORIENTATION = 0x0112
# What each EXIF orientation asks of the stored pixels.
STORED = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90,
          8: Image.Transpose.ROTATE_270}


def record(path: Path):
    return load.read_record(path, path.name)


def save_turned(picture: Image.Image, orientation: int, path: Path) -> None:
    """Store a picture as a phone held another way does."""
    turn = STORED[orientation]
    stored = picture.transpose(turn) if turn is not None else picture
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(path, quality=95, exif=exif)


@pytest.mark.parametrize("orientation", sorted(STORED))
def test_exif_orientation_is_applied(portrait, tmp_path, orientation):
    path = tmp_path / "phone.jpg"
    save_turned(portrait, orientation, path)
    photo = record(path)
    assert (photo.width, photo.height) == portrait.size
    error = np.abs(read_photo(path).astype(int) - np.asarray(portrait)).mean()
    assert error < 3, "the pixels are upright, too"


def test_a_photo_on_its_side_gives_the_face_where_it_is_upright(portrait, folder, judge):
    save_turned(portrait, 6, folder / "good_obama.jpg")
    face = judge()["good_obama.jpg"].face
    assert face.box == pytest.approx((375, 125, 609, 425), abs=8)
    assert abs(face.pose.roll) < 5


def test_numbers_in_names_count_as_numbers(tmp_path):
    for name in ("IMG_10.jpg", "IMG_9.jpg", "img_1.jpg", "IMG_9b.png", "a.webp", "IMG_100.bmp"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    names = [path.name for path in load.list_photos(tmp_path, "x")]
    assert names == ["a.webp", "img_1.jpg", "IMG_9.jpg", "IMG_9b.png", "IMG_10.jpg", "IMG_100.bmp"]


def test_other_files_hidden_files_and_folders_are_left_out(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.jpg").write_text("x")
    (tmp_path / "folder.jpg").mkdir()
    assert [path.name for path in load.list_photos(tmp_path, "x")] == ["a.jpg"]


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "CMYK", "I;16", "1"])
def test_every_kind_of_pixels_is_read_as_colour(tmp_path, mode):
    path = tmp_path / ("picture.jpg" if mode == "CMYK" else "picture.png")
    source = Image.new("RGB", (20, 10), (200, 200, 200))
    (Image.fromarray(np.full((10, 20), 50000, np.uint16)) if mode == "I;16"
     else source.convert(mode)).save(path)
    assert record(path).reasons == ()
    assert read_photo(path).shape == (10, 20, 3)


def damaged(path: Path, portrait: Image.Image, kind: str) -> None:
    portrait.save(path)
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"hello", "cut": content[:len(content) // 3],
                      "head only": content[:30]}[kind])


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
@pytest.mark.parametrize("kind", ["empty", "text", "cut", "head only"])
def test_a_damaged_file_becomes_a_verdict_with_a_reason(portrait, tmp_path, suffix, kind):
    path = tmp_path / f"broken{suffix}"
    damaged(path, portrait, kind)
    photo = record(path)
    assert photo.verdict == "reject" and photo.sha256 == ""
    (reason,) = photo.reasons
    assert reason.rule == "unreadable" and "export it again" in reason.text
    assert str(tmp_path) not in reason.text


def test_a_picture_bomb_is_a_verdict_not_an_error(tmp_path, monkeypatch):
    path = tmp_path / "huge.png"
    Image.new("L", (400, 400)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert record(path).reasons[0].rule == "unreadable"


def test_heic_without_its_reader_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    decoding.heif_is_readable.cache_clear()
    path = tmp_path / "IMG_1.HEIC"
    path.write_bytes(b"....ftypheic")
    photo = record(path)
    decoding.heif_is_readable.cache_clear()
    assert photo.verdict == "reject" and "pillow-heif" in photo.reasons[0].text


def test_broken_and_good_photos_are_loaded_together_in_order(folder):
    (folder / "a_broken.jpg").write_bytes(b"no photo")
    files = load.list_photos(folder, "photos")
    done = []
    photos = load.read_photos(files, [file.name for file in files], "photos", done.append)
    assert [photo.verdict for photo in photos.photos] == ["reject", None, None, None]
    assert done == [1, 2, 3, 4]
    assert all(photo.sha256 and photo.width for photo in photos.photos[1:])


def test_loading_stops_when_the_progress_callback_raises(folder):
    class Cancelled(Exception):
        pass

    def cancel(done: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        load.read_photos(load.list_photos(folder, "photos"), ["a", "b", "c"], "photos", cancel)


@pytest.mark.parametrize(("make", "words"), [
    (lambda place: None, "does not exist"),
    (lambda place: place.mkdir(), "is empty"),
    (lambda place: (place.mkdir(), (place / "a.txt").write_text("x")), "only files of type .txt"),
    (lambda place: place.write_text("x"), "does not exist"),
])
def test_a_useless_folder_is_one_sentence(tmp_path, make, words):
    make(tmp_path / "people")
    with pytest.raises(LikenessError, match=words) as caught:
        load.list_photos(tmp_path / "people", "people")
    assert "`people`" in str(caught.value) and str(caught.value).endswith(".")


def test_the_fingerprint_follows_every_change_of_the_files(folder):
    def now() -> str:
        return load.fingerprint(load.list_photos(folder, "photos"))

    first = now()
    assert now() == first
    extra = folder / "extra.png"
    Image.new("RGB", (8, 8)).save(extra)
    second = now()
    Image.new("RGB", (9, 9)).save(extra)
    third = now()
    extra.unlink()
    assert len({first, second, third}) == 3 and now() == first
