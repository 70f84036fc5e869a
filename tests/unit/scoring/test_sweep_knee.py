"""The choice of a strength from curves of every shape."""

from __future__ import annotations

import pytest
from likeness.nodes.scoring.knee import Point, recommend

STRENGTHS = (0.0, 0.4, 0.6, 0.8, 1.0, 1.2)


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
    clear = points((0.30, 0.55, 0.70, 0.72, 0.73, 0.74), (0.30, 0.295, 0.29, 0.27, 0.24, 0.20))
    noisy = [Point(p.strength, p.likeness, p.flexibility, 0.03, 0.045) for p in clear]
    assert recommend(clear).knee
    found = recommend(noisy)
    assert found.best is None and "differ more" in found.text


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
