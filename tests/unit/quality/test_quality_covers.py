"""What hides a face: dark glasses, masks, hands and shut eyes, drawn on real photos."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType

import numpy as np
import pytest
from likeness.nodes.faces.body import Hand
from likeness.nodes.faces.detect import find_face
from likeness.nodes.media.images import read_photo, resize
from likeness.nodes.quality.covers import hands
from likeness.nodes.quality.covers.eyes import covered_eyes
from likeness.nodes.quality.covers.hands import covered_by_hands, hidden_share
from likeness.nodes.quality.covers.mouth import covered_mouth
from likeness.nodes.quality.judge import judge
from likeness.nodes.quality.look import look_at
from likeness.nodes.quality.occlusion import eyes_closed, occlusion_measures
from likeness.nodes.quality.rules import Rules
from likeness.nodes.quality.tones import lab, landmark_colours
from PIL import Image, ImageDraw, ImageFilter

from launcher.makers.covers.canvas import filled
from launcher.makers.covers.cloth import CLOTHS
from launcher.makers.covers.drawing import EYES, FREE, glasses, mask, near, tilted

PHOTOS = ("obama", "obama3", "biden", "biden2", "astronaut")
UNSURE, REJECT = Rules().occlusion
SIDE = 700  # pixels that a photo is brought to, so that drawing is quick


@pytest.fixture(scope="module")
def faces(assets):
    found = {}
    for name in PHOTOS:
        pixels = read_photo(assets / f"{name}.jpg")
        height, width = pixels.shape[:2]
        scale = min(SIDE / max(height, width), 1.0)
        pixels = resize(pixels, round(scale * width), round(scale * height))
        found[name] = pixels, find_face(pixels)
    return found


def drawn(seen, drawing, seed):
    pixels, face = seen
    return drawing(pixels, face, np.random.default_rng(seed)), face


def mouth_of(pixels, face):
    return covered_mouth(lab(landmark_colours(pixels, face)))


def eyes_of(pixels, face):
    return covered_eyes(pixels, face, lab(landmark_colours(pixels, face)))


@pytest.mark.parametrize("name", PHOTOS)
def test_a_bare_face_is_not_covered(faces, name):
    measures = occlusion_measures(*faces[name], landmark_colours(*faces[name]))
    assert measures["occlusion"] < UNSURE


@pytest.mark.parametrize("side", [100, 250, 1500])
def test_a_bare_face_of_any_size_is_not_covered_and_a_masked_one_is(faces, side):
    scale = side / (faces["obama"][1].box[2] - faces["obama"][1].box[0])
    bare, face = faces["obama"]
    masked, _ = drawn(faces["obama"], near(mask("flowers")), 3)
    height, width = (round(scale * length) for length in bare.shape[:2])
    moved = dataclasses.replace(face, landmarks=face.landmarks * scale,
                                box=tuple(edge * scale for edge in face.box))
    shares = [mouth_of(resize(pixels, width, height), moved) for pixels in (bare, masked)]
    assert shares[0] < UNSURE / 2 and shares[1] > REJECT


@pytest.mark.parametrize("cloth", CLOTHS)
def test_a_mask_of_any_cloth_is_seen(faces, cloth):
    """Cloth of the colour of skin can be missed on one photo, and so can an unlucky pattern."""
    shares = [mouth_of(*drawn(faces[name], near(mask(cloth)), seed))
              for seed, name in enumerate(PHOTOS)]
    assert sum(share > UNSURE for share in shares) >= 4, shares


def test_scarves_and_masks_below_the_nose_are_seen(faces):
    for place in ("scarf", "below the nose"):
        shares = [mouth_of(*drawn(faces[name], near(mask("blue", "black", "checks", place=place)),
                                  seed)) for seed, name in enumerate(PHOTOS)]
        assert sum(share > UNSURE for share in shares) >= 4, (place, shares)


@pytest.mark.parametrize("what", [name for name in FREE if "tilted" not in name])
def test_what_leaves_eyes_and_mouth_free_is_no_cover(faces, what):
    for seed, name in enumerate(PHOTOS):
        seen = drawn(faces[name], FREE[what], seed)
        assert mouth_of(*seen) < UNSURE and eyes_of(*seen) < UNSURE, name


@pytest.mark.parametrize("what", [name for name in EYES if "tilted" not in name])
def test_dark_glasses_are_seen_and_do_not_cover_the_mouth(faces, what):
    """Brown glass that lets most of the light through can be missed on one photo."""
    seen = [drawn(faces[name], EYES[what], seed) for seed, name in enumerate(PHOTOS)]
    least = 4 if what == "brown glasses" else 5
    assert sum(eyes_of(*photo) > UNSURE for photo in seen) >= least
    assert max(mouth_of(*photo) for photo in seen) < UNSURE


def test_dark_glasses_over_a_mask_are_seen_beside_it(faces):
    for seed, cloth in enumerate(("black", "blue", "words", "white")):
        pixels, face = drawn(faces[PHOTOS[seed]], near(mask(cloth)), seed)
        seen = drawn((pixels, face), near(glasses("black")), seed)
        assert eyes_of(*seen) > UNSURE and mouth_of(*seen) > UNSURE, cloth


@pytest.mark.parametrize("kind,covered", [("black", True), ("clear", False)])
def test_glasses_on_a_tilted_head_are_judged_like_upright_ones(faces, kind, covered):
    for seed, name in enumerate(("obama", "biden2")):
        pixels, _ = drawn(faces[name], tilted(near(glasses(kind))), seed)
        assert (eyes_of(pixels, find_face(pixels)) > UNSURE) is covered, name


def test_glasses_over_one_eye_alone_do_not_cover_both(faces):
    pixels, face = faces["obama"]
    dark, _ = drawn(faces["obama"], near(glasses("black")), 0)
    middle = int(face.landmarks[6, 0])
    half = np.concatenate([dark[:, :middle], pixels[:, middle:]], axis=1)
    assert eyes_of(half, face) < UNSURE < eyes_of(dark, face)


def test_a_photo_with_dark_glasses_is_rejected_as_covered(faces):
    seen = look_at(drawn(faces["obama"], near(glasses("black")), 0)[0])
    assert ("covered", "reject") in [(reason.rule, reason.verdict.value)
                                     for reason in judge(seen, Rules())]


OPENINGS = ((33, 160, 159, 158, 133, 153, 145, 144), (263, 387, 386, 385, 362, 380, 374, 373))


def test_dark_skin_round_eyes_that_can_be_seen_is_no_cover(faces):
    pixels, face = faces["obama"]
    dark, _ = drawn(faces["obama"], near(glasses("black")), 1)
    open_ = sum(filled(pixels.shape[:2], face.landmarks[list(opening), :2].astype(float), 0.5)
                for opening in OPENINGS)[..., None]
    shadowed = np.uint8(pixels * open_ + dark * (1 - open_))
    assert eyes_of(shadowed, face) < UNSURE < eyes_of(dark, face)


@pytest.mark.parametrize("name", ["obama", "biden2"])
def test_blurred_eyes_are_no_covered_ones(faces, name):
    pixels, face = faces[name]
    width, height = pixels.shape[1::-1]
    tiny = max(round(30 * width / face.size[0]), 8), max(round(30 * height / face.size[0]), 8)
    assert eyes_of(resize(resize(pixels, *tiny), width, height), face) < UNSURE


def a_hand(x, y, size):
    """A hand whose palm starts at a point and whose fingers reach up."""
    points = [(0.5, 1.0), *((0.1 - 0.05 * joint, 0.9 - 0.15 * joint) for joint in range(4))]
    for finger in range(4):
        points += [(0.25 + 0.2 * finger, 0.5 - 0.16 * joint) for joint in range(4)]
    return Hand(np.float32(points) * size + np.float32((x, y)), left=False)


OVAL = np.array([(50 + 50 * np.cos(turn), 70 + 70 * np.sin(turn))
                 for turn in np.linspace(0, 2 * np.pi, 36, endpoint=False)])


def test_a_hand_before_the_face_hides_the_share_that_it_covers():
    half = hidden_share(OVAL, [a_hand(0, 20, 100)], 6.0)
    assert 0.25 < half < 0.8
    assert hidden_share(OVAL, [a_hand(200, 20, 100)], 6.0) == hidden_share(OVAL, [], 6.0) == 0
    assert 0 < hidden_share(OVAL, [a_hand(20, 110, 50)], 6.0) < half / 2


@pytest.mark.parametrize("places", [(13, 14), (468,)], ids=["mouth", "eye"])
def test_a_hand_over_the_mouth_or_one_eye_is_seen_however_little_of_the_face_it_hides(
        faces, monkeypatch, places):
    pixels, face = faces["obama"]
    crop = hands.crop_round(pixels, face.box, margin=0.5)
    scale = 256 / crop[0].shape[0]
    x, y = (face.landmarks[list(places), :2].mean(0) - crop[1]) * scale
    size = 0.45 * scale * face.size[0]

    def over(*_):
        return [a_hand(x - size / 2, y - size / 2, size)]

    monkeypatch.setattr(hands, "find_hands", over)
    assert covered_by_hands(pixels, face) > UNSURE
    monkeypatch.setattr(hands, "find_hands", lambda *_: [a_hand(0, 200, 60)])
    assert covered_by_hands(pixels, face) < UNSURE / 2


def test_a_tight_crop_shows_no_hand(assets):
    """What lies beyond the picture's edge must not look like fingers."""
    pixels = read_photo(assets / "biden.jpg")
    x0, y0, x1, y1 = find_face(pixels).box
    side = max(x1 - x0, y1 - y0)
    for above in (-0.1, 0.0, 0.1):
        crop = pixels[max(int(y0 - above * side), 0):int(y1 - 0.05 * side),
                      int(x0 + 0.1 * side):int(x1 + 0.2 * side)]
        small = resize(np.ascontiguousarray(crop), crop.shape[1] // 2, crop.shape[0] // 2)
        assert covered_by_hands(small, find_face(small)) < UNSURE / 2


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


LIDS = ((33, 133, 159, 145, 52), (362, 263, 386, 374, 282))  # corners, upper and lower lid, brow


def lids_drawn(pixels, face):
    """Stretch the skin above each eye over it and draw the lashes below."""
    picture = Image.fromarray(pixels)
    for *corners, upper, lower, brow in LIDS:
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
