"""Choosing from real photos by rule, and what the node does with none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import folder_paths
import numpy as np
import pytest
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from likeness.nodes.errors import LikenessError
from likeness.nodes.media.images import read_photo, resize, to_image
from likeness.nodes.scoring.pick.nodes import LikenessPick, scored
from likeness.nodes.scoring.pick.pick import (
    PickRules,
    best_one,
    none_left,
    order_of,
    patterns_of,
    pick,
)
from likeness.nodes.scoring.pick.sheet import draw_picks

OPEN = {"verdict": "any scored", "copies": True, "quality": "any", "min_difference": 0}


@pytest.fixture(scope="module")
def batch(pictures, assets):
    """Nobody, somebody else, the subject, the same brighter, a photo that trained."""
    subject = pictures["obama3"]
    brighter = np.uint8(np.clip(subject * 1.06, 0, 255))
    known = resize(read_photo(assets / "obama.jpg")[:910, :], 600, 600)
    return [pictures["nobody"], pictures["biden"], subject, brighter, known]


@pytest.fixture(scope="module")
def report(batch, obama):
    return scored(batch, obama, "dlib")


def choose(batch, report, **rules):
    choices = pick(report.scores, report.axes, patterns_of(batch, report.scores),
                   PickRules(**rules))
    return [choice.index for choice in choices if choice.picked], {
        choice.index: choice.rule for choice in choices}


def test_without_limits_all_that_have_a_score_are_picked_best_first(batch, report):
    picked, rules = choose(batch, report, **OPEN)
    ranked = [score.index for score in report.scores if score.score is not None]
    assert picked == ranked and len(picked) == 4
    assert rules[0] == "score"


def test_somebody_else_is_not_keep(batch, report):
    picked, rules = choose(batch, report, **{**OPEN, "verdict": "keep or unsure"})
    assert rules[1] == "verdict" and 1 not in picked and 4 in picked


def test_a_copy_of_a_photo_is_refused(batch, report):
    picked, rules = choose(batch, report, **{**OPEN, "copies": False})
    assert rules[4] == "copy" and 2 in picked


def test_of_two_nearly_equal_pictures_the_better_is_picked(batch, report):
    picked, rules = choose(batch, report, **{**OPEN, "min_difference": 10})
    better, worse = [score.index for score in report.scores if score.index in (2, 3)]
    assert better in picked and rules[worse] == "repeat"


def test_limits_of_score_and_percentile_are_inclusive(batch, report):
    second = report.scores[1]
    picked, rules = choose(batch, report, **OPEN, min_score=second.score)
    assert picked == [score.index for score in report.scores[:2]]
    assert {rules[score.index] for score in report.scores[2:]} == {"score"}
    none, rules = choose(batch, report, **OPEN, min_percentile=100.0)
    assert set(rules.values()) <= {"percentile", "score", "picked"} and 1 not in none


def test_copy_paste_has_a_limit_of_its_own(batch, report):
    value = report.axes.copies[4].copy_paste
    assert 4 not in choose(batch, report, **OPEN, max_copy_paste=value - 0.01)[0]


def test_the_face_must_be_as_good_as_is_asked(batch, obama):
    blurred = [resize(resize(batch[2], 100, 100), 600, 600)]
    soft = scored(blurred, obama, "dlib")
    assert soft.scores[0].score is not None
    assert choose(blurred, soft, **OPEN)[0] == [0]
    assert choose(blurred, soft, **{**OPEN, "quality": "not rejected"})[1] == {0: "quality"}


def test_no_more_than_asked_for_are_picked(batch, report):
    picked, rules = choose(batch, report, **OPEN, count=2)
    assert len(picked) == 2 and list(rules.values()).count("count") == 2


def test_when_nothing_may_be_picked_the_reasons_are_told_or_the_best_is_taken(batch, report):
    choices = pick(report.scores, report.axes, patterns_of(batch, report.scores),
                   PickRules(**OPEN, min_score=1.0))
    assert "None of 5 pictures" in str(none_left(choices)) and "5 by score" in str(
        none_left(choices))
    taken = [choice.index for choice in best_one(choices, report.scores, report.axes,
                                                 PickRules(**OPEN)) if choice.picked]
    assert taken == [report.scores[0].index]


def test_the_best_one_is_no_copy_where_copies_are_refused_and_something_else_is_there(
        batch, report):
    rules = PickRules(**{**OPEN, "copies": False}, min_score=1.0)
    choices = pick(report.scores, report.axes, patterns_of(batch, report.scores), rules)
    assert report.scores[0].index == 4 and report.axes.copies[4].copied
    taken = [choice.index for choice in best_one(choices, report.scores, report.axes, rules)
             if choice.picked]
    assert len(taken) == 1 and not report.axes.copies[taken[0]].copied


def test_a_batch_without_a_face_has_no_best_one(batch, report):
    faceless = [score for score in report.scores if score.score is None]
    choices = pick(faceless, report.axes, {}, PickRules())
    with pytest.raises(LikenessError, match="No face was found"):
        best_one(choices, faceless, report.axes, PickRules())


def test_pictures_are_found_in_any_order_and_others_refused(batch, report):
    assert order_of(report, batch) == list(range(5))
    for order in ([score.index for score in report.scores], [1, 0, 2, 3, 4], [4, 3, 2, 1, 0]):
        given = [batch[index] for index in order]
        assert [given[place] is batch[index]
                for index, place in enumerate(order_of(report, given))] == [True] * 5
    for other in (batch[:4], [*batch, batch[0]], [*batch[:4], batch[3]]):
        with pytest.raises(LikenessError, match="other pictures"):
            order_of(report, other)


def test_a_ranking_whose_best_middle_and_worst_stay_in_place_is_not_taken_for_the_batch(
        pictures, obama):
    first = [pictures[name] for name in ("obama", "obama3", "biden", "biden2", "astronaut")]
    ranked = [score.index for score in scored(first, obama, "dlib").scores]
    batch = [first[ranked[place]] for place in (0, 3, 2, 1, 4)]
    report = scored(batch, obama, "dlib")
    assert [score.index for score in report.scores] == [0, 3, 2, 1, 4]
    given = [batch[score.index] for score in report.scores]
    assert order_of(report, given) == [0, 3, 2, 1, 4]


def test_pictures_that_nobody_is_on_are_told_apart_too(pictures, obama):
    batch = [np.full((600, 600, 3), grey, np.uint8) for grey in (100, 120, 140)]
    report = scored(batch, obama, "dlib")
    assert order_of(report, [batch[2], batch[0], batch[1]]) == [1, 2, 0]
    with pytest.raises(LikenessError, match="other pictures"):
        order_of(report, [batch[0], batch[1], pictures["nobody"] + 1])


def test_an_unknown_choice_is_refused():
    with pytest.raises(LikenessError, match="`verdict`"):
        PickRules(verdict="maybe")


def run(images, subject, **changes):
    inputs = {"count": 4, "verdict": "keep or unsure", "min_score": -1.0, "min_percentile": 0.0,
              "copies": "allow", "max_copy_paste": 1.0, "quality": "any", "min_difference": 0,
              "when_none": "error", "backend": "dlib", **changes}
    with torch.inference_mode():
        return LikenessPick.execute(images, subject, **inputs)


@pytest.fixture
def output(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    return tmp_path


def test_the_node_gives_both_parts_and_writes_what_it_did(output, batch, report, obama):
    images = to_image(np.stack(batch))
    done = run(images, obama, report=report, count=1)
    accepted, rejected, sheet, text, count = done.args
    told = json.loads(text)
    assert count == len(accepted) == 1 and len(rejected) == 4
    assert torch.equal(accepted[0], images[told["picked"][0]])
    assert json.loads(Path(told["report"]).read_text()) == told
    assert Path(told["sheet"]).is_file() and sheet.shape[0] == 1
    assert done.ui["images"][0]["filename"] == "picks_00001.png"
    assert [entry["picked"] for entry in told["images"]].count(True) == 1


def test_nothing_rejected_stops_what_follows_rather_than_giving_a_black_picture(
        output, batch, report, obama):
    few = [batch[2]]
    rejected = run(to_image(np.stack(few)), obama).args[1]
    assert isinstance(rejected, ExecutionBlocker) and rejected.message is None


def test_nothing_accepted_is_an_error_or_the_best_one(output, batch, report, obama):
    images = to_image(np.stack(batch))
    with pytest.raises(LikenessError, match="`when_none`"):
        run(images, obama, report=report, min_score=1.0)
    assert not list(output.iterdir())
    done = run(images, obama, report=report, min_score=1.0, when_none="best one")
    assert done.args[4] == 1


def test_a_report_about_somebody_else_is_refused(output, batch, report, obama):
    with pytest.raises(LikenessError, match="about `Obama`"):
        run(to_image(np.stack(batch)), replace(obama, name="Joe"), report=report)


def test_the_sheet_has_room_for_every_picture(batch, report):
    choices = pick(report.scores, report.axes, patterns_of(batch, report.scores), PickRules())
    assert draw_picks(choices, report, batch).shape[1] == 14 + 5 * 254
