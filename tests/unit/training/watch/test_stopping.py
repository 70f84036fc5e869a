"""Which look is the best and when a run ends, over made-up histories."""

from __future__ import annotations

import dataclasses

import pytest
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.watch.stopping import Decision, Mark, StopRule, Why, decide

RULE = StopRule(patience=3)


def _marks(likeness, copy=None, every=200, scored=4):
    copies = copy or [0.0] * len(likeness)
    return [Mark((number + 1) * every, value, None if value is None else copied,
                 0 if value is None else scored, 4)
            for number, (value, copied) in enumerate(zip(likeness, copies, strict=True))]


def _stops_at(marks, rule=RULE):
    """The first look after which the run ends, as the run would see it."""
    for count in range(1, len(marks) + 1):
        if decide(marks[:count], rule).stop:
            return marks[count - 1].step
    return None


def test_a_peak_with_rising_copy_paste_ends_the_run_after_patience():
    marks = _marks([0.30, 0.42, 0.53, 0.52, 0.53, 0.50], [0, 0.01, 0.02, 0.08, 0.11, 0.14])
    assert _stops_at(marks) == 1200
    assert decide(marks, RULE) == Decision(
        True, 600, Why.COPYING, "held-out likeness peaked at step 600 (0.53) and has not risen for "
                                "3 looks while copy-paste rose from 0.02 to 0.11.")


def test_a_peak_without_rising_copy_paste_has_twice_the_patience():
    marks = _marks([0.30, 0.53] + [0.52] * 6, [0, 0.02] + [0.025] * 6)
    assert _stops_at(marks) == 1600
    decision = decide(marks, RULE)
    assert (decision.best_step, decision.why) == (400, Why.LEVEL)
    assert decision.reason == ("held-out likeness peaked at step 400 (0.53) and has not risen for "
                               "6 looks; copy-paste did not rise.")


def test_copy_paste_that_rises_below_0_copies_nothing():
    marks = _marks([0.30, 0.53] + [0.52] * 6, [-0.4, -0.3] + [-0.2, -0.1, -0.05, 0.0, 0.0, 0.0])
    assert _stops_at(marks) == 1600 and decide(marks, RULE).why is Why.LEVEL


def test_one_look_that_copies_is_chance():
    assert _stops_at(_marks([0.3, 0.5, 0.5, 0.5, 0.5], [0, 0, 0, 0.3, 0])) is None


def test_a_run_whose_likeness_rises_goes_on_however_much_it_copies():
    rising = [0.1 + 0.03 * number for number in range(12)]
    decision = decide(_marks(rising, [0.02 * number for number in range(12)]), RULE)
    assert not decision.stop and decision.best_step == 2400
    assert decision.reason == "held-out likeness is highest at step 2400 (0.43)."


def test_slow_rises_add_up():
    creeping = [0.4 + 0.004 * number for number in range(12)]
    marks = _marks(creeping, [0.05 * number for number in range(12)])
    assert _stops_at(marks, StopRule(patience=3, margin=0.01)) is None
    assert _stops_at(marks, StopRule(patience=3, margin=0.02)) == 800


def test_a_late_rise_within_patience_goes_on():
    marks = _marks([0.3, 0.5, 0.45, 0.45, 0.6, 0.55], [0, 0, 0.1, 0.1, 0.1, 0.1])
    assert _stops_at(marks) is None and decide(marks, RULE).best_step == 1000


def test_the_best_look_is_the_highest_even_within_the_margin():
    marks = _marks([0.500, 0.505, 0.503])
    assert decide(marks, RULE).best_step == 400


def test_of_equal_looks_the_earliest_is_the_best():
    assert decide(_marks([0.4, 0.5, 0.5]), RULE).best_step == 400


def test_a_look_before_training_is_never_the_result():
    before = dataclasses.replace(_marks([0.9])[0], step=0)
    decision = decide([before, *_marks([0.5, 0.4])], RULE)
    assert (decision.best_step, decision.stop) == (200, False)


@pytest.mark.parametrize("rule", [StopRule(patience=0), StopRule(patience=3, minimum_steps=1300)])
def test_without_patience_or_before_the_minimum_likeness_ends_nothing(rule):
    marks = _marks([0.53, 0.5, 0.5, 0.5, 0.5, 0.5], [0, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert _stops_at(marks, RULE) == 800 and _stops_at(marks, rule) is None
    assert decide(marks, rule).best_step == 200


def test_the_run_ends_at_the_minimum_when_it_was_over_before():
    marks = _marks([0.53, 0.5, 0.5, 0.5, 0.5, 0.5], [0, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert _stops_at(marks, StopRule(patience=3, minimum_steps=1000)) == 1000


def test_the_time_limit_ends_a_run_that_still_rises():
    marks = _marks([0.3, 0.4])
    rule = StopRule(patience=3, minutes=2, minimum_steps=5000)
    assert not decide(marks, rule, seconds=119).stop
    decision = decide(marks, rule, seconds=120)
    assert (decision.stop, decision.why, decision.best_step) == (True, Why.TIME, 400)
    assert decision.reason == ("the time limit of 2 minutes is over; held-out likeness is highest "
                               "at step 400 (0.40).")


def test_without_looks_only_time_can_end_the_run():
    assert decide([], StopRule(minutes=1), seconds=59) == Decision(
        False, None, Why.GOING_ON, "no look was taken, so likeness decides nothing.")
    assert decide([], StopRule(minutes=1), seconds=61).stop
    assert not decide([], StopRule(), seconds=1e9).stop


def test_looks_without_any_face_decide_nothing():
    decision = decide(_marks([None] * 20), RULE)
    assert (decision.stop, decision.best_step) == (False, None)
    assert "too few faces were found in 20 looks" in decision.reason


def test_faces_that_come_late_are_not_too_late():
    assert _stops_at(_marks([None] * 8 + [0.2, 0.3, 0.4])) is None


def test_a_model_that_loses_its_faces_ends_the_run():
    marks = _marks([0.3, 0.5] + [None] * 6)
    assert _stops_at(marks) == 1600 and decide(marks, RULE).best_step == 400


def test_a_look_with_few_faces_is_not_the_best():
    marks = _marks([0.5, 0.9], scored=1)
    marks[0] = dataclasses.replace(marks[0], scored=2)
    assert decide(marks, RULE).best_step == 200


def test_a_state_beyond_the_copy_limit_is_not_chosen():
    marks = _marks([0.4, 0.5, 0.6, 0.7], [0.02, 0.08, 0.2, 0.3])
    limited = StopRule(patience=3, copy_limit=0.1)
    assert decide(marks, RULE).best_step == 800
    assert decide(marks, limited).best_step == 400 and not decide(marks, limited).stop
    more = _marks([0.4, 0.5, 0.6, 0.7, 0.8], [0.02, 0.08, 0.2, 0.3, 0.4])
    assert decide(more, limited).why is Why.COPYING


def test_when_every_look_copies_the_least_copied_is_chosen():
    marks = _marks([0.4, 0.5, 0.6], [0.3, 0.2, 0.4])
    decision = decide(marks, StopRule(patience=3, copy_limit=0.1))
    assert decision == Decision(True, 400, Why.COPYING,
                                "copy-paste is above its limit of 0.10 in every one of 3 looks; "
                                "the least is 0.20 at step 400.")


def test_without_a_measure_of_copying_only_the_plateau_ends_the_run():
    marks = [dataclasses.replace(mark, copy=None) for mark in _marks([0.5] + [0.4] * 6)]
    assert _stops_at(marks) == 1400
    assert decide(marks, StopRule(patience=3, copy_limit=0.1)).best_step == 200


def test_the_reason_says_what_was_measured():
    assert decide(_marks([0.5]), RULE, measured="likeness to all photos").reason.startswith(
        "likeness to all photos is highest")


@pytest.mark.parametrize("name", ["patience", "minimum_steps", "copy_limit", "minutes", "margin"])
def test_a_negative_number_is_refused_by_name(name):
    with pytest.raises(LikenessError, match=f"`{name}` must be 0 or more"):
        StopRule(**{name: -1})


def test_looks_without_faces_before_the_first_one_use_up_no_patience():
    marks = _marks([None] * 5 + [0.5], [0] * 5 + [0.3])
    assert not decide(marks, StopRule(patience=3, copy_limit=0.1)).stop
