"""What the judge says of one face: its size, its passers-by and which way the head looks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from likeness.nodes.media.views import PhotoPixels
from likeness.nodes.quality import look as looking
from likeness.nodes.quality.judge import judge
from likeness.nodes.quality.look import look_at
from likeness.nodes.quality.measures import eyes_apart
from likeness.nodes.quality.near import DETAIL, near
from likeness.nodes.quality.rules import EYES_PER_WIDTH, Rules
from likeness.nodes.sockets import HeadPose
from PIL import Image, ImageFilter

LEFT_IRIS, RIGHT_IRIS = 473, 468


@pytest.fixture(scope="module")
def opened(assets):
    def read(name):
        with Image.open(assets / f"{name}.jpg") as picture:
            return picture.convert("RGB")

    return read


@pytest.fixture(scope="module")
def seen(opened):
    return look_at(np.asarray(opened("obama")))


def measured(seen, **measures):
    return judge(dataclasses.replace(seen, measures={**seen.measures, **measures}), Rules())


@pytest.mark.parametrize("name", ["obama", "obama3", "biden", "biden2", "astronaut"])
def test_the_eyes_lie_as_far_apart_as_their_irises(opened, name):
    face = look_at(np.asarray(opened(name))).face
    irises = np.linalg.norm(face.landmarks[LEFT_IRIS] - face.landmarks[RIGHT_IRIS])
    assert eyes_apart(face) == pytest.approx(irises, rel=0.12)


def test_irises_guessed_at_one_place_do_not_bring_the_eyes_together(seen):
    landmarks = seen.face.landmarks.copy()
    landmarks[LEFT_IRIS] = landmarks[RIGHT_IRIS]
    assert eyes_apart(dataclasses.replace(seen.face, landmarks=landmarks)) == eyes_apart(seen.face)


def test_a_face_is_too_small_only_when_width_and_eyes_agree(seen):
    narrow, wide = 100 * EYES_PER_WIDTH, 140 * EYES_PER_WIDTH
    assert [reason.rule for reason in measured(seen, face_width=100.0, eyes_apart=narrow)] == [
        "too_small"]
    assert not measured(seen, face_width=140.0, eyes_apart=narrow)
    assert not measured(seen, face_width=100.0, eyes_apart=wide)


def test_a_face_a_little_too_small_is_not_said_to_have_what_is_asked_for(seen):
    (reason,) = measured(seen, face_width=127.9, eyes_apart=127.9 * EYES_PER_WIDTH)
    assert "127 pixels wide; 128 are asked for" in reason.text


def test_small_faces_of_a_crowd_are_not_told_to_come_closer(seen):
    crowd = measured(seen, faces=12.0, second_face=0.9, face_width=60.0, eyes_apart=20.0)
    said = {reason.rule: reason.text for reason in crowd}
    assert said["too_small"].startswith("12 faces, none of them large (the one judged is 60 pixels")
    assert "to the one person or choose another photo" in said["too_small"]
    alone = measured(seen, faces=12.0, second_face=0.2, face_width=60.0, eyes_apart=20.0)
    assert "come closer" in alone[0].text


@pytest.mark.parametrize(("pitch", "way"), [(40.0, "down"), (-40.0, "up")])
def test_a_head_that_looks_down_or_up_is_told_which(seen, pitch, way):
    nodding = dataclasses.replace(seen.face, pose=HeadPose(0.0, pitch, 0.0))
    (reason,) = judge(dataclasses.replace(seen, face=nodding), Rules())
    assert reason.text.startswith(f"The head looks 40 degrees {way},")


def beside(opened, other, place):
    both = Image.new("RGB", (1600, 1137), "grey")
    both.paste(opened("obama"), (0, 0))
    both.paste(other, place)
    return look_at(np.asarray(both))


def rules_of(seen):
    return [reason.rule for reason in judge(seen, Rules())]


def test_a_second_face_in_focus_counts(opened):
    found = beside(opened, opened("biden2").resize((420, 420)), (1000, 200))
    assert found.measures["faces"] == 2 and rules_of(found) == ["several_faces"]


def test_a_face_out_of_focus_behind_the_person_does_not_count(opened):
    blurred = opened("biden2").resize((420, 420)).filter(ImageFilter.GaussianBlur(6))
    found = beside(opened, blurred, (1000, 200))
    assert found.measures["faces"] == 2 and rules_of(found) == []


def test_a_face_that_the_edge_cuts_off_does_not_count(opened):
    both = Image.new("RGB", (1600, 1137), "grey")
    both.paste(opened("obama"), (0, 0))
    both.paste(opened("biden2").resize((420, 420)), (1000, 200))
    pixels = np.asarray(both)
    found = look_at(pixels)
    face, other = found.face, found.others[0].face
    wider = 1 / found.measures["second_face"]
    edge = int(other.box[0] + 0.7 * other.size[0])
    for shown, counts in ((pixels, True), (pixels[:, :edge], False)):
        photo = PhotoPixels(np.ascontiguousarray(shown))
        assert looking._rivals(photo, near(photo, face, DETAIL), other, wider) is counts


def test_a_small_sharp_face_is_not_taken_for_a_blurred_one(opened):
    found = beside(opened, opened("biden2").resize((270, 270)), (1100, 300))
    assert found.measures["faces"] == 2
    assert found.measures["second_face"] == pytest.approx(
        found.others[0].measures["face_width"] / found.measures["face_width"])


def test_every_cover_is_named(seen):
    found = measured(seen, covered_eyes=0.9, covered_mouth=0.5, occlusion=0.9)
    assert [(reason.rule, reason.verdict.value) for reason in found] == [
        ("covered", "reject"), ("covered", "unsure")]
    assert "eyes" in found[0].text and "mouth" in found[1].text


def test_what_blur_has_smeared_is_not_called_covered(seen):
    smeared = {"sharpness": 60.0, "covered_eyes": 0.9, "covered_mouth": 0.9}
    assert [reason.rule for reason in measured(seen, **smeared)] == ["blurred"]
    found = measured(seen, **smeared, covered_hand=0.9)
    assert {reason.rule for reason in found} == {"blurred", "covered"}
