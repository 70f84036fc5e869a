"""The choice of a strength from curves of every shape."""

from __future__ import annotations

import numpy as np
import pytest
from likeness.nodes.scoring.sweep.knee import Point, best_model
from likeness.nodes.scoring.sweep.knee import recommend as recommend_with

STRENGTHS = (0.0, 0.4, 0.6, 0.8, 1.0, 1.2)
LIKENESS = (0.30, 0.55, 0.70, 0.72, 0.73, 0.74)
FLEXIBILITY = (0.30, 0.295, 0.29, 0.27, 0.24, 0.20)


def recommend(curve):
    return recommend_with(curve, 55)


def points(likeness, flexibility, error=0.0):
    return [Point(strength, alike, free, error, error)
            for strength, alike, free in zip(STRENGTHS, likeness, flexibility, strict=True)]


def test_the_knee_lies_where_likeness_has_come_and_flexibility_has_not_gone():
    found = recommend(points((0.30, 0.55, 0.70, 0.72, 0.73, 0.74),
                             (0.30, 0.295, 0.29, 0.27, 0.24, 0.20)))
    assert (found.best, found.knee) == (0.6, True)
    assert found.heights[2] == pytest.approx((0.40 / 0.44) - 0.1, abs=1e-6)


def test_the_order_of_the_strengths_does_not_matter():
    curve = points((0.30, 0.55, 0.70, 0.72, 0.73, 0.74), (0.30, 0.295, 0.29, 0.27, 0.24, 0.20))
    back = recommend(curve[::-1])
    assert back.best == 0.6 and back.heights == recommend(curve).heights[::-1]


def test_an_even_trade_has_no_knee():
    found = recommend(points((0.2, 0.4, 0.5, 0.6, 0.7, 0.8), (0.8, 0.6, 0.5, 0.4, 0.3, 0.2)))
    assert found.best is None and not found.knee and "no knee" in found.text


def test_a_slight_bend_is_no_knee():
    found = recommend(points((0.2, 0.41, 0.52, 0.62, 0.71, 0.8), (0.8, 0.6, 0.5, 0.4, 0.3, 0.2)))
    assert 0 < max(found.heights) < 0.1 and found.best is None and not found.knee


def test_a_trade_that_starts_badly_has_no_knee():
    found = recommend(points((0.2, 0.22, 0.25, 0.3, 0.4, 0.8), (0.8, 0.4, 0.3, 0.25, 0.22, 0.2)))
    assert found.best is None and "no knee" in found.text


def test_a_flat_likeness_has_no_knee():
    found = recommend(points((0.40, 0.41, 0.405, 0.41, 0.40, 0.41), (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)))
    assert found.best is None and "hardly changes" in found.text


def test_where_flexibility_stays_the_least_strength_that_is_as_alike_is_taken():
    found = recommend(points((0.2, 0.5, 0.7, 0.70, 0.70, 0.70), [0.3] * 6))
    assert (found.best, found.knee) == (0.6, False)


def test_a_curve_that_still_rises_says_to_go_on():
    found = recommend(points((0.2, 0.3, 0.4, 0.5, 0.6, 0.7), (0.5, 0.1, 0.4, 0.4, 0.4, 0.5)))
    assert (found.best, found.knee) == (1.2, False) and "higher" in found.text


def test_a_strength_that_does_harm_says_so():
    found = recommend(points((0.7, 0.5, 0.4, 0.3, 0.2, 0.1), (0.8, 0.6, 0.5, 0.4, 0.3, 0.2)))
    assert (found.best, found.knee) == (0.0, False) and "harm" in found.text


def test_a_bend_within_the_noise_is_none():
    clear = points((0.30, 0.45, 0.55, 0.62, 0.68, 0.74), (0.30, 0.285, 0.265, 0.245, 0.225, 0.20))
    noisy = [Point(p.strength, p.likeness, p.flexibility, 0.03, 0.015) for p in clear]
    assert recommend(clear).knee
    found = recommend(noisy)
    assert found.best is None and "differ more" in found.text


def test_one_picture_a_strength_has_no_knee_however_clear_it_looks():
    found = recommend_with(points(LIKENESS, FLEXIBILITY), 0)
    assert found.best is None and "One picture per strength" in found.text
    assert "`seeds`" in found.text


def test_gaps_are_left_out_and_never_count_as_zero():
    curve = points((None, 0.55, 0.70, None, 0.73, 0.74), (0.30, 0.295, 0.29, 0.27, 0.24, 0.20))
    found = recommend(curve)
    assert (found.best, found.knee) == (0.6, True)
    assert found.heights[0] is None and found.heights[3] is None


@pytest.mark.parametrize("likeness, word", [
    ([None] * 6, "No picture"), ([0.5, 0.7] + [None] * 4, "Only 2"), ([0.5] + [None] * 5, "one")])
def test_too_little_to_choose_from_is_said(likeness, word):
    found = recommend(points(likeness, [0.3] * 6))
    assert found.best is None and word in found.text


def rate(likeness, flexibility, cells, times=400, noise=(0.05, 0.03)):
    """Share of sweeps with a knee: every mean of `cells` pictures, with a fixed seed."""
    drawn = np.random.default_rng(cells)
    found = 0
    for _ in range(times):
        means = [np.add(truth, drawn.normal(0, spread, (cells, 6))) for truth, spread
                 in zip((likeness, flexibility), noise, strict=True)]
        errors = [each - each.mean(1, keepdims=True) - each.mean(0) + each.mean()
                  for each in means]
        freedom = 5 * (cells - 1)
        errors = [float(np.sqrt((each ** 2).sum() / freedom / cells)) for each in errors]
        curve = [Point(strength, alike, free, *errors) for strength, alike, free
                 in zip(STRENGTHS, means[0].mean(0), means[1].mean(0), strict=True)]
        found += recommend_with(curve, freedom).knee
    return found / times


@pytest.mark.parametrize("cells", [2, 4, 12])
def test_noise_has_hardly_ever_a_knee(cells):
    assert rate([0.5] * 6, [0.3] * 6, cells) <= 0.05


@pytest.mark.parametrize("cells", [4, 12])
def test_a_straight_trade_has_hardly_ever_a_knee(cells):
    straight = np.linspace(0, 1, 6)
    assert rate(0.3 + 0.4 * straight, 0.4 - 0.3 * straight, cells) <= 0.05


@pytest.mark.parametrize("cells, least", [(4, 0.8), (12, 0.95)])
def test_a_real_knee_is_found_in_the_noise(cells, least):
    assert rate(LIKENESS, (0.40, 0.395, 0.38, 0.32, 0.25, 0.15), cells) >= least


def models(*pairs, error=0.01):
    return [Point(float(place), alike, free, error, error)
            for place, (alike, free) in enumerate(pairs)]


def test_of_two_models_the_more_alike_is_taken_and_its_flexibility_told():
    found = best_model(["early", "late"], models((0.5, 0.3), (0.8, 0.2)), 10)
    assert (found.best, found.knee) == (1.0, False)
    assert "`late`" in found.text and "flexibility 0.20" in found.text
    assert "strength" not in found.text


def test_of_models_alike_within_the_error_the_most_flexible_is_taken_in_any_order():
    pairs = ((0.70, 0.20), (0.60, 0.90), (0.71, 0.25), (0.705, 0.40))
    names = ["a", "b", "c", "d"]
    assert best_model(names, models(*pairs), 30).best == 3
    back = best_model(names[::-1], models(*pairs[::-1]), 30)
    assert back.best == 0 and "`d`" in back.text and "within the error" in back.text


def test_models_with_one_picture_each_are_compared_with_a_warning():
    found = best_model(["a", "b"], models((0.5, None), (0.8, None), error=0.0), 0)
    assert found.best == 1 and "raise `seeds`" in found.text and "not measured" in found.text
    assert best_model(["a"], models((None, 0.3)), 0).best is None
