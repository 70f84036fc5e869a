"""The skin mask holds the person's bare skin, the hairless one the face without hair on it."""

from __future__ import annotations

import numpy as np
import pytest
from likeness.nodes.faces.detect import find_face
from likeness.nodes.faces.masks import hairless_mask, interocular, skin_mask
from likeness.nodes.faces.mesh import LEFT_IRIS, RIGHT_IRIS, face_mask
from likeness.nodes.faces.turned import turn_face
from likeness.nodes.media.images import resize
from PIL import Image

PHOTOS = ("obama", "obama3", "biden", "biden2", "astronaut")
CHEEKS, LIPS_MIDDLE, BROWS = (50, 280), (0, 17), (105, 334)


def at(mask: np.ndarray, face, points: tuple[int, ...]) -> np.ndarray:
    columns, rows = face.landmarks[list(points), :2].astype(int).T
    return mask[rows, columns]


def share(mask: np.ndarray, face) -> float:
    return float(mask.sum() / face_mask(face, *mask.shape).sum())


@pytest.mark.parametrize("name", PHOTOS)
def test_the_skin_mask_has_cheeks_and_no_eyes_brows_or_lips(seen, name):
    pixels, face = seen(name)
    mask = skin_mask(face, pixels)
    assert mask.shape == pixels.shape[:2] and mask.dtype == np.float32
    assert at(mask, face, CHEEKS).min() > 0.9
    assert at(mask, face, (LEFT_IRIS, RIGHT_IRIS, *LIPS_MIDDLE, *BROWS)).max() < 0.4
    assert 0.5 < share(mask, face) < 0.9


@pytest.mark.parametrize("name", PHOTOS)
def test_the_hairless_mask_keeps_eyes_brows_and_lips(seen, name):
    pixels, face = seen(name)
    mask = hairless_mask(face, pixels)
    points = (*CHEEKS, LEFT_IRIS, RIGHT_IRIS, *LIPS_MIDDLE)
    assert at(mask, face, points).min() > 0.8
    assert share(skin_mask(face, pixels), face) < share(mask, face) < 0.97


def test_a_fringe_over_the_forehead_is_in_neither_mask(seen):
    pixels, face = seen("astronaut")
    height, width = pixels.shape[:2]
    above = np.zeros((height, width), bool)
    above[:round(float(face.landmarks[10, 1]))] = True
    fringe = above & (face_mask(face, height, width) > 0.5)
    assert fringe.sum() > 300
    assert skin_mask(face, pixels)[fringe].mean() < 0.35
    assert hairless_mask(face, pixels)[fringe].mean() < 0.35


def test_a_bar_of_another_colour_over_the_cheek_is_no_skin(seen):
    pixels, face = seen("biden2")
    painted = pixels.copy()
    x, y = face.landmarks[50, :2].astype(int)
    painted[y - 12:y + 12, x - 60:x + 60] = (30, 90, 160)
    assert skin_mask(face, pixels)[y, x] > 0.95
    assert skin_mask(face, painted)[y, x] < 0.1
    assert hairless_mask(face, painted)[y, x] < 0.1


def test_the_skin_is_found_in_a_darker_and_a_colder_light(seen):
    pixels, face = seen("obama")
    reference = skin_mask(face, pixels)
    for gain in ((0.5, 0.5, 0.5), (0.8, 0.9, 1.0)):
        lit = np.uint8(pixels * gain)
        assert np.abs(skin_mask(face, lit) - reference).sum() < 0.08 * reference.sum()


def test_masks_lie_within_the_oval(seen):
    pixels, face = seen("obama3")
    oval = face_mask(face, *pixels.shape[:2])
    assert (skin_mask(face, pixels) <= oval + 1e-6).all()
    assert (hairless_mask(face, pixels) <= oval + 1e-6).all()


def test_a_mask_turns_with_its_photo(seen):
    pixels, face = seen("biden2")
    side = np.ascontiguousarray(np.rot90(pixels))
    mask = skin_mask(turn_face(face, 1, *pixels.shape[:2]), side)
    assert np.abs(np.rot90(skin_mask(face, pixels)) - mask).mean() < 0.002


def test_interocular_pixels_follow_the_size_and_not_the_tilt(seen):
    pixels, face = seen("obama")
    half = find_face(resize(pixels, 455, 568))
    tilted = find_face(np.asarray(Image.fromarray(pixels).rotate(25)))
    assert 90 < interocular(face) < 120
    assert interocular(half) == pytest.approx(interocular(face) / 2, rel=0.05)
    assert interocular(tilted) == pytest.approx(interocular(face), rel=0.05)
