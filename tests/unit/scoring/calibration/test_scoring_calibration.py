"""From similarities to verdicts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from likeness.nodes.faces.recognise.centre import robust_centre
from likeness.nodes.faces.recognise.embed import similarity
from likeness.nodes.scoring.calibration.calibration import calibrate, robust_sigma
from likeness.nodes.scoring.calibration.rates import Impostors, percentile
from likeness.nodes.scoring.calibration.references import own_spread
from likeness.nodes.sockets import Spread, Verdict

OWN = Spread((0.60, 0.66, 0.70, 0.74, 0.80))


def test_the_limits_follow_the_documented_formula():
    calibration = calibrate(OWN, 0.4)
    deviation = 1.4826 * 1.053 * 0.04
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


def test_photos_that_hardly_resemble_each_other_are_named():
    calibration = calibrate(Spread((0.2, 0.3, 0.45)), 0.4)
    assert calibration.keep_from == 0.4
    assert "keep says little; check the photos" in calibration.note


def test_a_recogniser_without_a_stated_cut_rejects_nobody():
    calibration = calibrate(OWN, None)
    assert calibration.verdict(-1.0) is Verdict.UNSURE
    assert calibration.verdict(0.7) is Verdict.KEEP
    assert calibration.note


@pytest.mark.parametrize("score, expected", [(0.5, 0), (0.70, 50), (0.72, 60), (0.9, 100)])
def test_the_percentile_counts_the_own_photos_below(score, expected):
    assert percentile(score, OWN.similarities) == expected


def test_the_robust_deviation_ignores_one_outlier():
    assert robust_sigma((0.70, 0.72, 0.74, 0.76, 0.1)) == pytest.approx(
        1.4826 * 1.053 * 0.02)


STRANGERS = np.random.default_rng(0).normal(0.2, 0.08, 535)


def test_with_a_bank_the_limits_come_from_its_strangers():
    calibration = calibrate(Spread((0.65, 0.66, 0.70, 0.74, 0.75)), 0.4, STRANGERS)
    impostors = Impostors.of(STRANGERS)
    floor, doubt = impostors.limit(0.001), impostors.limit(0.01)
    sigma = math.sqrt((4 * (1.4826 * 1.053 * 0.04) ** 2 + 3 * ((0.7 - floor) / 4) ** 2) / 7)
    assert calibration.keep_from == pytest.approx(max(floor, 0.7 - 2 * sigma))
    assert calibration.reject_below == pytest.approx(min(doubt, 0.7 - 3 * sigma))
    assert calibration.from_bank


def test_a_bank_of_look_alikes_raises_the_limits():
    usual, alike = (calibrate(OWN, 0.4, STRANGERS + more) for more in (0.0, 0.15))
    assert alike.keep_from > usual.keep_from


def test_where_own_photos_and_strangers_overlap_nobody_is_rejected_for_it():
    """The own photos reach far down, so what is unlike them must reach farther down still."""
    calibration = calibrate(Spread((0.40, 0.45, 0.55, 0.65, 0.70)), 0.4, STRANGERS)
    assert calibration.reject_below < Impostors.of(STRANGERS).limit(0.01)
    assert calibration.verdict(0.40) is Verdict.UNSURE


def test_too_small_a_bank_states_rates_but_sets_no_limits():
    calibration = calibrate(OWN, 0.4, STRANGERS[:99])
    assert calibration.reject_below == 0.4
    assert not calibration.from_bank
    assert calibration.false_accepts(0.4).of == 99


def test_without_a_bank_false_accepts_cannot_be_stated():
    calibration = calibrate(OWN, 0.4)
    assert calibration.false_accepts(0.5) is None
    assert calibration.above_strangers(0.5) is None
    assert calibration.false_rejects(0.5).of == 5


def test_with_a_bank_a_recogniser_without_a_cut_has_both_limits():
    calibration = calibrate(OWN, None, STRANGERS)
    assert calibration.verdict(0.2) is Verdict.REJECT
    assert calibration.verdict(0.75) is Verdict.KEEP


def test_the_subject_among_the_bank_is_left_out():
    with_self = calibrate(OWN, 0.4, [*STRANGERS, 0.98])
    assert with_self.left_out == 1
    assert with_self.keep_from == pytest.approx(calibrate(OWN, 0.4, STRANGERS).keep_from)


def test_two_people_whom_the_recogniser_cannot_tell_apart_stay_strangers():
    confused = calibrate(OWN, 0.4, [*STRANGERS, 0.95, 0.98])
    assert confused.left_out == 0
    assert confused.false_accepts(0.9).counted == 2


def test_few_photos_with_a_bank_still_reject_strangers_but_keep_nobody():
    calibration = calibrate(None, 0.4, STRANGERS)
    assert calibration.verdict(0.99) is Verdict.UNSURE
    assert calibration.reject_below == Impostors.of(STRANGERS).limit(0.01)
    assert calibration.false_rejects(0.5) is None


def test_a_score_has_its_place_among_the_strangers():
    calibration = calibrate(OWN, 0.4, STRANGERS)
    assert calibration.above_strangers(0.2) == pytest.approx(50, abs=5)
    assert calibration.above_strangers(0.9) == 100


SHAPES = {"wide": (-0.25, 0.0, 0.15, -0.15, 0.12), "narrow": (-0.02, 0.0, 0.01),
          "equal": (0.0, 0.0, 0.0, 0.0)}


@pytest.mark.parametrize("strangers", [STRANGERS, None])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_limits_move_no_faster_than_the_middle_of_the_own_photos(shape, strangers):
    """Across the floor too: photos that agree a little less change the verdicts a little."""
    step = 0.001
    found = [calibrate(Spread(tuple(middle + away for away in SHAPES[shape])), 0.4, strangers)
             for middle in np.arange(0.1, 0.8, step)]
    for limits in ([each.keep_from for each in found], [each.reject_below for each in found],
                   [each.false_rejects(0.4).estimate for each in found]):
        assert np.abs(np.diff(limits)).max() < 0.035
    assert np.abs(np.diff([each.keep_from for each in found])).max() < 1.5 * step
    assert np.abs(np.diff([each.reject_below for each in found])).max() < 2 * step


def test_no_own_photo_is_called_somebody_else_however_little_they_agree():
    floor = Impostors.of(STRANGERS).limit(0.001)
    for middle in (floor - 0.001, floor + 0.001):
        own = tuple(middle + away for away in SHAPES["wide"])
        calibration = calibrate(Spread(own), 0.4, STRANGERS)
        assert Verdict.REJECT not in {calibration.verdict(value) for value in own}
        assert "check the photos" in calibration.note


def test_a_reject_that_hardly_anybody_meets_is_named():
    calibration = calibrate(Spread((0.25, 0.30, 0.50, 0.70, 0.75)), 0.4, STRANGERS)
    assert calibration.keep_from > Impostors.of(STRANGERS).limit(0.001) - 1e-9
    assert "hardly a picture can be called reject" in calibration.note
    assert calibrate(OWN, 0.4, STRANGERS).note == ""


def test_a_stranger_who_does_not_stand_out_stays_though_he_is_as_alike_as_the_photos():
    ordered = np.sort(STRANGERS)
    near = ordered[-1] + 0.03
    own = Spread(tuple(near + away for away in (-0.03, -0.02, -0.01, 0.0, 0.01)))
    calibration = calibrate(own, 0.4, [*STRANGERS, near])
    assert calibration.left_out == 0
    assert calibration.false_accepts(near).counted == 1


def test_the_subject_is_left_out_also_with_a_photo_below_the_middle_of_the_own():
    assert calibrate(OWN, 0.4, [*STRANGERS, 0.66]).left_out == 1


def test_of_true_strangers_hardly_one_in_a_hundred_is_left_out():
    """The own photos lie where every most alike stranger would be kept."""
    random = np.random.default_rng(5)
    dropped = [calibrate(Spread((0.36, 0.38, 0.40, 0.42, 0.44)), 0.4,
                         random.normal(0.2, 0.08, 535)).left_out for _ in range(800)]
    assert np.mean(dropped) <= 0.015


def test_one_who_was_left_out_is_counted_beside_the_rate_without_him():
    calibration = calibrate(OWN, 0.4, [*STRANGERS, 0.98])
    without = calibration.false_accepts(calibration.keep_from)
    with_him = calibration.false_accepts_of_everyone(calibration.keep_from)
    assert (without.counted, without.of) == (0, 535)
    assert (with_him.counted, with_him.of) == (1, 536)
    assert calibrate(OWN, 0.4, STRANGERS).false_accepts_of_everyone(0.5) is None


@pytest.mark.parametrize("cut, strangers", [(0.4, None), (None, None), (0.4, STRANGERS)])
def test_equal_photos_never_promise_that_none_is_missed(cut, strangers):
    calibration = calibrate(Spread((0.3, 0.3, 0.3)), cut, strangers)
    assert calibration.false_rejects(0.2).estimate > 0.01


@pytest.mark.parametrize("count", [3, 4, 6, 10])
def test_the_robust_deviation_of_few_photos_is_right_in_the_mean_of_squares(count):
    rows = np.random.default_rng(count).normal(0, 1, (4000, count))
    assert np.mean([robust_sigma(row) ** 2 for row in rows]) == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize("count", [3, 4, 6, 10, 20])
def test_hardly_more_pictures_are_missed_than_is_stated(count):
    """People whose photos scatter evenly round a middle, in many directions and in few.

    Real photos deviate from their distance to the middle by a seventh, as in 24 directions.
    """
    random = np.random.default_rng(count)
    for directions, most in ((128, 1.0), (24, 1.0), (8, 2.0)):
        missed, stated = [], []
        for _ in range(60):
            size = 0.3 / math.sqrt(directions)
            rows = np.zeros((count + 8, 128), np.float32)
            rows[:, :directions] = size * random.normal(size=(count + 8, directions))
            calibration = calibrate(own_spread(rows[:count]), 0.4, STRANGERS)
            middle = robust_centre(rows[:count])
            missed += [similarity(row, middle) < calibration.keep_from for row in rows[count:]]
            stated.append(calibration.false_rejects(calibration.keep_from).estimate)
        assert np.mean(missed) <= most * np.mean(stated)
