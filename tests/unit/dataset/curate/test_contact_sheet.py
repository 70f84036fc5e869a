"""Contact sheets show a card per photo in the colour of its verdict, whatever the photo is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from likeness.nodes.dataset.curate import sheet
from likeness.nodes.dataset.curate.curate import curate
from likeness.nodes.quality.rules import Rules
from likeness.nodes.sockets import Photo, PhotoSet, Reason, Verdict
from PIL import Image, ImageDraw


def share_of(picture: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((picture == np.array(colour, np.uint8)).all(-1).mean())


@pytest.fixture
def judged(folder, load_folder):
    return curate(load_folder(folder), Rules(), lambda done: None)


def test_kept_photos_are_framed_in_green_only(judged):
    picture = sheet.curation_sheet(judged)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    assert share_of(picture, sheet.GREEN) > 0.01
    assert share_of(picture, sheet.RED) == 0


def test_a_rejected_photo_is_framed_in_red(folder, load_folder):
    (folder / "broken.jpg").write_bytes(b"x")
    judged = curate(load_folder(folder), Rules(), lambda done: None)
    picture = sheet.curation_sheet(judged)
    assert share_of(picture, sheet.RED) > 0.003 and share_of(picture, sheet.GREEN) > 0.01


def test_the_face_is_boxed_where_it_is(judged):
    photo = next(photo for photo in judged.photos if photo.name == "good_obama.jpg")
    card = sheet.Card(photo, "KEEP", sheet.GREEN, "fine")
    with_box = sheet.draw_sheet([card], "one")
    import dataclasses
    faceless = dataclasses.replace(card, photo=dataclasses.replace(photo, face=None))
    changed = np.abs(with_box.astype(int) - sheet.draw_sheet([faceless], "one")).max(-1) > 0
    rows, columns = np.nonzero(changed)
    scale = (columns.max() - columns.min()) / photo.face.size[0]
    assert (rows.max() - rows.min()) / photo.face.size[1] == pytest.approx(scale, rel=0.03)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 30])
def test_any_number_of_photos_makes_a_sheet(judged, count):
    many = PhotoSet((judged.photos * 10)[:count])
    height, width = sheet.curation_sheet(many).shape[:2]
    assert width >= 330 and height >= 54 and width < 2100


def test_a_file_replaced_since_loading_is_not_drawn_as_the_photo(judged):
    photo = judged.photos[0]
    assert isinstance(sheet._thumbnail(photo), Image.Image)
    photo.file.write_bytes(judged.photos[1].file.read_bytes())
    assert sheet._thumbnail(photo) == "was changed since"
    assert sheet.curation_sheet(judged).ndim == 3


def test_a_damaged_picture_and_a_bomb_are_drawn_as_unreadable(judged, tmp_path):
    import hashlib

    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)).save(whole)
    damaged = bytearray(whole.read_bytes())
    second = damaged.find(b"IDAT", damaged.find(b"IDAT") + 4)
    damaged[second:second + 4] = b"\0\1\2\3"
    (tmp_path / "damaged.png").write_bytes(damaged)
    Image.new("1", (20000, 19000)).save(tmp_path / "bomb.png")
    for name in ("damaged.png", "bomb.png"):
        file = tmp_path / name
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        photo = dataclasses.replace(judged.photos[0], file=file, sha256=digest)
        assert sheet._thumbnail(photo) == "cannot be read"


def test_the_side_a_head_is_turned_to_is_one_of_the_picture(judged):
    photo = judged.photos[0]
    pose = dataclasses.replace(photo.face.pose, yaw=-30.0)
    aside = dataclasses.replace(photo, face=dataclasses.replace(photo.face, pose=pose))
    assert sheet._praise(aside).endswith("turned 30 degrees to the left of the picture.")


def written(monkeypatch, photos, note=""):
    """The texts of a sheet with their places, and the sheet."""
    found = []
    plain = ImageDraw.ImageDraw.text

    def text(self, xy, text, *args, **kwargs):
        found.append((text, *xy))
        return plain(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    made = sheet.curation_sheet(PhotoSet(tuple(photos)), note)
    monkeypatch.undo()
    return found, made


def reasoned(count):
    reasons = [Reason(f"rule{number}", f"Reason {number}: " + "word " * 20 + f"end{number}.",
                      Verdict.REJECT if number == 1 else Verdict.UNSURE)
               for number in range(count)]
    return Photo(Path("a.jpg"), "a.jpg", verdict=Verdict.REJECT, reasons=tuple(reasons))


@pytest.mark.parametrize("count", [2, 3, 6])
def test_every_reason_stands_on_the_card_and_the_card_holds_it(monkeypatch, count):
    found, made = written(monkeypatch, [reasoned(count), reasoned(1), reasoned(1)])
    words = " ".join(text for text, *_ in found)
    assert all(f"end{number}." in words for number in range(count)), words
    assert words.index("Reason 1:") < words.index("Reason 0:"), "the one that decides first"
    lowest = max(y for text, x, y in found)
    frames = np.flatnonzero((made[:, 200] == sheet.RED).all(-1))
    assert lowest + 17 < frames[-1], "the frame lies below the last line"


def test_a_sentence_that_is_wider_than_the_sheet_is_written_in_full(monkeypatch):
    note = "All of these words belong to one sentence that is wider than one card, said to its end."
    found, made = written(monkeypatch, [reasoned(1)], note)
    words = " ".join(text for text, *_ in found)
    assert "1 photo: 0 keep, 0 unsure, 1 reject" in words and note in words
    top = np.flatnonzero((made[:, 200] == sheet.RED).all(-1))[0]
    assert top > next(y for text, _, y in found if text.endswith("to its end.")) + 8


def test_the_users_own_reason_comes_first_and_the_judges_stay(monkeypatch):
    own = Reason("by_hand", "By hand: best smile.", Verdict.KEEP)
    photo = dataclasses.replace(reasoned(2), verdict=Verdict.KEEP, overridden=True,
                                reasons=(*reasoned(2).reasons, own))
    words = " ".join(text for text, *_ in written(monkeypatch, [photo])[0])
    assert words.index("best smile") < words.index("end0.") and "end1." in words
