"""Faces that a pen crossed or made: scribbled photos, line drawings, flat cartoons."""

from __future__ import annotations

import numpy as np
import pytest
from likeness.nodes.faces.detect import find_face
from likeness.nodes.media.images import read_photo
from likeness.nodes.quality.covers.strokes import strokes
from likeness.nodes.quality.judge import judge
from likeness.nodes.quality.look import look_at
from likeness.nodes.quality.rules import Rules
from likeness.nodes.training.pictures import class_judge
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

PEOPLE = ("obama", "obama3", "biden", "biden2")
INKS = {"red": (200, 20, 20), "blue": (20, 40, 200), "green": (20, 150, 40), "black": (10, 10, 10),
        "white": (250, 250, 250), "yellow": (240, 200, 0)}


@pytest.fixture(scope="module")
def portraits(assets):
    return {name: read_photo(assets / f"{name}.jpg") for name in PEOPLE}


def scribbled(pixels, ink, seed=0):
    """A line from corner to corner of the face, as a child draws it."""
    random = np.random.default_rng(seed)
    face = find_face(pixels)
    x0, y0, x1, y1 = face.box
    points = [(float(random.uniform(x0, x1)), float(random.uniform(y0, y1))) for _ in range(18)]
    picture = Image.fromarray(pixels)
    ImageDraw.Draw(picture).line(points, fill=INKS[ink], width=round(0.025 * max(face.size)),
                                 joint="curve")
    return np.asarray(picture)


def line_drawing(pixels):
    """Black where a narrow blur is darker than a wide one, on white (Winnemoeller 2012)."""
    grey = Image.fromarray(pixels).convert("L")
    wide = max(find_face(pixels).size) / 100
    narrow, broad = (np.asarray(grey.filter(ImageFilter.GaussianBlur(wide * factor)), np.float32)
                     for factor in (1, 1.6))
    lines = np.where(narrow - broad < -2, 0, 255).astype(np.uint8)
    return np.repeat(lines[..., None], 3, axis=2)


def flat(pixels):
    """Few colours without shading, and dark lines between them."""
    smooth = ImageOps.posterize(Image.fromarray(pixels).filter(ImageFilter.MedianFilter(9)), 2)
    return np.minimum(np.asarray(smooth), line_drawing(pixels))


def rules(pixels):
    return {reason.rule: reason.verdict.value for reason in judge(look_at(pixels), Rules())}


@pytest.mark.parametrize("ink", INKS)
@pytest.mark.parametrize("name", ["obama", "obama3"])
def test_a_scribbled_face_is_never_kept(portraits, name, ink):
    found = rules(scribbled(portraits[name], ink))
    assert "scribbled" in found


SPOILT = {
    "plain": lambda picture: picture,
    "noisy": lambda picture: np.clip(np.asarray(picture) + np.random.default_rng(0).normal(
        0, 25, (picture.height, picture.width, 3)), 0, 255).astype(np.uint8),
    "sharpened": lambda picture: picture.filter(ImageFilter.UnsharpMask(2, 250, 0)),
    "saturated": lambda picture: ImageEnhance.Color(picture).enhance(2),
    "small": lambda picture: picture.reduce(2),
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(3)),
    "dark": lambda picture: ImageEnhance.Brightness(picture).enhance(0.35),
}


@pytest.mark.parametrize("spoilt", SPOILT)
@pytest.mark.parametrize("name", PEOPLE)
def test_a_photo_is_neither_scribbled_nor_drawn_whatever_it_went_through(portraits, name, spoilt):
    pixels = np.asarray(SPOILT[spoilt](Image.fromarray(portraits[name])))
    assert not {"scribbled", "drawn"} & set(rules(pixels))


@pytest.mark.parametrize("name", ["obama", "obama3"])
def test_a_line_drawing_is_called_that_before_it_is_called_burnt_out(portraits, name):
    found = judge(look_at(line_drawing(portraits[name])), Rules())
    drawn, bright = (reason for reason in found if reason.rule in ("drawn", "bright"))
    assert (drawn.rule, drawn.verdict.value) == ("drawn", "reject")
    assert "burnt out to white, or it is drawn" in bright.text


@pytest.mark.parametrize("name", ["obama", "obama3", "biden"])
def test_a_flat_cartoon_is_not_kept(portraits, name):
    assert "drawn" in rules(flat(portraits[name]))


def test_class_photos_may_be_drawings(portraits):
    seen = look_at(line_drawing(portraits["obama"]))
    assert not {"drawn", "scribbled"} & {reason.rule for reason in judge(seen, class_judge.RULES)}


def test_a_burnt_out_photo_is_called_that(portraits):
    """As even as a drawing, so that the reason may add its doubt, but no other reason stands."""
    pixels = np.clip(portraits["biden2"] * 2.4 + 20, 0, 255).astype(np.uint8)
    found = judge(look_at(pixels), Rules())
    assert [reason.rule for reason in found if reason.rule in ("bright", "drawn")] == ["bright"]


def test_thin_strokes_count_by_their_share_of_the_skin(portraits):
    pixels = portraits["obama"]
    face = find_face(pixels)
    shares = []
    for count in range(4):
        picture = Image.fromarray(pixels)
        x0, y0, x1, y1 = face.box
        for line in range(count):
            y = y0 + (0.08 + 0.06 * line) * (y1 - y0)
            ImageDraw.Draw(picture).line((x0, y, x1, y), fill=(200, 20, 20), width=5)
        shares.append(strokes(np.asarray(picture), face))
    assert shares == sorted(set(shares)) and shares[0] < 0.01
