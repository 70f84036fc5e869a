"""Sweeps of real photos as cells: what is measured, stored, drawn and recommended."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from likeness.nodes.errors import LikenessError
from likeness.nodes.media.images import resize
from likeness.nodes.scoring.score.score import yardstick
from likeness.nodes.scoring.sweep.chart import CHART, draw_chart, draw_grid
from likeness.nodes.scoring.sweep.figures import (
    COMPOSITION,
    NOTHING,
    PROMPT,
    VARIETY,
    Judge,
    conclude,
    measure_cells,
    report,
)
from likeness.nodes.scoring.sweep.sweep import (
    Column,
    Store,
    folder_key,
    make_grid,
    parse_prompts,
    parse_strengths,
)

PROMPTS = ("photo of {subject}", "%trigger% as a painting")


def grid_of(subject, strengths, prompts=PROMPTS, seeds=1, most=100):
    columns = [Column(f"{value:g}", value, f"s{value:g}") for value in strengths]
    return make_grid(columns, prompts, "ohwx", subject, 5, seeds, most, True)


@pytest.fixture(scope="module")
def judge(obama):
    return Judge(yardstick(obama, "dlib"))


@pytest.fixture(scope="module")
def swept(obama, judge, pictures, tmp_path_factory):
    """Strengths 0, 0.5 and 1: somebody else, nobody, the subject; one prompt."""
    grid, store = grid_of(obama, (0, 0.5, 1), PROMPTS[:1]), Store(tmp_path_factory.mktemp("cells"))
    shown = [pictures[name] for name in ("biden", "nobody", "obama3")]
    for cell, pixels in zip(grid.cells, shown, strict=True):
        store.write(cell, pixels)
    return grid, store, measure_cells(grid, store, judge), shown


def test_real_photos_as_cells_get_their_real_scores(swept):
    somebody, nobody, subject = swept[2]
    assert (somebody["status"], somebody["verdict"]) == ("scored", "reject")
    assert subject["score"] > somebody["score"] + 0.1
    assert (nobody["status"], nobody["score"], nobody["percentile"]) == ("no_face", None, None)


def test_a_column_without_faces_is_a_gap_and_not_zero(swept, judge):
    grid, store, figures, shown = swept
    result = conclude(grid, figures, shown, judge.measure.calibration)
    assert [point.likeness is None for point in result.points] == [False, True, False]
    assert result.choice.best is None and "three" in result.choice.text
    told = report(result, store, judge, 3)
    assert told["columns"][1]["likeness"] is None and told["columns"][1]["scored"] == 0
    json.dumps(told, allow_nan=False)


def test_stored_figures_are_read_and_those_of_another_judge_measured_again(swept, judge, obama):
    grid, store, figures, _ = swept
    store.write_figures(grid.cells[0], {**figures[0], "score": 0.123})
    assert measure_cells(grid, store, judge)[0]["score"] == 0.123
    other = Judge(judge.measure, max_yaw=5.0)
    again = other.figures(store.read(grid.cells[0]))
    assert store.figures(grid.cells[0], other.key) is None and again["judge"] == other.key
    store.write_figures(grid.cells[0], figures[0])


def test_a_damaged_or_missing_cell_counts_as_not_made(swept, obama, tmp_path):
    grid, store = swept[:2]
    whole = store.picture(grid.cells[0]).read_bytes()
    copy = Store(tmp_path)
    assert store.has(grid.cells[0]) and not copy.has(grid.cells[0])
    copy.picture(grid.cells[0]).write_bytes(whole[:len(whole) // 2])
    assert not copy.has(grid.cells[0])
    with pytest.raises(LikenessError, match="queue the sweep again"):
        copy.read(grid.cells[1])


def test_a_wider_sweep_finds_the_cells_of_a_narrower_one(obama):
    names = {cell.name for cell in grid_of(obama, (0, 1), PROMPTS[:1]).cells}
    wider = {cell.name for cell in grid_of(obama, (0, 0.5, 1), PROMPTS, seeds=2).cells}
    assert names < wider and len(wider) == 12
    assert folder_key("a", 1) == folder_key("a", 1) != folder_key("a", 2)


def test_the_person_stands_in_the_prompts(obama):
    assert grid_of(obama, (1,)).prompts == ("photo of ohwx man", "ohwx as a painting")


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3)).astype(np.uint8)


def flexibility_of(obama, judge, prompts, shown, cosines=None, strengths=(0, 1)):
    figures = [{"score": 0.5, "status": "scored", "verdict": "keep", "copied": False}] * len(shown)
    return conclude(grid_of(obama, strengths, prompts), figures, shown,
                    judge.measure.calibration, cosines)


def test_prompts_that_all_show_the_same_have_no_variety(obama, judge):
    one, other = (resize(noise(seed)[:4, :4], 64, 64) for seed in (1, 2))
    result = flexibility_of(obama, judge, PROMPTS, [one, other, one, one])
    assert result.kind == VARIETY
    assert result.points[0].flexibility > 0.5 and result.points[1].flexibility < 1e-6


def test_with_one_prompt_what_stays_of_strength_zero_counts(obama, judge):
    one, other = (resize(noise(seed)[:4, :4], 64, 64) for seed in (1, 2))
    result = flexibility_of(obama, judge, PROMPTS[:1], [one, other])
    assert result.kind == COMPOSITION
    assert result.points[0].flexibility == pytest.approx(1) and result.points[1].flexibility < 0.5


def test_clip_comes_first_and_without_anything_to_compare_nothing_is_claimed(obama, judge):
    shown = [noise(1), noise(2)]
    result = flexibility_of(obama, judge, PROMPTS[:1], shown, np.array([0.3, 0.2]))
    assert (result.kind, result.points[1].flexibility) == (PROMPT, 0.2)
    bare = flexibility_of(obama, judge, PROMPTS[:1], shown, strengths=(0.5, 1))
    assert bare.kind == NOTHING and bare.points[0].flexibility is None


def test_the_error_of_a_mean_leaves_out_what_differs_by_prompt(obama, judge):
    grid = grid_of(obama, (0, 1))
    scores = (0.2, 0.6, 0.3, 0.7)  # prompts 0.4 apart, both 0.1 better at strength 1
    figures = [{"score": score, "status": "scored", "verdict": "keep", "copied": False}
               for score in scores]
    result = conclude(grid, figures, [noise(seed) for seed in range(4)],
                      judge.measure.calibration)
    assert result.points[1].likeness == pytest.approx(0.5)
    assert result.points[1].likeness_error == pytest.approx(0, abs=1e-9)


def curve_of(obama, judge, scores, strengths):
    grid = grid_of(obama, strengths)
    figures = [{"score": score, "status": "scored" if score else "no_face", "verdict": "keep",
                "copied": False} for score in scores]
    return conclude(grid, figures, [noise(seed) for seed in range(len(scores))],
                    judge.measure.calibration).points


def test_a_strength_that_loses_the_faces_of_a_hard_prompt_does_not_rise_by_that(obama, judge):
    points = curve_of(obama, judge, (0.8, None, 0.8, 0.4, 0.8, 0.4), (0, 0.5, 1))
    assert [point.likeness for point in points] == pytest.approx([0.6, 0.6, 0.6])


def test_a_strength_of_which_less_than_half_is_scored_has_no_likeness(obama, judge):
    prompts = ("a", "b", "c")
    grid = grid_of(obama, (0, 1), prompts)
    figures = [{"score": score, "status": "scored" if score else "no_face", "verdict": "keep",
                "copied": False} for score in (0.9, None, None, 0.5, 0.4, 0.6)]
    result = conclude(grid, figures, [noise(seed) for seed in range(6)], judge.measure.calibration)
    assert result.points[0].likeness is None
    assert result.points[1].likeness == pytest.approx(0.5)


def test_grid_and_chart_are_drawn_with_gaps(swept, judge):
    grid, _, figures, shown = swept
    result = conclude(grid, figures, shown, judge.measure.calibration)
    sheet, chart = draw_grid(result, shown), draw_chart(result)
    assert sheet.shape[1] > 3 * 192 and chart.shape == (CHART[1], CHART[0], 3)
    assert chart.std() > 5


@pytest.mark.parametrize("text, word", [("", "empty"), ("0, x", "`x`"), ("nan", "nan"),
                                        ("5", "-4 to 4"), ("1, 0.5, 1.0", "twice")])
def test_bad_strengths_are_refused_in_a_sentence(text, word):
    with pytest.raises(LikenessError, match=word):
        parse_strengths(text)


def test_strengths_are_sorted_and_prompts_cleaned():
    assert parse_strengths("1.0; 0 0.5,") == (0.0, 0.5, 1.0)
    assert parse_prompts(" a \n\nb\n") == ("a", "b")


@pytest.mark.parametrize("text", [" \n ", "a\na"])
def test_no_prompt_or_the_same_twice_is_refused(text):
    with pytest.raises(LikenessError, match="`prompts`"):
        parse_prompts(text)


def test_too_many_pictures_are_refused_before_any_is_made(obama):
    with pytest.raises(LikenessError, match="3 columns x 2 prompts x 4 seeds are 24 pictures"):
        grid_of(obama, (0, 0.5, 1), seeds=4, most=20)


def test_the_files_of_a_cell_lie_in_its_folder(swept):
    grid, store = swept[:2]
    names = {Path(name).suffix for name in store.folder.iterdir()}
    assert names == {".png", ".json"} and store.picture(grid.cells[0]).parent == store.folder
