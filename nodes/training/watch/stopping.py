"""When a run ends and which of its states is the result: pure logic over its looks.

Loss says little about likeness, so the looks decide. Likeness to photos that never train rises,
then levels off; from there on training goes on into copying single photos, which is what
copy-paste measures (https://arxiv.org/abs/2510.14975). Early stopping with patience and a least
rise is the usual rule (Prechelt 1998, doi 10.1007/3-540-49430-8_3).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ...errors import LikenessError

HELD_OUT = "held-out likeness"


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """When looks end a run.

    Raises:
        LikenessError: a number below 0.
    """

    patience: int = 3  # looks in a row without a rise; 0: likeness never ends the run
    minimum_steps: int = 0  # before which likeness does not end the run
    copy_limit: float = 0.0  # copy-paste beyond which a state is not chosen; 0: no limit
    minutes: float = 0.0  # of training after which the run ends; 0: no limit
    margin: float = 0.01  # similarity; a smaller difference between two looks is chance

    def __post_init__(self) -> None:
        for name in ("patience", "minimum_steps", "copy_limit", "minutes", "margin"):
            if not getattr(self, name) >= 0:
                raise LikenessError(f"`{name}` must be 0 or more, got {getattr(self, name)}.")


@dataclass(frozen=True)
class Mark:
    """What one look at a run found out, in numbers."""

    step: int  # finished steps; 0: before training
    likeness: float | None  # median of the pictures that could be scored; None: there are none
    copy: float | None  # median copy-paste, 1: a training photo; None: it could not be measured
    scored: int  # pictures with a face that could be compared
    pictures: int

    @property
    def counts(self) -> bool:
        """Whether it may decide: one lucky face among many pictures without one may not."""
        return self.step > 0 and self.likeness is not None and 2 * self.scored >= self.pictures


class Why(str, Enum):
    """What a decision rests on."""

    GOING_ON = "going on"
    COPYING = "copying"  # likeness has stopped rising while copy-paste rises
    LEVEL = "level"  # likeness has stopped rising
    TIME = "time"


@dataclass(frozen=True)
class Decision:
    """Whether to end a run, and which state is the best so far."""

    stop: bool
    best_step: int | None  # None: no look could be scored; the last state is all there is
    why: Why
    reason: str  # one sentence


def decide(marks: Sequence[Mark], rule: StopRule, seconds: float = 0.0,
           measured: str = HELD_OUT) -> Decision:
    """Decide after the latest look.

    Args:
        marks: all looks of the run so far, in order of their steps.
        seconds: of training so far, those before a resume included.
        measured: what the likeness is called in the reason.
    """
    best = _best(marks, rule)
    step = None if best is None else best.step
    late = bool(marks) and marks[-1].step >= rule.minimum_steps
    if rule.patience and late and best is not None:
        since, low = _since_rise(marks, rule)
        rise = _copy_rise(low, since)
        peak = (f"{measured} peaked at step {best.step} ({best.likeness:.2f}) and has not risen "
                f"for {len(since)} looks")
        if len(since) >= rule.patience and low is None:
            return Decision(True, step, Why.COPYING, _every_look_copies(best, rule, marks))
        if len(since) >= rule.patience and rise is not None and rise[1] > rise[0] + rule.margin:
            return Decision(True, step, Why.COPYING,
                            f"{peak} while copy-paste rose from {rise[0]:.2f} to {rise[1]:.2f}.")
        if len(since) >= 2 * rule.patience:
            flat = "" if rise is None else "; copy-paste did not rise"
            return Decision(True, step, Why.LEVEL, f"{peak}{flat}.")
    if rule.minutes and seconds >= 60 * rule.minutes:
        return Decision(True, step, Why.TIME, f"the time limit of {rule.minutes:g} minutes is "
                                              f"over; {_so_far(best, marks, measured)}")
    return Decision(False, step, Why.GOING_ON, _so_far(best, marks, measured))


def _within(mark: Mark, rule: StopRule) -> bool:
    return not rule.copy_limit or mark.copy is None or mark.copy <= rule.copy_limit


def _best(marks: Sequence[Mark], rule: StopRule) -> Mark | None:
    """The most alike look within the copy limit, the earliest of equals; else the least copied."""
    able = [mark for mark in marks if mark.counts]
    within = [mark for mark in able if _within(mark, rule)]
    if within:
        return max(within, key=lambda mark: (mark.likeness, -mark.step))
    return min(able, key=lambda mark: (mark.copy, -mark.likeness), default=None)


def _since_rise(marks: Sequence[Mark], rule: StopRule) -> tuple[list[Mark], Mark | None]:
    """The looks since likeness last rose by more than the margin, and the look where it did.

    Slow rises add up: each is measured from the last that counted. Looks without faces count
    once there was one with them: a model that loses its faces has learned too much.
    """
    high: Mark | None = None
    since: list[Mark] = []
    for mark in marks:
        able = mark.counts and _within(mark, rule)
        if able and (high is None or mark.likeness > high.likeness + rule.margin):
            high, since = mark, []
        elif high is not None or mark.counts:
            since.append(mark)
    return since, high


def _copy_rise(before: Mark | None, after: Sequence[Mark]) -> tuple[float, float] | None:
    """Copy-paste where likeness last rose, and the middle of the looks since.

    Below 0 nothing is copied, and a rise there says nothing.
    """
    values = [mark.copy for mark in after if mark.counts and mark.copy is not None]
    if before is None or before.copy is None or not values:
        return None
    return max(0.0, before.copy), max(0.0, statistics.median(values))


def _every_look_copies(best: Mark, rule: StopRule, marks: Sequence[Mark]) -> str:
    return (f"copy-paste is above its limit of {rule.copy_limit:.2f} in every one of {len(marks)} "
            f"looks; the least is {best.copy:.2f} at step {best.step}.")


def _so_far(best: Mark | None, marks: Sequence[Mark], measured: str) -> str:
    if best is not None:
        return f"{measured} is highest at step {best.step} ({best.likeness:.2f})."
    if not marks:
        return "no look was taken, so likeness decides nothing."
    return (f"too few faces were found in {len(marks)} looks, so likeness decides nothing; the "
            "last state counts.")
