"""What the coach asks for is kept by the curation, and it speaks where nothing can be selected."""

from __future__ import annotations

import dataclasses
import json

import folder_paths
import pytest
import torch
from likeness.nodes.dataset.coach import coach, coverage, select
from likeness.nodes.dataset.coach.nodes import LikenessCoach, LikenessSelectPhotos
from likeness.nodes.quality.judge import judge
from likeness.nodes.quality.look import Seen
from likeness.nodes.quality.rules import Rules
from likeness.nodes.sockets import HeadPose, PhotoSet, Reason, Verdict

EMPTY = coverage.measure([])
OPTIONS = coach._options(EMPTY, has_light=True)
GOOD = {"faces": 1.0, "second_face": 0.0, "eyes_apart": 134.0, "photo_side": 1000.0,
        "highlights": 200.0, "clipped_bright": 0.0, "strokes": 0.0, "even": 0.0,
        "lines": 6.0, "outside": 0.0, "eyes_closed": 0.1,
        "occlusion": 0.0, "covered_eyes": 0.0, "covered_mouth": 0.0, "covered_hand": 0.0,
        "compression": 1.0, "enlargement": 1.1}


def taken(posed, bins):
    """The photo that a planned shot asks for."""
    smile, teeth, jaw, brows = coach._EXPRESSION[bins["expression"]]
    side, _, warmth, _ = coach._LIGHTS[bins["light"]]
    return posed("new", yaw=coach._YAW[bins["yaw"]], pitch=coach._PITCH[bins["pitch"]],
                 share=coach._DISTANCE[bins["distance"]], side=side, warmth=warmth,
                 mouthSmile=smile, mouthUpperUp=teeth, jawOpen=jaw, browDown=brows)


@pytest.mark.parametrize("bins", OPTIONS, ids=lambda bins: "-".join(bins.values()))
def test_no_rule_of_the_curation_speaks_against_a_shot_that_is_asked_for(posed, bins):
    photo = taken(posed, bins)
    for off in (-2.0, 2.0):  # nobody holds a pose to the degree
        pose = HeadPose(photo.face.pose.yaw + off, photo.face.pose.pitch + off, 0.0)
        face = dataclasses.replace(photo.face, pose=pose)
        seen = Seen(face, {**GOOD, **photo.measures})
        assert judge(seen, Rules()) == ()


@pytest.mark.parametrize("bins", OPTIONS, ids=lambda bins: "-".join(bins.values()))
def test_a_shot_that_is_taken_as_asked_falls_into_its_bins(posed, bins):
    photo = taken(posed, bins)
    for axis, part in coach._parts(bins).items():
        assert coverage.AXIS[axis].bin_of(photo) == part


@pytest.fixture
def host(monkeypatch, tmp_path):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    with torch.inference_mode():
        yield tmp_path


def turned_down(posed):
    dark = Reason("dark", "The face is too dark.", Verdict.REJECT)
    soft = Reason("blurred", "The face is soft.", Verdict.UNSURE)
    return PhotoSet((
        dataclasses.replace(posed("a"), verdict=Verdict.REJECT, reasons=(dark,)),
        dataclasses.replace(posed("b"), verdict=Verdict.UNSURE, reasons=(soft,)),
        dataclasses.replace(posed("c"), verdict=Verdict.UNSURE, reasons=(soft,))))


def test_where_nothing_can_be_selected_the_page_is_made_and_says_so(host, posed):
    photos = turned_down(posed)
    selected, sheet, report = LikenessSelectPhotos.execute(photos, 5, 0.3, False).result
    sentence = json.loads(report)["note"]
    assert sentence == ("None of the 3 photos can be used; set `include_unsure` to use 2, or look "
                        "at the curation's reasons.")
    assert sheet.ndim == 4 and not selected.kept
    assert all(photo.verdict is Verdict.REJECT for photo in selected.photos), "nothing is picked"
    page, advice, data, score = LikenessCoach.execute(selected, False).result
    assert advice.startswith(sentence) and json.loads(data)["headline"].startswith(sentence)
    assert page.shape[1:3] == (1754, 1240) and score == 0
    assert len(list((host / "output" / "likeness").iterdir())) == 2
    again = {entry["rule"]: entry["count"] for entry in json.loads(data)["take_again"]}
    assert again == {"dark": 1, "blurred": 2}


def test_what_cannot_be_used_either_way_has_no_hint(posed):
    photos = PhotoSet(turned_down(posed).photos[:1])
    assert select.select(photos, 3).note == ("The only photo cannot be used; look at the "
                                             "curation's reasons.")
    assert coach.advise(photos).headline.startswith("The only photo cannot be used;")
    assert coach.advise(PhotoSet(())).headline.startswith("There are no photos yet. Take these")
