"""From similarities to verdicts."""

from __future__ import annotations

import math

import pytest
from likeness.nodes.scoring.calibration import calibrate, robust_sigma
from likeness.nodes.scoring.rates import percentile
from likeness.nodes.sockets import Spread, Verdict

OWN = Spread((0.60, 0.66, 0.70, 0.74, 0.80))


def test_the_limits_follow_the_documented_formula():
    calibration = calibrate(OWN, 0.4)
    deviation = 1.4826 * 0.04
    sigma = math.sqrt((4 * deviation ** 2 + 3 * (0.3 / 4) ** 2) / 7)
    assert calibration.keep_from == pytest.approx(0.7 - 2 * sigma)
    assert calibration.reject_below == 0.4


def test_verdicts_change_exactly_at_the_limits():
    calibration = calibrate(OWN, 0.4)
    assert calibration.verdict(calibration.keep_from) is Verdict.KEEP
    assert calibration.verdict(calibration.keep_from - 1e-9) is Verdict.UNSURE
    assert calibration.verdict(0.4) is Verdict.UNSURE
    assert calibration.verdict(0.4 - 1e-9) is Verdict.REJECT


def test_a_person_whose_photos_differ_more_is_given_more_room():
    narrow = calibrate(Spread((0.69, 0.70, 0.70, 0.70, 0.71)), 0.4)
    wide = calibrate(Spread((0.55, 0.62, 0.70, 0.78, 0.85)), 0.4)
    assert wide.keep_from < narrow.keep_from


def test_equal_photos_do_not_make_the_rule_absurdly_strict():
    assert calibrate(Spread((0.9, 0.9, 0.9)), 0.4).keep_from < 0.75


def test_keep_is_never_below_the_recognisers_own_cut():
    assert calibrate(Spread((0.05, 0.2, 0.45, 0.7, 0.85)), 0.4).keep_from == 0.4


@pytest.mark.parametrize("spread", [None, Spread((0.7, 0.7))])
def test_too_few_photos_allow_no_keep(spread):
    calibration = calibrate(spread, 0.4)
    assert calibration.verdict(0.99) is Verdict.UNSURE
    assert calibration.verdict(0.39) is Verdict.REJECT
    assert calibration.percentile(0.5) is None
    assert "fewer than 3 photos" in calibration.note


def test_photos_that_hardly_resemble_each_other_allow_no_keep():
    calibration = calibrate(Spread((0.2, 0.3, 0.45)), 0.4)
    assert calibration.verdict(0.99) is Verdict.UNSURE
    assert "check the photos" in calibration.note


def test_a_recogniser_without_a_stated_cut_rejects_nobody():
    calibration = calibrate(OWN, None)
    assert calibration.verdict(-1.0) is Verdict.UNSURE
    assert calibration.verdict(0.7) is Verdict.KEEP
    assert calibration.note


@pytest.mark.parametrize("score, expected", [(0.5, 0), (0.70, 50), (0.72, 60), (0.9, 100)])
def test_the_percentile_counts_the_own_photos_below(score, expected):
    assert percentile(score, OWN.similarities) == expected


def test_the_robust_deviation_ignores_one_outlier():
    assert robust_sigma((0.70, 0.72, 0.74, 0.76, 0.1)) == pytest.approx(1.4826 * 0.02)
