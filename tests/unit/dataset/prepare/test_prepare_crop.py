"""Crops: the face is never cut, buckets stay within their area, masks follow the crop."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from likeness.nodes.dataset.prepare.crop import FRAMINGS, choose_crop, cut, cut_mask, make_buckets
from likeness.nodes.errors import LikenessError
from likeness.nodes.sockets import Face, HeadPose, Photo


def _photo(width: int, height: int, box: tuple) -> Photo:
    face = Face(box, np.zeros((478, 3)), np.zeros((478, 3)), HeadPose(0, 0, 0))
    return Photo(Path("photo.jpg"), "photo.jpg", "0" * 64, width, height, face=face)


def test_buckets_are_multiples_of_the_step_within_the_area():
    buckets = make_buckets(512)
    assert (512, 512) in buckets and len(buckets) >= 5
    for width, height in buckets:
        assert width % 64 == height % 64 == 0
        assert width * height <= 512 * 512
        assert 0.5 <= width / height <= 2


BOXES = [(100, 100, 300, 350), (0, 0, 200, 260), (700, 1000, 900, 1200), (5, 500, 895, 1190)]


@pytest.mark.parametrize("framing,box", list(itertools.product(FRAMINGS, BOXES)))
def test_the_face_is_never_cut(framing, box):
    crop = choose_crop(_photo(900, 1200, box), framing, make_buckets(512))
    x0, y0, x1, y1 = crop.box
    assert x0 <= box[0] + 1e-6 and y0 <= box[1] + 1e-6
    assert x1 >= box[2] - 1e-6 and y1 >= box[3] - 1e-6
    assert x0 >= 0 and y0 >= 0 and x1 <= 900 + 1e-6 and y1 <= 1200 + 1e-6


@pytest.mark.parametrize("framing", FRAMINGS)
def test_the_crop_has_the_buckets_ratio_so_nothing_is_stretched(framing):
    crop = choose_crop(_photo(1600, 1200, (500, 300, 800, 700)), framing, make_buckets(768))
    across, down = crop.box[2] - crop.box[0], crop.box[3] - crop.box[1]
    assert across / down == pytest.approx(crop.bucket[0] / crop.bucket[1], rel=1e-6)


def test_head_framing_is_tighter_than_head_and_shoulders():
    photo = _photo(2000, 2000, (900, 700, 1100, 950))
    tight, wide = (choose_crop(photo, framing, make_buckets(512))
                   for framing in ("head", "head and shoulders"))
    assert tight.box[3] - tight.box[1] < 0.7 * (wide.box[3] - wide.box[1])


def test_cutting_samples_the_named_region():
    pixels = np.zeros((1200, 900, 3), np.uint8)
    photo = _photo(900, 1200, (300, 300, 500, 550))
    crop = choose_crop(photo, "head", make_buckets(256))
    x0, y0, x1, y1 = (round(side) for side in crop.box)
    pixels[y0:y1, x0:x1] = (10, 200, 30)
    inside = cut(pixels, crop)
    assert inside.shape == (crop.bucket[1], crop.bucket[0], 3)
    assert np.abs(inside[8:-8, 8:-8].astype(int) - (10, 200, 30)).max() <= 1


def test_the_mask_grid_averages_the_face_share_of_each_cell():
    mask = np.zeros((400, 400), np.float32)
    mask[:, :200] = 1
    crop = choose_crop(_photo(400, 400, (100, 100, 300, 300)), "whole photo", [(256, 256)])
    cells = cut_mask(mask, crop, 32, 32)
    assert cells[:, :15].min() == 1 and cells[:, 17:].max() == 0
    assert cells.mean() == pytest.approx(0.5, abs=0.01)


def test_a_photo_without_a_face_is_named():
    photo = Photo(Path("beach.jpg"), "beach.jpg", "0" * 64, 800, 600)
    with pytest.raises(LikenessError, match="beach.jpg has no detected face"):
        choose_crop(photo, "head", make_buckets(512))
