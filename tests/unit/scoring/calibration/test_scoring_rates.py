"""Error rates from few samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from likeness.nodes.scoring.calibration.rates import (
    Impostors,
    false_rejects,
    percent,
    percentile,
    upper_bound,
)
from scipy.special import stdtr

NORMAL = np.random.default_rng(0).normal(0.2, 0.08, 535)


def test_nothing_counted_still_allows_three_in_n():
    assert upper_bound(0, 535) == pytest.approx(3 / 535, rel=0.01)


def test_the_bound_is_the_rate_at_which_so_few_are_seen_once_in_twenty():
    bound = upper_bound(2, 40)
    seen = np.random.default_rng(1).binomial(40, bound, 200_000)
    assert np.mean(seen <= 2) == pytest.approx(0.05, abs=0.003)


def test_everything_counted_bounds_nothing():
    assert upper_bound(5, 5) == 1.0


def test_a_rate_that_can_be_counted_is_counted():
    limit = float(np.quantile(NORMAL, 0.95))
    rate = Impostors.of(NORMAL).false_accepts(limit)
    assert not rate.modelled
    assert rate.estimate == rate.counted / rate.of == pytest.approx(0.05, abs=0.003)
    assert rate.upper > rate.estimate


def test_a_limit_itself_is_let_in():
    assert Impostors.of((0.1, 0.2, 0.3)).false_accepts(0.3).counted == 1


def test_beyond_the_bank_the_tail_is_a_model_and_says_so():
    rate = Impostors.of(NORMAL).false_accepts(0.6)
    assert (rate.modelled, rate.counted) == (True, 0)
    assert 0 < rate.estimate < rate.upper == upper_bound(0, 535)
    assert "modelled; 0 of 535 counted" in rate.text


@pytest.mark.parametrize("stated", [0.05, 0.01, 0.001, 0.0001])
def test_the_tail_of_exponential_strangers_is_found(stated):
    strangers = np.random.default_rng(2).exponential(0.05, 4000)
    limit = Impostors.of(strangers).limit(stated)
    assert np.exp(-limit / 0.05) == pytest.approx(stated, rel=0.35)


@pytest.mark.parametrize("stated", [0.01, 0.001, 0.0001])
def test_of_normal_strangers_hardly_more_pass_than_stated(stated):
    limit = Impostors.of(NORMAL).limit(stated)
    assert np.mean(np.random.default_rng(3).normal(0.2, 0.08, 400_000) >= limit) <= 1.3 * stated


def test_limits_rise_as_the_rate_falls():
    limits = [Impostors.of(NORMAL).limit(rate) for rate in (0.5, 0.2, 0.1, 0.05, 0.001, 1e-5)]
    assert limits == sorted(limits)


def test_equal_strangers_have_a_tail_of_no_length():
    fitted = Impostors.of((0.3,) * 150)
    assert fitted.limit(0.001) == pytest.approx(0.3, abs=1e-4)


def test_half_of_the_true_pictures_miss_the_middle():
    rate = false_rejects(0.7, (0.6, 0.7, 0.8), 0.7, 0.1, 3)
    assert (rate.estimate, rate.counted, rate.of) == (pytest.approx(0.5), 1, 3)


def test_few_photos_leave_more_room_for_misses_than_many():
    few = false_rejects(0.4, (0.7,) * 3, 0.7, 0.1, 3)
    many = false_rejects(0.4, (0.7,) * 30, 0.7, 0.1, 3)
    assert few.estimate > 3 * many.estimate
    assert few.upper > 0.6 > many.upper


@pytest.mark.parametrize("count", [6, 10, 20])
def test_misses_follow_the_predictive_distribution(count):
    """Samples from a normal: the next one misses `median - 2 m` about as often as stated."""
    random = np.random.default_rng(4)
    rows = random.normal(0, 1, (40_000, count + 1))
    own, following = rows[:, :count], rows[:, count]
    middles = np.median(own, axis=1)
    sigmas = 1.4826 * np.median(np.abs(own - middles[:, None]), axis=1)
    missed = np.mean(following < middles - 2 * sigmas)
    stated = false_rejects(-2.0, (0.0,) * count, 0.0, 1.0, 0).estimate
    assert stated == pytest.approx(missed, rel=0.25)


def test_photos_that_are_assumed_count_as_freedom_beside_the_real_ones():
    """3 photos and 3 assumed: Student's t with 3.74 degrees of freedom, 2 deviations off."""
    rate = false_rejects(-2 * math.sqrt(1 + math.pi / 6), (0.0,) * 3, 0.0, 1.0, 3)
    assert rate.estimate == pytest.approx(stdtr(3.74, -2), abs=1e-6)


def test_from_a_tiny_bank_only_the_bound_is_stated():
    rate = Impostors.of(NORMAL[:49]).false_accepts(0.9)
    assert (rate.estimate, rate.modelled) == (None, False)
    assert rate.text == "at most 5.9 % (0 of 49 counted)"
    assert Impostors.of(NORMAL[:50]).false_accepts(0.9).modelled


def test_what_a_tiny_bank_counts_is_stated():
    assert Impostors.of(np.linspace(0, 1, 40)).false_accepts(0.5).estimate == 0.5


@pytest.mark.parametrize("rate, text", [(0.5, "50 %"), (0.0123, "1.2 %"), (0.00056, "0.056 %"),
                                        (1e-9, "under 0.0001 %"), (0.0, "under 0.0001 %"),
                                        (None, "not known")])
def test_rates_are_written_with_two_digits(rate, text):
    assert percent(rate) == text


def test_equal_values_count_half_in_a_percentile():
    assert percentile(0.2, (0.1, 0.2, 0.2, 0.4)) == 50
