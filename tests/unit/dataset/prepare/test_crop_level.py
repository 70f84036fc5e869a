"""Level eyes: the crop is turned, keeps the whole face, and shows nothing but the photo."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from likeness.nodes.dataset.prepare.crop import FRAMINGS, choose_crop, cut, cut_mask, make_buckets
from likeness.nodes.dataset.prepare.level import eye_tilt, frame
from likeness.nodes.faces.detect import find_face
from likeness.nodes.sockets import Photo
from PIL import Image

BUCKETS = make_buckets(512)


@pytest.fixture(scope="module")
def tilted(assets, tmp_path_factory):
    """A portrait tilted by 14 degrees, as pixels and as a photo."""
    with Image.open(assets / "obama.jpg") as picture:
        pixels = np.array(picture.convert("RGB").rotate(14, Image.Resampling.BICUBIC))
    file = tmp_path_factory.mktemp("tilted") / "tilted.png"
    Image.fromarray(pixels).save(file)
    return pixels, Photo(file, file.name, "0" * 64, pixels.shape[1], pixels.shape[0],
                         face=find_face(pixels))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_tilted_heads_eyes_come_out_level(tilted, framing):
    pixels, photo = tilted
    assert eye_tilt(photo.face) < -10
    crop = frame(photo, framing, BUCKETS, level_eyes=True)
    found = find_face(cut(pixels, crop))
    assert abs(eye_tilt(found)) < 2 and crop.turn == pytest.approx(eye_tilt(photo.face))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_level_crop_holds_the_face_and_no_corner_from_beyond_the_photo(tilted, framing):
    _, photo = tilted
    crop = frame(photo, framing, BUCKETS, level_eyes=True)
    white = np.full((photo.height, photo.width, 3), 255, np.uint8)
    assert cut(white, crop).min() == 255
    assert cut_mask(white[..., 0] / 255, crop, 64, 64).min() > 0.999
    placed = crop.place(photo.face.landmarks[:, :2])
    assert placed.min() >= 0 and (placed <= crop.bucket).all()
    upright = choose_crop(photo, framing, BUCKETS)
    assert crop.bucket == upright.bucket
    across, down = crop.box[2] - crop.box[0], crop.box[3] - crop.box[1]
    assert across / down == pytest.approx(crop.bucket[0] / crop.bucket[1])


def test_points_are_placed_where_the_cut_shows_them(tilted):
    pixels, photo = tilted
    crop = frame(photo, "head and shoulders", BUCKETS, level_eyes=True)
    found = find_face(cut(pixels, crop))
    off = crop.place(photo.face.landmarks[:, :2]) - found.landmarks[:, :2]
    assert np.abs(off).mean() < 2, "of 512 pixels"


def test_a_face_at_the_edge_is_turned_less_far_and_never_cut(tilted):
    _, photo = tilted
    x0, y0, x1, y1 = (round(side) for side in photo.face.box)
    landmarks = photo.face.landmarks - (x0, y0, 0)
    face = dataclasses.replace(photo.face, landmarks=landmarks, box=(0, 0, x1 - x0, y1 - y0))
    edge = dataclasses.replace(photo, face=face, width=x1 - x0 + 20, height=y1 - y0 + 20)
    crop = frame(edge, "head", BUCKETS, level_eyes=True)
    assert abs(crop.turn) < abs(eye_tilt(face))
    white = np.full((edge.height, edge.width, 3), 255, np.uint8)
    assert cut(white, crop).min() == 255


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("left", "top", "right", "bottom"), [
    (40, 300, 300, 300), (300, 40, 300, 300), (300, 300, 40, 300), (300, 300, 300, 40),
    (60, 60, 60, 60), (200, 90, 50, 400)])
def test_no_side_of_the_photo_is_crossed(tilted, mirrored, left, top, right, bottom):
    _, photo = tilted
    x0, y0, x1, y1 = photo.face.box
    landmarks = photo.face.landmarks - np.array([x0 - left, y0 - top, 0], np.float32)
    width, height = round(x1 - x0 + left + right), round(y1 - y0 + top + bottom)
    if mirrored:  # upside down: tilted the other way, eyes and all
        landmarks[:, 1] = height - landmarks[:, 1]
    box = (*landmarks[:, :2].min(0).tolist(), *landmarks[:, :2].max(0).tolist())
    face = dataclasses.replace(photo.face, landmarks=landmarks, box=box)
    near = dataclasses.replace(photo, face=face, width=width, height=height)
    white = np.full((height, width, 3), 255, np.uint8)
    for framing in FRAMINGS:
        crop = frame(near, framing, BUCKETS, level_eyes=True)
        assert crop.turn and cut(white, crop).min() == 255
        placed = crop.place(landmarks[:, :2])
        assert placed.min() >= 0 and (placed <= crop.bucket).all()


def test_level_eyes_and_no_wish_leave_the_crop_as_it_was(tilted, portrait):
    _, photo = tilted
    assert frame(photo, "head", BUCKETS, False) == choose_crop(photo, "head", BUCKETS)
    still = dataclasses.replace(photo.face, landmarks=photo.face.mesh * (1, -1, 1) + 300)
    level = dataclasses.replace(photo, face=still)
    assert frame(level, "head", BUCKETS, True) == choose_crop(level, "head", BUCKETS)


def test_a_body_crop_is_wider_than_head_and_shoulders_and_tighter_than_the_photo(tilted):
    _, photo = tilted
    small = dataclasses.replace(photo, width=4000, height=4000)
    tall = [choose_crop(small, framing, BUCKETS).box for framing in FRAMINGS]
    heights = [box[3] - box[1] for box in tall]
    assert heights == sorted(heights) and len(set(heights)) == 4
