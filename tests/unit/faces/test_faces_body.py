"""Bodies, hands and the person's silhouette on real photos."""

from __future__ import annotations

import numpy as np
from likeness.nodes.faces import tasks
from likeness.nodes.faces.body import find_bodies, find_hands, person_mask

NOSE, LEFT_SHOULDER, RIGHT_SHOULDER = 0, 11, 12


def test_a_portrait_has_one_body_with_the_head_where_the_face_is(seen):
    pixels, face = seen("obama3")
    (body,) = find_bodies(pixels)
    x0, y0, x1, y1 = face.box
    x, y = body.points[NOSE]
    assert body.points.shape == (33, 2) and body.visibility.shape == (33,)
    assert x0 < x < x1 and y0 < y < y1
    assert body.points[LEFT_SHOULDER, 0] > x1 and body.points[RIGHT_SHOULDER, 0] < x0
    assert body.visibility[LEFT_SHOULDER] > 0.9


def test_scenery_has_no_body_and_no_hand():
    empty = np.full((400, 400, 3), 90, np.uint8)
    assert find_bodies(empty) == [] and find_hands(empty) == []


def test_the_silhouette_covers_the_face_and_not_the_corner(seen):
    pixels, face = seen("obama3")
    mask = person_mask(pixels)
    x, y = face.landmarks[1, :2].astype(int)
    assert mask.shape == pixels.shape[:2] and mask.dtype == np.float32
    assert mask[y, x] > 0.9 and mask[5, 5] < 0.1


def test_the_mask_is_copied_while_the_result_that_owns_it_lives(monkeypatch):
    class Mask:
        def __init__(self, memory):
            self.memory = memory

        def numpy_view(self):
            return self.memory

    class Result:  # frees its memory with itself, as mediapipe's does
        def __init__(self):
            self.confidence_masks = [Mask(np.full((4, 6, 1), 0.5, np.float32))]

        def __del__(self):
            self.confidence_masks[0].memory[:] = np.nan

    monkeypatch.setattr(tasks, "detect", lambda name, pixels: Result())
    assert (person_mask(np.zeros((4, 6, 3), np.uint8)) == 0.5).all()
