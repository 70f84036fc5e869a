"""Second looks at large and at very long pictures cost no more than those at middling ones."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from likeness.nodes.faces import detect, tasks
from likeness.nodes.faces.detect import find_face, find_faces
from likeness.nodes.faces.turned import quarter_turns, turn_points
from likeness.nodes.media.images import resize
from likeness.nodes.sockets import Face

MOST_PIXELS = 20e6  # 2000 x 1500 with its border


@pytest.fixture
def handed(monkeypatch) -> list[tuple[int, int]]:
    """The sizes of all pictures that a task is run on."""
    sizes: list[tuple[int, int]] = []
    real = tasks.detect

    def watched(name: str, pixels: np.ndarray) -> object:
        sizes.append(pixels.shape[:2])
        return real(name, pixels)

    monkeypatch.setattr(tasks, "detect", watched)
    return sizes


def scenery(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    return resize(noise, width, height)


def close_up(pixels: np.ndarray, face: Face) -> tuple[np.ndarray, np.ndarray]:
    """A face larger than its picture, 3000 pixels wide, and where its nose lies."""
    x0, y0, x1, y1 = (round(edge) for edge in face.box)
    close = pixels[y0 + 8:y1 - 8, x0 + 8:x1 - 8]
    scale = 3000 / close.shape[1]
    nose = (face.landmarks[1, :2] - (x0 + 8, y0 + 8)) * scale
    return resize(close, 3000, round(close.shape[0] * scale)), nose


def check_nose(large: np.ndarray, nose: np.ndarray, turns: int, handed: list) -> None:
    found = find_face(np.ascontiguousarray(np.rot90(large, turns)))
    assert len(handed) > 1, "the first look does not find it"
    assert quarter_turns(found) == -turns % 4
    expected = turn_points(nose[None], turns, *large.shape[:2])[0]
    assert np.linalg.norm(found.landmarks[1, :2] - expected) < 0.05 * max(found.size)


def test_only_the_first_look_reads_a_large_picture_whole(handed):
    assert find_faces(scenery(3000, 4000)) == []
    assert handed[0] == (3000, 4000) and len(handed) > 20
    assert max(height * width for height, width in handed[1:]) < MOST_PIXELS
    assert max(max(size) for size in handed[1:]) < 5000


def test_a_long_strip_gets_no_border_of_its_length(handed):
    assert find_faces(scenery(200, 9000)) == []
    assert len(handed) > 20
    assert max(height * width for height, width in handed[1:]) < 1e6


def test_a_strip_thinner_than_any_face_is_looked_at_once(handed):
    assert find_faces(scenery(20, 9000)) == []
    assert len(handed) == 1


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_close_up_of_twelve_million_pixels_is_found_in_its_place(seen, handed, turns):
    large, nose = close_up(*seen("biden"))
    check_nose(large, nose, turns, handed)


@pytest.mark.parametrize("turns", [0, 2])
def test_the_border_round_a_large_close_up_shifts_nothing(seen, handed, monkeypatch, turns):
    looks = (detect._with_border, functools.partial(detect._turned_look, detect._with_border))
    monkeypatch.setattr(detect, "_SECOND_LOOKS", looks)
    large, nose = close_up(*seen("biden"))
    check_nose(large, nose, turns, handed)


def test_a_small_face_in_twelve_million_pixels_is_found_in_its_place(seen, handed):
    pixels, face = seen("obama")
    crowd = np.full((3000, 4000, 3), 128, np.uint8)
    crowd[2000:2660, 2600:3128] = resize(pixels, 528, 660)
    (found,) = find_faces(crowd)
    assert len(handed) > 1, "the first look does not find it"
    scale = 528 / pixels.shape[1]
    expected = np.array(face.box) * scale + (2600, 2000, 2600, 2000)
    assert found.box == pytest.approx(tuple(expected), abs=0.06 * max(found.size))
