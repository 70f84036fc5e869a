"""A picture is looked at once, an edited one again, and memory stays bounded."""

from __future__ import annotations

import numpy as np
import pytest
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces import tasks
from likeness.nodes.faces.detect import find_face, find_faces
from likeness.nodes.faces.memory import Remembered


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The tasks that ran."""
    made: list[str] = []
    real = tasks.detect
    monkeypatch.setattr(tasks, "detect", lambda name, picture: made.append(name)
                        or real(name, picture))
    return made


def picture(value: int) -> np.ndarray:
    return np.full((4, 4, 3), value, np.uint8)


def test_an_equal_picture_is_not_looked_at_again(seen, calls):
    pixels, _ = seen("obama")
    first, again = find_faces(pixels), find_faces(pixels.copy())
    assert calls == ["face_full_range"] and first[0] is again[0]


def test_one_changed_pixel_is_another_picture(seen, calls):
    pixels = seen("obama")[0].copy()
    find_faces(pixels)
    pixels[0, 0, 0] ^= 1
    find_faces(pixels)
    assert len(calls) == 2


def test_the_same_bytes_of_another_shape_are_another_picture():
    held = Remembered(8, 10 ** 6, lambda shape: 1)
    shapes = [held.get(np.zeros(shape, np.uint8), lambda pixels: pixels.shape)
              for shape in ((2, 6, 3), (6, 2, 3))]
    assert shapes == [(2, 6, 3), (6, 2, 3)]


def test_what_is_remembered_cannot_be_changed(seen):
    pixels, _ = seen("obama")
    faces = find_faces(pixels)
    with pytest.raises(ValueError, match="read-only"):
        faces[0].landmarks[0] = 0
    faces.clear()
    assert find_face(pixels) is not None


def test_a_limit_does_not_hide_faces_from_the_next(seen):
    both = np.concatenate([seen("biden2")[0], seen("biden2")[0][:, ::-1]], axis=1)
    assert len(find_faces(both, limit=1)) == 1 and len(find_faces(both)) == 2


def test_the_least_recently_used_result_is_forgotten_first():
    held = Remembered(2, 10 ** 6, lambda result: 1)
    made = []
    for value in (0, 1, 0, 2, 0, 1):
        held.get(picture(value), lambda pixels: made.append(int(pixels[0, 0, 0])))
    assert made == [0, 1, 2, 1]


def test_results_are_forgotten_when_they_take_too_much():
    held = Remembered(100, 10, lambda size: size)
    made = []
    for value, size in ((0, 6), (1, 6), (0, 6), (2, 50), (2, 50)):
        held.get(picture(value), lambda pixels, size=size: made.append(size) or size)
    assert made == [6, 6, 6, 50], "6 + 6 do not fit in 10; one result alone always stays"


def test_an_error_is_not_remembered(seen, monkeypatch):
    real = tasks.detect

    def fail(*_):
        raise LikenessError("no")

    monkeypatch.setattr(tasks, "detect", fail)
    with pytest.raises(LikenessError):
        find_faces(seen("obama")[0])
    monkeypatch.setattr(tasks, "detect", real)
    assert find_face(seen("obama")[0]) is not None
