"""Photos that get worse step by step: a verdict changes once, and never back."""

from __future__ import annotations

import numpy as np
import pytest
from likeness.nodes.quality.judge import judge
from likeness.nodes.quality.look import look_at
from likeness.nodes.quality.rules import Rules
from PIL import Image, ImageFilter

SEVERITY = {"keep": 0, "unsure": 1, "reject": 2}
PHOTOS = ("obama", "biden2", "astronaut")
# `astronaut` has a face of 89 pixels, so its size is not asked about.
RULES = Rules(min_face=32)


@pytest.fixture(scope="module")
def photo(assets):
    """A sample photo by name."""
    def read(name):
        with Image.open(assets / f"{name}.jpg") as picture:
            return picture.convert("RGB")

    return read


def severities(steps, *rules):
    """How bad the worst of the named reasons is, per picture; without a face as bad as can be."""
    found = []
    for picture in steps:
        reasons = judge(look_at(np.asarray(picture)), RULES)
        found.append(max((SEVERITY[reason.verdict] for reason in reasons
                          if reason.rule in {*rules, "no_face"}), default=0))
    return found


def lit(picture, factor):
    """Multiply the light, as a shorter or longer exposure does."""
    linear = (np.asarray(picture, np.float64) / 255) ** 2.2 * factor
    return Image.fromarray(np.uint8(np.rint(np.clip(linear, 0, 1) ** (1 / 2.2) * 255)))


def assert_turns_once(found):
    assert found == sorted(found), f"the verdict changes back: {found}"
    assert found[0] == 0 and found[-1] == 2, f"the ladder does not span the verdicts: {found}"


@pytest.mark.parametrize("name", PHOTOS)
def test_a_photo_that_loses_focus_is_turned_down_once_and_stays_so(photo, name):
    picture = photo(name)
    face = look_at(np.asarray(picture)).measures["face_width"]
    assert_turns_once(severities(
        [picture.filter(ImageFilter.GaussianBlur(share * face)) if share else picture
         for share in (0, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.045, 0.06)], "blurred"))


@pytest.mark.parametrize("name", PHOTOS)
def test_the_same_blur_of_the_face_is_judged_alike_at_half_the_size(photo, name):
    picture = photo(name)
    half = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS)
    face = look_at(np.asarray(picture)).measures["face_width"]
    for share in (0.012, 0.03, 0.05):
        sharpness = [look_at(np.asarray(one.filter(ImageFilter.GaussianBlur(share * width))))
                     .measures["sharpness"] for one, width in ((picture, face), (half, face / 2))]
        assert sharpness[1] == pytest.approx(sharpness[0], rel=0.35, abs=4)


@pytest.mark.parametrize("name", PHOTOS)
def test_a_photo_that_gets_darker_is_turned_down_once_and_stays_so(photo, name):
    picture = photo(name)
    assert_turns_once(severities([lit(picture, factor) for factor in (
        1, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03)], "dark"))


@pytest.mark.parametrize("name", PHOTOS)
def test_a_photo_that_gets_brighter_is_turned_down_once_and_stays_so(photo, name):
    picture = photo(name)
    assert_turns_once(severities([lit(picture, factor) for factor in (
        1, 1.3, 1.7, 2.2, 3, 4, 5.5, 8, 12)], "bright"))


def test_darkness_is_never_called_blur_nor_the_other_way_round(photo):
    picture = photo("obama")
    dark = {reason.rule for reason in judge(look_at(np.asarray(lit(picture, 0.05))), RULES)}
    soft = {reason.rule for reason in judge(look_at(np.asarray(
        picture.filter(ImageFilter.GaussianBlur(8)))), RULES)}
    assert "dark" in dark and "blurred" not in dark
    assert "blurred" in soft and "dark" not in soft


@pytest.mark.parametrize("edge", ["left", "right", "top", "bottom"])
def test_a_face_that_leaves_the_picture_is_turned_down_once_and_stays_so(photo, edge):
    picture = photo("obama")
    x0, y0, x1, y1 = look_at(np.asarray(picture)).face.box
    steps = []
    for share in (-0.4, -0.2, -0.05, 0.1, 0.2, 0.3, 0.4, 0.5):
        cut = {"left": (x0 + share * (x1 - x0), 0, picture.width, picture.height),
               "right": (0, 0, x1 - share * (x1 - x0), picture.height),
               "top": (0, y0 + share * (y1 - y0), picture.width, picture.height),
               "bottom": (0, 0, picture.width, y1 - share * (y1 - y0))}[edge]
        steps.append(picture.crop(tuple(round(max(value, 0)) for value in cut)))
    assert_turns_once(severities(steps, "cut_off", "covered"))


def test_a_face_that_gets_smaller_is_turned_down_once_and_stays_so(photo):
    picture = photo("obama")
    found = []
    for scale in (1, 0.8, 0.6, 0.5, 0.45, 0.35, 0.25, 0.15):
        small = picture.resize((round(picture.width * scale), round(picture.height * scale)),
                               Image.Resampling.LANCZOS)
        found.append(max((SEVERITY[reason.verdict]
                          for reason in judge(look_at(np.asarray(small)), Rules())
                          if reason.rule in ("too_small", "no_face")), default=0))
    assert_turns_once(found)


def test_stronger_compression_is_never_judged_milder(photo, tmp_path):
    found = []
    for quality in (95, 80, 60, 40, 25, 15, 8, 4):
        photo("obama").save(tmp_path / "one.jpg", quality=quality)
        with Image.open(tmp_path / "one.jpg") as stored:
            found += severities([stored.convert("RGB")], "compressed")
    assert_turns_once(found)


def test_stronger_enlargement_is_never_judged_milder(photo):
    picture = photo("obama")
    steps = []
    for factor in (1, 1.5, 2, 3, 4, 6):
        small = picture.resize((round(picture.width / factor), round(picture.height / factor)),
                               Image.Resampling.LANCZOS)
        steps.append(small.resize(picture.size, Image.Resampling.BICUBIC))
    assert_turns_once(severities(steps, "enlarged", "blurred"))
