"""What hides a face: dark glasses, masks, hands and shut eyes, drawn on real photos."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType

import numpy as np
import pytest
from likeness.nodes.faces.body import Hand
from likeness.nodes.faces.detect import find_face
from likeness.nodes.quality.judge import judge
from likeness.nodes.quality.look import look_at
from likeness.nodes.quality.occlusion import (
    covered_eyes,
    covered_mouth,
    eyes_closed,
    hidden_share,
    occlusion_measures,
)
from likeness.nodes.quality.rules import Rules
from likeness.nodes.quality.tones import lab, landmark_colours
from PIL import Image, ImageDraw, ImageFilter

GLASSES = ((70, 63, 105, 66, 107, 193, 245, 188, 126, 100, 118, 117, 111, 35, 124),
           (300, 293, 334, 296, 336, 417, 465, 412, 355, 329, 347, 346, 340, 265, 353))
MASK = ((6, 196, 114, 50, 123, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378,
         379, 365, 397, 288, 361, 323, 454, 352, 280, 343, 419),)
OPENINGS = ((33, 160, 159, 158, 133, 153, 145, 144), (263, 387, 386, 385, 362, 380, 374, 373))
PHOTOS = ("obama", "obama3", "biden", "biden2", "astronaut")


@pytest.fixture(scope="module")
def faces(assets):
    found = {}
    for name in PHOTOS:
        with Image.open(assets / f"{name}.jpg") as picture:
            pixels = np.asarray(picture.convert("RGB"))
        found[name] = pixels, find_face(pixels)
    return found


def painted(pixels, face, shapes, colour):
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for shape in shapes:
        draw.polygon([tuple(face.landmarks[point, :2]) for point in shape], fill=colour)
    return np.asarray(picture)


def colours(pixels, face):
    return lab(landmark_colours(pixels, face))


@pytest.mark.parametrize("name", PHOTOS)
def test_a_bare_face_is_not_covered(faces, name):
    seen = colours(*faces[name])
    assert covered_eyes(seen) < 0.2 and covered_mouth(seen) < 0.2


@pytest.mark.parametrize("colour", [(12, 12, 14), (60, 45, 35)], ids=["black", "brown"])
@pytest.mark.parametrize("name", PHOTOS)
def test_dark_glasses_are_seen(faces, name, colour):
    pixels, face = faces[name]
    seen = colours(painted(pixels, face, GLASSES, colour), face)
    assert covered_eyes(seen) > Rules().occlusion[0] and covered_mouth(seen) < 0.3


@pytest.mark.parametrize("colour", [(235, 238, 240), (150, 190, 220), (20, 20, 22)],
                         ids=["white", "blue", "black"])
@pytest.mark.parametrize("name", PHOTOS)
def test_a_mask_over_the_mouth_is_seen(faces, name, colour):
    pixels, face = faces[name]
    assert covered_mouth(colours(painted(pixels, face, MASK, colour), face)) > 0.4


def test_glasses_over_one_eye_alone_do_not_cover_both(faces):
    pixels, face = faces["obama"]
    assert covered_eyes(colours(painted(pixels, face, GLASSES[:1], (12, 12, 14)), face)) < 0.4


def test_a_photo_with_dark_glasses_is_rejected_as_covered(faces):
    pixels, face = faces["obama"]
    seen = look_at(painted(pixels, face, GLASSES, (12, 12, 14)))
    assert ("covered", "reject") in [(reason.rule, reason.verdict.value)
                                     for reason in judge(seen, Rules())]


def test_dark_skin_round_eyes_that_can_be_seen_is_no_cover(faces):
    pixels, face = faces["obama3"]
    dark = painted(pixels, face, GLASSES, (50, 38, 32))
    shape = Image.new("L", dark.shape[1::-1])
    for opening in OPENINGS:
        ImageDraw.Draw(shape).polygon([tuple(face.landmarks[point, :2]) for point in opening],
                                      fill=255)
    shadowed = np.where(np.asarray(shape)[..., None] > 0, pixels, dark)
    assert covered_eyes(colours(shadowed, face)) > Rules().occlusion[0]
    bare, hidden = (occlusion_measures(picture, face, landmark_colours(picture, face))
                    for picture in (shadowed, dark))
    assert bare["covered_eyes"] < 0.1 < Rules().occlusion[0] < hidden["covered_eyes"]


def a_hand(x, y, size):
    """A hand whose palm starts at a point and whose fingers reach up."""
    points = [(0.5, 1.0), *((0.1 - 0.05 * joint, 0.9 - 0.15 * joint) for joint in range(4))]
    for finger in range(4):
        points += [(0.25 + 0.2 * finger, 0.5 - 0.16 * joint) for joint in range(4)]
    return Hand(np.float32(points) * size + np.float32((x, y)), left=False)


OVAL = np.array([(50 + 50 * np.cos(turn), 70 + 70 * np.sin(turn))
                 for turn in np.linspace(0, 2 * np.pi, 36, endpoint=False)])


def test_a_hand_before_the_face_hides_the_share_that_it_covers():
    half = hidden_share(OVAL, [a_hand(0, 20, 100)])
    assert 0.25 < half < 0.8
    assert hidden_share(OVAL, [a_hand(200, 20, 100)]) == hidden_share(OVAL, []) == 0
    assert 0 < hidden_share(OVAL, [a_hand(20, 110, 50)]) < half / 2


def test_both_eyes_shut_is_unsure_and_a_wink_is_not(faces):
    pixels, face = faces["obama"]
    seen = look_at(pixels)

    def verdicts(left, right):
        shapes = {**face.expression, "eyeBlinkLeft": left, "eyeBlinkRight": right}
        shut = dataclasses.replace(face, expression=MappingProxyType(shapes))
        measures = {**seen.measures, "eyes_closed": eyes_closed(shut)}
        return [(reason.rule, reason.verdict.value) for reason in
                judge(dataclasses.replace(seen, measures=measures), Rules())]

    assert verdicts(0.8, 0.8) == [("eyes_closed", "unsure")]
    assert verdicts(0.9, 0.1) == []


EYES = ((33, 133, 159, 145, 52), (362, 263, 386, 374, 282))  # corners, upper and lower lid, brow


def lids_drawn(pixels, face):
    """Stretch the skin above each eye over it and draw the lashes below."""
    picture = Image.fromarray(pixels)
    for *corners, upper, lower, brow in EYES:
        points = face.landmarks[:, :2]
        left, right = sorted(int(points[corner, 0]) for corner in corners)
        wide = right - left
        left, right = left - wide // 6, right + wide // 6
        top = int(points[brow, 1] + 0.25 * (points[upper, 1] - points[brow, 1]))
        end, bottom = int(points[upper, 1] - 0.12 * wide), int(points[lower, 1] + 0.02 * wide)
        skin = Image.fromarray(pixels[top:max(end, top + 2), left:right])
        lid = skin.resize((right - left, bottom - top), Image.Resampling.BICUBIC)
        shape = Image.new("L", lid.size, 0)
        ImageDraw.Draw(shape).ellipse((0, -lid.height, lid.width, lid.height), fill=255)
        picture.paste(lid, (left, top), shape.filter(ImageFilter.GaussianBlur(2)))
        ImageDraw.Draw(picture).arc(
            (left + wide // 8, bottom - wide // 3, right - wide // 8, bottom + 1), 15, 165,
            fill=(45, 28, 22), width=max(2, wide // 14))
    return np.asarray(picture)


@pytest.mark.parametrize("name", ["obama3", "astronaut"])
def test_drawn_lids_close_the_eyes(faces, name):
    pixels, face = faces[name]
    limit = Rules().eyes_closed
    assert look_at(pixels).measures["eyes_closed"] < 0.75 * limit
    assert look_at(lids_drawn(pixels, face)).measures["eyes_closed"] > limit
