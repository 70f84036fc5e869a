"""Which strength to take: where more of it stops paying.

More strength makes pictures more alike to the subject (L) and less obedient or varied (F). Both are
brought to 0..1 over the strengths that were tried, and the difference of gain and cost

    d(s) = (L(s) - min L) / (max L - min L) - (max F - F(s)) / (max F - min F)

is the height above the straight trade between both ends: Kneedle's difference curve (Satopaa et
al., "Finding a Kneedle in a Haystack", ICDCSW 2011, doi 10.1109/ICDCSW.2011.20). Its highest point
is the knee, if it stands out of the noise. A straight, flat or sagging curve has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_HEIGHT = 0.1  # of d, from which a bend is one
LEAST_LIKENESS = 0.02  # range of similarity below which strength changes nothing that matters
LEAST_SHARE = 0.02  # range of flexibility as a share of its highest value, likewise
SURE = 2.0  # standard errors


@dataclass(frozen=True)
class Point:
    """What was measured at one strength. None: nothing could be measured."""

    strength: float
    likeness: float | None  # mean similarity of the scored pictures
    flexibility: float | None
    likeness_error: float = 0.0  # standard error
    flexibility_error: float = 0.0


@dataclass(frozen=True)
class Recommendation:
    """Which strength to take."""

    best: float | None  # None: the measurements name none
    knee: bool  # whether it lies where the curve bends
    text: str  # why, one sentence
    heights: tuple[float | None, ...] = ()  # d of each point, in their order


def recommend(points: Sequence[Point]) -> Recommendation:
    """Choose a strength from points in any order."""
    if not any(point.likeness is not None for point in points):
        return Recommendation(None, False, "No picture could be scored, so no strength can be "
                              "recommended; look at the pictures, or show larger faces.")
    whole = sorted((point for point in points
                    if point.likeness is not None and point.flexibility is not None),
                   key=lambda point: point.strength)
    if len(whole) < 3:
        return Recommendation(None, False, f"{_count(len(whole))} both likeness and flexibility, "
                              "and a knee needs three; try more strengths.")
    if _range([point.likeness for point in whole]) <= max(
            LEAST_LIKENESS, SURE * _mean([point.likeness_error for point in whole])):
        return Recommendation(None, False, "Strength hardly changes the likeness, so there is no "
                              "knee; try a wider range, or train longer.")
    top = max(point.flexibility for point in whole)
    if _range([point.flexibility for point in whole]) <= max(
            LEAST_SHARE * abs(top), SURE * _mean([point.flexibility_error for point in whole])):
        return _most_alike(whole)
    return _bend(points, whole)


def _most_alike(whole: Sequence[Point]) -> Recommendation:
    """The least strength that is as alike as any, where likeness costs nothing."""
    best = max(whole, key=lambda point: point.likeness)
    enough = next(point for point in whole
                  if point.likeness >= best.likeness - SURE * best.likeness_error)
    return Recommendation(enough.strength, False, "There is no knee, because flexibility does not "
                          f"fall; {enough.strength:g} is the least strength that is as alike as "
                          "any.")


def _bend(points: Sequence[Point], whole: Sequence[Point]) -> Recommendation:
    likeness = [point.likeness for point in whole]
    flexibility = [point.flexibility for point in whole]
    gain, cost = _range(likeness), _range(flexibility)
    height = {point.strength: (point.likeness - min(likeness)) / gain
              - (max(flexibility) - point.flexibility) / cost for point in whole}
    heights = tuple(height.get(point.strength) for point in points)
    best = max(whole, key=lambda point: height[point.strength])
    noise = SURE * math.hypot(best.likeness_error / gain, best.flexibility_error / cost)
    tall = height[best.strength]
    if tall <= max(LEAST_HEIGHT, noise):
        why = ("the pictures of one strength differ more than the curve bends; make more per cell"
               if tall > LEAST_HEIGHT else
               "each step of likeness costs as much flexibility as the last; choose by eye")
        return Recommendation(None, False, f"There is no knee: {why}.", heights)
    if best is whole[-1]:
        return Recommendation(best.strength, False, "There is no knee yet: the highest strength is "
                              "the best that was tried; try higher ones.", heights)
    if best is whole[0]:
        return Recommendation(best.strength, False, "There is no knee: the lowest strength is the "
                              "best that was tried; more strength does harm.", heights)
    return Recommendation(best.strength, True, f"Beyond {best.strength:g} likeness costs more "
                          "flexibility than it did before.", heights)


def _count(number: int) -> str:
    return {0: "No strength has", 1: "Only one strength has"}.get(
        number, f"Only {number} strengths have")


def _range(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
