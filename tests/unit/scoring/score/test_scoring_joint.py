"""Pictures judged by two recognisers together, and where they disagree."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from likeness.nodes.faces.recognise.backends import BOTH
from likeness.nodes.faces.recognise.embed import joint_similarity
from likeness.nodes.scoring.score import report as reports
from likeness.nodes.scoring.score.axes import measure_axes
from likeness.nodes.scoring.score.score import Score, rank, score_pictures, yardstick
from likeness.nodes.scoring.score.sheet import draw_sheet
from likeness.nodes.sockets import Verdict


@pytest.fixture(scope="module")
def measure(obama):
    return yardstick(obama, BOTH)


@pytest.fixture(scope="module")
def scores(pictures, measure) -> dict[str, Score]:
    return dict(zip(pictures, score_pictures(pictures.values(), measure), strict=True))


def test_the_person_is_kept_and_others_are_rejected_by_both_together(scores):
    assert scores["obama"].verdict is Verdict.KEEP
    assert {scores[name].verdict for name in ("biden", "biden2", "astronaut")} == {Verdict.REJECT}


def test_each_judge_also_speaks_alone_as_it_would_without_the_other(scores, pictures, obama):
    for id in ("dlib", "mobilefacenet"):
        alone, = score_pictures([pictures["obama3"]], yardstick(obama, id))
        said, = (one for one in scores["obama3"].opinions if one.backend == id)
        assert said.score == pytest.approx(alone.score, abs=1e-6)
        assert said.verdict is alone.verdict


def test_the_joint_score_lies_between_what_both_say(scores):
    """Of the centre of several photos too: its parts are the centres of each recogniser."""
    for name in ("obama3", "biden", "astronaut"):
        alike = [opinion.score for opinion in scores[name].opinions]
        assert scores[name].score == pytest.approx(joint_similarity(alike, BOTH), abs=1e-6)


def test_a_picture_without_a_face_has_no_opinions(scores):
    assert scores["nobody"].opinions == () and not scores["nobody"].disputed


def test_a_single_judge_disputes_nothing(pictures, obama):
    found, = score_pictures([pictures["obama3"]], yardstick(obama, "dlib"))
    assert found.opinions == () and not found.disputed


@pytest.fixture(scope="module")
def strict(measure):
    """The same judges, of whom one would keep nothing, so that they must disagree."""
    first, second = measure.judges
    never = dataclasses.replace(second.calibration, keep_from=1.1, reject_below=1.05)
    return dataclasses.replace(measure, judges=(
        first, dataclasses.replace(second, calibration=never)))


def test_a_disagreement_is_told_on_the_picture_in_the_report_and_on_the_sheet(pictures, strict,
                                                                             measure):
    shown = [pictures["obama"], pictures["biden"]]
    sheets = {}
    for name, judges in (("agree", measure), ("differ", strict)):
        found = rank(score_pictures(shown, judges))
        report = reports.build(found, [shown[one.index] for one in found], judges,
                               measure_axes(shown, sorted(found, key=lambda one: one.index),
                                            judges))
        sheets[name] = np.asarray(draw_sheet(report, [shown[one.index] for one in found]))
        if name == "agree":
            assert report.data["judges_differ"] == 0
            continue
        best = report.scores[0]
        assert best.disputed and best.verdict is Verdict.KEEP
        assert "dlib alone says keep, mobilefacenet alone says reject" in best.text
        assert report.data["judges_differ"] == 1
        assert [entry["backend"]["id"] for entry in report.data["judges"]] == [
            "dlib", "mobilefacenet"]
        assert report.data["judges"][1]["counts"]["keep"] == 0
        assert report.data["images"][0]["judges_differ"] is True
        assert {one["backend"]: one["verdict"] for one in report.data["images"][0]["judges"]} == {
            "dlib": "keep", "mobilefacenet": "reject"}
    assert (sheets["agree"] != sheets["differ"]).any()
