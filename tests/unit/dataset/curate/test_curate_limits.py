"""The limits between one's own photos and other people's, on photos that are bad in many ways."""

from __future__ import annotations

import io

import numpy as np
import pytest
from likeness.nodes.media.images import read_photo
from likeness.nodes.quality.look import look_at
from likeness.nodes.quality.rules import Rules
from PIL import Image, ImageFilter


def compressed(pixels):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=8)
    return np.asarray(Image.open(data))


def noisy(pixels):
    return np.clip(pixels + np.random.default_rng(0).normal(0, 25, pixels.shape), 0, 255)


SPOILT = {
    "plain": lambda pixels: pixels,
    "blurred": lambda pixels: Image.fromarray(pixels).filter(
        ImageFilter.GaussianBlur(pixels.shape[1] / 200)),
    "dark": lambda pixels: pixels * 0.35,
    "compressed": compressed,
    "small": lambda pixels: Image.fromarray(pixels).reduce(4),
    "noisy": noisy,
    "warm": lambda pixels: np.clip(pixels * (1.2, 1.0, 0.7), 0, 255),
    "mirrored": lambda pixels: pixels[:, ::-1],
}


@pytest.fixture(scope="module")
def middle(assets):
    """The middle of two photos of one person."""
    return np.mean([look_at(read_photo(assets / f"{name}.jpg")).embedding
                    for name in ("obama", "obama3")], axis=0)


@pytest.mark.parametrize("spoilt", SPOILT)
def test_own_photos_stay_and_others_go_whatever_the_photo_went_through(assets, middle, spoilt):
    apart = {}
    for name in ("obama", "obama3", "biden", "biden2", "astronaut"):
        pixels = np.ascontiguousarray(SPOILT[spoilt](read_photo(assets / f"{name}.jpg")))
        apart[name] = np.linalg.norm(look_at(pixels.astype(np.uint8)).embedding - middle)
    unsure, reject = Rules().stranger
    assert max(apart.pop("obama"), apart.pop("obama3")) < unsure
    assert min(apart.values()) > reject


def test_two_photos_of_one_person_years_apart_are_kept(assets):
    a, b = (look_at(read_photo(assets / f"{name}.jpg")).embedding for name in ("biden", "biden2"))
    assert np.linalg.norm(a - b) < Rules().stranger[0]
