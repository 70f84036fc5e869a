"""Expressions by name: the same for what a set shows and for captions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from likeness.nodes.dataset.caption.caption import caption
from likeness.nodes.dataset.coach.coverage import AXIS
from likeness.nodes.quality.expression import EXPRESSIONS, expression_of, eyes_shut
from likeness.nodes.sockets import Face, HeadPose, Photo

SIDED = ("mouthSmile", "mouthUpperUp", "browDown", "mouthFrown", "mouthPress", "eyeBlink")


def face(mouth=0.7, gap=0.02, **shapes):
    """A face with blendshapes by name; mouth and gap over the distance of the eyes."""
    mesh = np.zeros((478, 3), np.float32)
    for (a, b), size, axis in (((33, 263), 1, 0), ((61, 291), mouth, 0), ((13, 14), gap, 1)):
        mesh[a, axis], mesh[b, axis] = -4.5 * size, 4.5 * size
    found = {f"{name}{side}": value for name, value in shapes.items()
             for side in (("Left", "Right") if name in SIDED else ("",))}
    return Face((0, 0, 300, 300), mesh, mesh, HeadPose(0, 0, 0), found)


CASES = [
    ("neutral", face(jawOpen=0.01)), ("neutral", face(browDown=0.6)),
    ("serious", face(browDown=0.75)),
    ("scowl", face(browDown=0.95)), ("scowl", face(browDown=0.75, mouthFrown=0.2)),
    ("scowl", face(browDown=0.75, mouthPress=0.75)),
    ("scowl", face(browDown=0.75, mouthShrugLower=0.6)),
    ("smile", face(mouthSmile=0.6, browDown=0.95)), ("laugh", face(mouthSmile=0.8, jawOpen=0.4)),
    ("laugh", face(mouthSmile=0.8, mouthUpperUp=0.5)),
    ("talking", face(mouth=0.58, jawOpen=0.4)),
    ("talking", face(mouth=0.58, gap=0.3, jawOpen=0.05)),
    ("talking", face(mouth=0.6, mouthSmile=0.8, jawOpen=0.5)),
    ("talking", face(mouth=0.6, mouthSmile=0.8, gap=0.3, jawOpen=0.05)),
    ("pout", face(mouth=0.5, mouthPucker=0.7)), ("pout", face(mouth=0.5, mouthFunnel=0.4)),
]


@pytest.mark.parametrize(("name", "made"), CASES, ids=range(len(CASES)))
def test_a_face_is_named_by_what_it_does(name, made):
    assert expression_of(made) == name


@pytest.mark.parametrize(("name", "made"), CASES, ids=range(len(CASES)))
def test_the_coach_and_the_captions_see_the_same(tmp_path, name, made):
    photo = Photo(tmp_path / "a.jpg", "a.jpg", "0", 900, 900, face=made)
    assert AXIS["expression"].bin_of(photo) == name
    words = {"neutral": "neutral expression", "serious": "serious expression", "smile": "smiling",
             "laugh": "smiling with teeth", "talking": "mouth open", "scowl": "scowling",
             "pout": "pouting"}
    assert caption(photo, "ohwx", "man", "{subject}, {expression}") == f"ohwx man, {words[name]}"
    assert set(words) == set(EXPRESSIONS) == {part.id for part in AXIS["expression"].bins}


def test_shut_eyes_come_before_the_mouth(tmp_path):
    shut = face(mouthSmile=0.8, eyeBlink=0.9)
    photo = Photo(tmp_path / "a.jpg", "a.jpg", "0", 900, 900, face=shut)
    assert eyes_shut(shut) and "eyes closed" in caption(photo, "ohwx", "man")
    assert not eyes_shut(dataclasses.replace(shut, expression={"eyeBlinkLeft": 0.9}))
