"""Faces are found in every photo, near and far, and their pose has the promised signs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces import tasks
from likeness.nodes.faces.detect import crop_round, find_face, find_faces, overlap
from PIL import Image

PHOTOS = ("obama", "obama3", "biden", "biden2", "astronaut", "obama_partial_face",
          "obama_partial_face2")


@pytest.mark.parametrize("name", PHOTOS)
def test_each_sample_photo_shows_exactly_one_face(seen, name):
    pixels, face = seen(name)
    assert face.landmarks.shape == (478, 3) and face.mesh.shape == (478, 3)
    assert 0.15 < face.size[0] / pixels.shape[1] < 0.6
    assert len(face.expression) == 51 and "jawOpen" in face.expression


def test_the_box_is_round_the_eyes_of_the_portrait(seen):
    _, face = seen("obama")
    assert face.box == pytest.approx((375, 125, 609, 425), abs=8)


def test_two_faces_come_largest_first(seen):
    large, _ = seen("obama")
    small = np.asarray(Image.fromarray(seen("biden2")[0]).resize((600, 600)))
    both = np.full((1137, 1510, 3), 128, np.uint8)
    both[:, :910] = large
    both[300:900, 910:] = small
    faces = find_faces(both)
    assert len(faces) == 2
    assert faces[0].box[0] < 910 < faces[1].box[0]
    assert len(find_faces(both, limit=1)) == 1


def test_a_mirrored_view_without_contiguous_memory_is_read_as_its_copy(seen):
    pixels, _ = seen("obama3")
    view = pixels[:, ::-1]
    assert not view.flags.c_contiguous
    np.testing.assert_array_equal(find_face(view).landmarks, find_face(view.copy()).landmarks)


def test_a_mirror_negates_yaw_and_roll(seen):
    pixels, face = seen("biden")
    mirrored = find_face(pixels[:, ::-1])
    assert face.pose.yaw > 8, "the nose points to the right of the picture"
    assert mirrored.pose.yaw == pytest.approx(-face.pose.yaw, abs=2)
    assert mirrored.pose.roll == pytest.approx(-face.pose.roll, abs=2)


@pytest.mark.parametrize("angle", [-40, -20, 20, 40])
def test_turning_the_picture_turns_the_roll_by_as_much(seen, angle):
    pixels, face = seen("obama")
    turned = Image.fromarray(pixels).rotate(angle, fillcolor=(128, 128, 128))  # counter-clockwise
    roll = find_face(np.asarray(turned)).pose.roll
    assert roll - face.pose.roll == pytest.approx(angle, abs=3)


def test_a_close_up_that_fills_the_picture_is_found(seen):
    pixels, face = seen("obama")
    x0, y0, x1, y1 = (round(edge) for edge in face.box)
    close = find_face(pixels[y0 - 5:y1 + 5, x0 - 5:x1 + 5])
    assert close is not None
    assert overlap(close.box, (5, 5, x1 - x0 + 5, y1 - y0 + 5)) > 0.85


def test_a_face_of_four_percent_of_the_picture_is_found(seen):
    pixels, face = seen("obama")
    person = Image.fromarray(pixels).resize((273, 341))  # the face is 70 px wide
    crowd = np.full((1700, 1700, 3), 128, np.uint8)
    crowd[1100:1441, 1000:1273] = np.asarray(person)
    (found,) = find_faces(crowd)
    assert 55 < found.size[0] < 85 and found.box[0] > 1000


def test_scenery_has_no_face():
    rows, columns = np.mgrid[0:480, 0:640]
    stripes = (127 + 100 * np.sin(columns / 9) * np.cos(rows / 13)).astype(np.uint8)
    assert find_faces(np.repeat(stripes[..., None], 3, axis=2)) == []
    assert find_face(np.zeros((300, 200, 3), np.uint8)) is None


def test_what_the_short_range_detector_alone_claims_must_be_found_again(seen, monkeypatch):
    pixels, _ = seen("obama")
    real = tasks.detect
    nothing = real("face_full_range", np.zeros((64, 64, 3), np.uint8))
    monkeypatch.setattr(tasks, "detect", lambda name, picture: nothing
                        if name == "face_full_range" else real(name, picture))
    assert real("face_short_range", pixels).face_landmarks, "the claim"
    assert find_faces(pixels) == []


def test_threads_share_the_landmarker(seen):
    pixels, face = seen("obama")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: find_face(pixels), range(8)))
    for other in found:
        np.testing.assert_array_equal(other.landmarks, face.landmarks)


def test_closed_tasks_open_again(seen):
    pixels, face = seen("obama")
    tasks.close_all()
    np.testing.assert_array_equal(find_face(pixels).landmarks, face.landmarks)


def test_grey_pixels_are_refused_before_they_can_poison_the_graph(seen):
    pixels, face = seen("obama")
    with pytest.raises(ValueError, match="uint8"):
        find_faces(pixels[..., 0])
    assert find_face(pixels) is not None


def test_missing_system_libraries_are_named(monkeypatch, seen):
    def absent():
        raise OSError("libEGL.so.1: cannot open shared object file")

    tasks.close_all()
    monkeypatch.setitem(tasks._MAKERS, "face_full_range", absent)
    with pytest.raises(LikenessError, match="libegl1"):
        find_faces(seen("obama")[0])


def test_a_crop_beyond_the_edge_repeats_edge_pixels():
    pixels = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    crop, (left, top) = crop_round(pixels, (0, 0, 2, 2), margin=1.0)
    assert crop.shape == (6, 6, 3) and (left, top) == (-2, -2)
    np.testing.assert_array_equal(crop[0, 0], pixels[0, 0])
    np.testing.assert_array_equal(crop[2:, 2:], pixels[:4, :4])
