"""Faces are found whichever way a picture lies, and what is said of them fits its pixels."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from likeness.nodes.faces import detect, tasks
from likeness.nodes.faces.align import ARCFACE_112, align, five_points
from likeness.nodes.faces.detect import find_face, find_faces
from likeness.nodes.faces.orientation import doubtful, misfit, strangeness
from likeness.nodes.faces.recognise.embed import embed, similarity
from likeness.nodes.faces.turned import quarter_turns, scale_face, turn_face, turn_points, turn_pose
from likeness.nodes.media.images import read_photo, resize
from likeness.nodes.sockets import HeadPose
from PIL import Image

from launcher.makers.covers.drawing import mask, near

PHOTOS = ("obama", "obama3", "biden", "biden2", "astronaut", "obama_partial_face",
          "obama_partial_face2")
TURNS = (1, 2, 3)


def turned(pixels: np.ndarray, turns: int) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(pixels, turns))


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("name", PHOTOS)
def test_the_landmarks_of_a_turned_photo_are_those_of_the_photo(seen, name, turns):
    pixels, face = seen(name)
    (found,) = find_faces(turned(pixels, turns))
    expected = turn_face(face, turns, *pixels.shape[:2])
    error = np.linalg.norm(found.landmarks - expected.landmarks, axis=1)
    assert error.mean() < 0.03 * max(face.size)
    assert found.box == pytest.approx(expected.box, abs=0.04 * max(face.size))
    assert quarter_turns(found) == -turns % 4


@pytest.mark.parametrize("turns", TURNS)
def test_the_roll_says_how_the_photo_was_turned(seen, turns):
    pixels, face = seen("obama")
    roll = find_face(turned(pixels, turns)).pose.roll
    assert (roll - face.pose.roll - 90 * turns + 180) % 360 - 180 == pytest.approx(0, abs=3)


@pytest.mark.parametrize("turns", TURNS)
def test_a_turned_face_aligns_and_is_recognised_like_the_upright_one(seen, turns):
    pixels, face = seen("biden2")
    side = turned(pixels, turns)
    found = find_face(side)
    upright = align(pixels, five_points(face), ARCFACE_112, 112).astype(float)
    crop = align(side, five_points(found), ARCFACE_112, 112).astype(float)
    assert np.abs(crop - upright).mean() < 4
    assert similarity(embed(pixels, face), embed(side, found)) > 0.9


@pytest.mark.parametrize("turns", TURNS)
def test_a_turned_close_up_that_fills_the_picture_is_found(seen, turns):
    pixels, face = seen("biden2")
    x0, y0, x1, y1 = (round(edge) for edge in face.box)
    close = pixels[y0 - 5:y1 + 5, x0 - 5:x1 + 5]
    found = find_face(turned(close, turns))
    assert quarter_turns(found) == -turns % 4


@pytest.mark.parametrize("turns", TURNS)
def test_a_turned_person_in_a_big_canvas_is_found(seen, turns):
    canvas = np.full((1400, 1400, 3), 128, np.uint8)
    canvas[900:1241, 700:973] = resize(seen("obama")[0], 273, 341)
    (found,) = find_faces(turned(canvas, turns))
    assert 55 < min(found.size) and max(found.size) < 110
    assert quarter_turns(found) == -turns % 4


def test_both_people_of_a_sideways_photo_are_found(seen):
    both = np.full((600, 1200, 3), 128, np.uint8)
    both[:, :600] = resize(seen("biden2")[0], 600, 600)
    both[:, 600:] = resize(seen("astronaut")[0], 600, 600)
    found = find_faces(turned(both, 1))
    assert len(found) == 2 and {quarter_turns(face) for face in found} == {3}


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_photo_with_an_exif_orientation_is_read_upright(seen, assets, tmp_path, orientation):
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90,
            8: Image.Transpose.ROTATE_270}[orientation]
    picture = Image.open(assets / "biden.jpg").transpose(back)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "selfie.jpg", quality=95, exif=exif)
    pixels, face = seen("biden")
    read = read_photo(tmp_path / "selfie.jpg")
    assert read.shape == pixels.shape
    assert find_face(read).box == pytest.approx(face.box, abs=0.03 * max(face.size))


@pytest.mark.parametrize("edge", ["left", "right", "top", "bottom"])
def test_a_face_cut_by_the_edge_is_found_where_it_is(seen, edge):
    pixels, face = seen("biden2")
    x0, y0, x1, y1 = (round(value) for value in face.box)
    room = 0.12 * max(face.size)
    left, top = (x0 + room if edge == "left" else 0), (y0 + room if edge == "top" else 0)
    right = x1 - room if edge == "right" else pixels.shape[1]
    bottom = y1 - room if edge == "bottom" else pixels.shape[0]
    cut = pixels[round(top):round(bottom), round(left):round(right)]
    found = find_face(cut)
    nose = face.landmarks[1, :2] - (round(left), round(top))
    assert np.linalg.norm(found.landmarks[1, :2] - nose) < 0.06 * max(face.size)


def test_what_surrounds_the_people_is_no_face_whichever_way_it_lies(seen):
    for name in ("obama3", "biden2", "astronaut"):
        pixels, face = seen(name)
        margin = round(0.25 * max(face.size))
        x0, y0, x1, y1 = (round(value) for value in face.box)
        beside = (pixels[:, :max(x0 - margin, 1)], pixels[:, x1 + margin:], pixels[y1 + margin:])
        for part in beside:
            if min(part.shape[:2]) > 64:
                assert find_faces(np.ascontiguousarray(part)) == [], name


def test_an_upright_photo_costs_one_detection(seen, monkeypatch):
    calls = []
    real = tasks.detect
    monkeypatch.setattr(tasks, "detect", lambda name, picture: calls.append(name)
                        or real(name, picture))
    for name in ("obama", "obama3", "biden", "biden2"):
        calls.clear()
        find_faces(seen(name)[0].copy())
        assert calls[0] == "face_full_range" and calls[1:] in ([], ["face_scores"]), name


def test_landmarks_that_lie_upside_down_on_a_face_are_doubted(seen):
    pixels, face = seen("obama3")
    (wrong,) = detect._full_range(turned(pixels, 2))
    assert abs(wrong.pose.roll) < 30, "it is taken for an upright face"
    assert doubtful(wrong, turned(pixels, 2)) and not doubtful(face, pixels)
    assert misfit(wrong, turned(pixels, 2)) > misfit(face, pixels) + 0.5


def test_an_upright_face_that_is_doubted_keeps_its_landmarks(seen):
    pixels, face = seen("astronaut")
    (first,) = detect._full_range(pixels)
    assert doubtful(first, pixels), "dark skin under bright light"
    assert any(quarter_turns(other) for other in detect._in_turned_surroundings(first, pixels)), (
        "a find that lies on its side is offered")
    np.testing.assert_allclose(face.landmarks, first.landmarks, atol=1e-2)


@pytest.mark.parametrize("quality", [95, 80])
@pytest.mark.parametrize("name", PHOTOS)
def test_an_upside_down_jpeg_is_not_read_as_upright(seen, name, quality):
    pixels, face = seen(name)
    file = io.BytesIO()
    Image.fromarray(turned(pixels, 2)).save(file, "JPEG", quality=quality)
    stored = np.asarray(Image.open(file).convert("RGB"))
    (found,) = find_faces(stored)
    expected = turn_face(face, 2, *pixels.shape[:2])
    error = np.linalg.norm(found.landmarks[:, :2] - expected.landmarks[:, :2], axis=1)
    assert error.mean() < 0.03 * max(face.size)


@pytest.mark.parametrize("name", ["obama3", "biden2", "astronaut"])
def test_the_wrong_way_up_is_stranger_than_the_right_one(seen, name):
    pixels, face = seen(name)
    wrong = dataclasses.replace(
        turn_face(face, 2, *pixels.shape[:2]), box=face.box,
        landmarks=face.landmarks.mean(0) * (2, 2, 0) - face.landmarks * (1, 1, -1))
    assert strangeness(wrong, pixels) > strangeness(face, pixels) + 1


def test_a_face_moves_with_the_scaled_picture(seen):
    pixels, face = seen("biden2")
    height, width = pixels.shape[:2]
    found = find_face(resize(pixels, width // 2, height // 2))
    moved = scale_face(face, 0.5, 0.5)
    assert found.box == pytest.approx(moved.box, abs=0.03 * max(moved.size))
    back = scale_face(moved, 2, 2)
    np.testing.assert_allclose(back.landmarks, face.landmarks, atol=1e-2)


def test_turning_four_times_changes_nothing(seen):
    pixels, face = seen("biden")
    height, width = pixels.shape[:2]
    moved = face
    for _ in range(4):
        moved = turn_face(moved, 1, height, width)
        height, width = width, height
    np.testing.assert_allclose(moved.landmarks, face.landmarks, atol=1e-2)
    assert moved.pose.yaw == pytest.approx(face.pose.yaw, abs=1e-3)
    assert moved.pose.roll == pytest.approx(face.pose.roll, abs=1e-3)


@pytest.mark.parametrize("turns", TURNS)
def test_points_move_with_the_pixels(turns):
    pixels = np.zeros((5, 7), np.uint8)
    pixels[1, 4] = 1
    ((x, y),) = turn_points(np.array([[4.5, 1.5]]), turns, 5, 7)
    assert np.rot90(pixels, turns)[int(y), int(x)] == 1


def test_a_half_turn_mirrors_yaw_and_pitch_as_the_viewer_sees_them():
    pose = turn_pose(HeadPose(yaw=20.0, pitch=10.0, roll=0.0), 2)
    assert (pose.yaw, pose.pitch) == pytest.approx((-20.0, -10.0), abs=1e-6)
    assert abs(pose.roll) == pytest.approx(180.0, abs=1e-6)


@pytest.mark.parametrize("name,cloth", [("obama", "black"), ("obama", "hair"), ("obama", "checks"),
                                        ("biden2", "black"), ("biden2", "hair")])
def test_a_masked_face_is_not_read_upside_down(seen, name, cloth):
    pixels, face = seen(name)
    masked = near(mask(cloth))(pixels, face, np.random.default_rng(len(name)))
    found = find_face(masked)
    assert abs(found.pose.roll - face.pose.roll) < 15


def test_eyes_are_held_against_the_skin_that_a_mask_leaves_bare(seen):
    pixels, face = seen("obama")
    masked = near(mask("black"))(pixels, face, np.random.default_rng(5))
    assert not doubtful(face, masked)
    assert misfit(face, masked) < misfit(face, pixels) + 0.1
