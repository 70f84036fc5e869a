"""The pictures of a run: what is drawn shows, what is not given is not drawn."""

from __future__ import annotations

import numpy as np
import pytest
from likeness.nodes.training.watch import curve
from likeness.nodes.training.watch.monitor import Look, Shot

GREEN, RED, GOLD = (42, 138, 74), (192, 57, 43), (226, 160, 40)
LOSSES = [1.0 / (1 + step) for step in range(60)]


def _look(step, likeness, copy=0.0, shade=90):
    pixels = np.full((48, 64, 3), shade, np.uint8)
    known = ("scored", 1, likeness, likeness, "a.jpg", copy)
    shot = Shot("a", 0, *(known if likeness is not None else ("no_face",)), pixels=pixels)
    return Look(step, "dlib", True, (shot, shot))


LOOKS = [_look(20, 0.3), _look(40, 0.5, 0.02), _look(60, 0.45, 0.2)]


def _count(picture, colour, tolerance=4):
    return int((np.abs(picture.astype(int) - colour).max(-1) <= tolerance).sum())


def test_losses_alone_make_one_panel():
    picture = curve.draw(LOSSES, "Ann")
    assert picture.shape == (450, 800, 3) and picture.dtype == np.uint8
    assert _count(picture, GREEN) == _count(picture, RED) == _count(picture, GOLD) == 0


def test_looks_add_likeness_and_copy_paste():
    picture = curve.draw(LOSSES, "Ann", LOOKS)
    assert picture.shape == (700, 800, 3)
    assert _count(picture, GREEN) > 100 and _count(picture, RED) > 100
    assert _count(picture[:340], GREEN) == 0


def test_the_kept_step_is_marked_in_both_panels():
    places = []
    for kept in (20, 40):
        picture = curve.draw(LOSSES, "Ann", LOOKS, kept=kept)
        for panel in (picture[60:330], picture[400:640]):  # without the legends' samples
            columns = [_count(panel[:, x:x + 2], GOLD, tolerance=60) for x in range(790)]
            assert max(columns) > 60
            places.append(int(np.argmax(columns)))
    assert abs(places[0] - places[1]) <= 2 and abs(places[2] - places[3]) <= 2
    assert places[2] > places[0] + 50


def test_quarters_of_the_noise_levels_have_a_panel_of_their_own():
    plain = curve.draw(LOSSES, "Ann")
    with_bars = curve.draw(LOSSES, "Ann", quarters=[0.1, None, 0.3, 0.9])
    assert _count(with_bars[:, 640:], (31, 78, 140)) > 1000 + _count(plain[:, 640:], (31, 78, 140))


def test_a_reason_is_written_below_the_title():
    plain = curve.draw(LOSSES, "Ann", LOOKS)
    told = curve.draw(LOSSES, "Ann", LOOKS, reason="held-out likeness peaked at step 40 (0.50) "
                      "and has not risen for 3 looks while copy-paste rose from 0.02 to 0.20.")
    assert (told[20:60] < 100).all(-1).sum() > (plain[20:60] < 100).all(-1).sum() + 200


def test_looks_without_faces_are_marked_and_draw_no_line():
    picture = curve.draw(LOSSES, "Ann", [_look(20, None), _look(40, None)])
    assert _count(picture, RED) < 100  # only its entry in the legend


@pytest.mark.parametrize("losses", [[], [0.5], [0.5, float("nan")]])
def test_short_and_broken_runs_are_drawn(losses):
    assert curve.draw(losses, "Ann", LOOKS, [None] * 4, 20).shape == (700, 800, 3)


def test_a_sheet_has_one_row_for_each_look_and_marks_the_kept_one():
    looks = [_look(20, 0.3, shade=50), _look(40, 0.5, shade=200)]
    picture = curve.sheet(looks, kept=40)
    row = picture.shape[0] // 2
    assert _count(picture[:row], (50, 50, 50), 0) > 1000
    assert _count(picture[row:], (200, 200, 200), 0) > 1000
    assert _count(picture[:row], GOLD) == 0 and _count(picture[row:, :5], GOLD) > 500


def test_a_long_run_shows_an_even_choice_with_the_kept_and_the_last_look():
    looks = [_look(step, 0.3, shade=step % 251) for step in range(1, 101)]
    chosen = curve._chosen(looks, 34)
    steps = [look.step for look in chosen]
    assert len(steps) == 16 and {1, 34, 100} <= set(steps) and steps == sorted(steps)
    assert len(curve._chosen(looks, None)) == 16 and len(curve._chosen(looks[:3], 2)) == 3
    assert curve._chosen(looks, 99)[-1].step == 100


def test_deleted_pictures_leave_an_empty_tile():
    shot = Shot("a", 0, "scored", 1, 0.5, 0.5, "a.jpg", 0.0, "gone.png")
    assert curve.sheet([Look(20, "dlib", True, (shot,))]).shape[2] == 3
