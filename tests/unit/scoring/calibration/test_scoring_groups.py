"""Limits that hold for the group of people who are most easily taken for the subject."""

from __future__ import annotations

import numpy as np
import pytest
from likeness.nodes.scoring.bank.bank import shipped
from likeness.nodes.scoring.calibration.calibration import (
    DOUBT_RATE,
    KEEP_RATE,
    MINIMUM_BANK,
    calibrate,
)
from likeness.nodes.sockets import Spread

OWN = Spread((0.80, 0.82, 0.84, 0.86, 0.88))


@pytest.fixture
def crowd() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Similarities of 400 men and 150 women to a woman, who is more like the women."""
    random = np.random.default_rng(5)
    women = np.arange(550) < 150
    return (np.where(women, random.normal(0.3, 0.08, 550), random.normal(0.1, 0.08, 550)),
            {"women": women, "men": ~women})


def test_limits_hold_for_the_group_of_which_most_pass(crowd):
    values, groups = crowd
    whole, told = calibrate(OWN, 0.4, values), calibrate(OWN, 0.4, values, groups)
    women = values[groups["women"]]
    assert (women >= whole.reject_below).mean() > 2.5 * DOUBT_RATE  # what was wrong
    assert (women >= told.reject_below).mean() <= 1.4 * DOUBT_RATE
    assert told.false_accepts(told.keep_from).estimate <= KEEP_RATE * 1.01


def test_a_rate_says_for_whom_it_is_stated(crowd):
    values, groups = crowd
    rate = calibrate(OWN, 0.4, values, groups).false_accepts(0.3)
    assert rate.among == "women" and "of 150 women counted" in rate.text
    assert rate.estimate == pytest.approx((values[groups["women"]] >= 0.3).mean())
    assert calibrate(OWN, 0.4, values).false_accepts(0.3).among == ""


def test_a_small_group_sets_no_limits(crowd):
    values, groups = crowd
    few = {"few": np.arange(550) < MINIMUM_BANK - 1, "men": groups["men"]}
    assert [group.among for group in calibrate(OWN, 0.4, values, few).groups] == ["men"]


def test_the_subject_in_the_bank_is_left_out_of_the_group_too(crowd):
    values, groups = crowd
    values = values.copy()
    values[7] = 0.9
    found = calibrate(OWN, 0.4, values, groups)
    assert found.left_out == 1
    assert max(group.similarities[-1] for group in found.groups) < 0.9
    assert found.keep_from < 0.85


def test_the_shipped_banks_hold_the_same_people_in_the_same_order():
    dlib, mobile, both = (shipped(id) for id in ("dlib", "mobilefacenet", "both"))
    assert dlib.embeddings.shape == (535, 128) and mobile.embeddings.shape == (535, 192)
    np.testing.assert_array_equal(both.embeddings, np.concatenate(
        [dlib.embeddings, mobile.embeddings], axis=1))
    for bank in (dlib, mobile, both):
        assert int(bank.groups["women"].sum()) == 141 and int(bank.groups["men"].sum()) == 394
        assert not (bank.groups["women"] & bank.groups["men"]).any()
    # Both recognisers find the same pairs alike; in another order they would not.
    one, other = dlib.to(dlib.embeddings[0])[1:], mobile.to(mobile.embeddings[0])[1:]
    assert np.corrcoef(one, other)[0, 1] > 0.4


def test_the_shipped_bank_knows_its_women():
    """Women are more like women than like men for both recognisers: the groups are not mixed up."""
    bank = shipped("both")
    women = bank.groups["women"]
    gaps = []
    for place in np.flatnonzero(women)[:20]:
        alike = bank.to(bank.embeddings[place])
        alike[place] = np.nan
        gaps.append(np.nanmean(alike[women]) - np.nanmean(alike[~women]))
    assert min(gaps) > 0.02
