"""Which strength to take: where more of it stops paying.

More strength makes pictures more alike to the subject (L) and less obedient or varied (F). Both are
brought to 0..1 over the strengths that were tried, and the difference of gain and cost

    d(s) = (L(s) - min L) / (max L - min L) - (max F - F(s)) / (max F - min F)

is the height above the straight trade between both ends: Kneedle's difference curve (Satopaa et
al., "Finding a Kneedle in a Haystack", ICDCSW 2011, doi 10.1109/ICDCSW.2011.20). Its highest point
is the knee, if it stands out of the noise. A straight, flat or sagging curve has none.

Both ends of a range are the extremes of several noisy means, so a range counts only beyond what
Tukey's studentised range leaves to chance, and the highest of several bends only beyond Student's t
with Bonferroni's correction. Without repeats there is no error to compare with, hence no knee.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_HEIGHT = 0.1  # of d, from which a bend is one
LEAST_LIKENESS = 0.02  # range of similarity below which strength changes nothing that matters
LEAST_SHARE = 0.02  # range of flexibility as a share of its highest value, likewise
SURE = 2.0  # standard errors
CHANCE = 0.05  # of taking noise for an effect


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


def recommend(points: Sequence[Point], freedom: int) -> Recommendation:
    """Choose a strength from points in any order.

    Args:
        freedom: degrees of freedom of the standard errors; 0: there are none.
    """
    if not any(point.likeness is not None for point in points):
        return Recommendation(None, False, "No picture could be scored, so no strength can be "
                              "recommended; look at the pictures, or show larger faces.")
    whole = sorted((point for point in points
                    if point.likeness is not None and point.flexibility is not None),
                   key=lambda point: point.strength)
    if len(whole) < 3:
        return Recommendation(None, False, f"{_count(len(whole))} both likeness and flexibility, "
                              "and a knee needs three; try more strengths.")
    if freedom < 1:
        return Recommendation(None, False, "One picture per strength cannot tell a knee from "
                              "noise; raise `seeds`.")
    reach = _studentised_range(len(whole), freedom)
    if _range([point.likeness for point in whole]) <= max(
            LEAST_LIKENESS, reach * _rms([point.likeness_error for point in whole])):
        return Recommendation(None, False, "Strength hardly changes the likeness beyond noise, so "
                              "there is no knee; try a wider range, raise `seeds`, or train "
                              "longer.")
    top = max(point.flexibility for point in whole)
    if _range([point.flexibility for point in whole]) <= max(
            LEAST_SHARE * abs(top), reach * _rms([point.flexibility_error for point in whole])):
        return _most_alike(whole)
    return _bend(points, whole, freedom)


def best_model(names: Sequence[str], points: Sequence[Point], freedom: int) -> Recommendation:
    """Choose among models, which stand in no order: the most alike one.

    Of those that are as alike within the error, the most flexible counts.

    Args:
        names: of the points.
        freedom: degrees of freedom of the standard errors; 0: there are none.
    """
    known = [(name, point) for name, point in zip(names, points, strict=True)
             if point.likeness is not None]
    if not known:
        return Recommendation(None, False, "No picture could be scored, so no model can be "
                              "recommended; look at the pictures, or show larger faces.")
    top = max((point for _, point in known), key=lambda point: point.likeness)
    reach = 0.0 if freedom < 1 else _studentised_range(max(2, len(known)), freedom) / math.sqrt(2)
    tied = [(name, point) for name, point in known if top.likeness - point.likeness <= reach
            * math.hypot(top.likeness_error, point.likeness_error)]
    name, best = max(tied, key=lambda each: (-math.inf if each[1].flexibility is None
                                             else each[1].flexibility, each[1].likeness))
    free = ("flexibility was not measured" if best.flexibility is None
            else f"flexibility {best.flexibility:.2f}")
    others = [f"`{other}`" for other, _ in tied if other != name]
    said = f"`{name}` is the most alike: likeness {best.likeness:.2f}, {free}"
    if others:
        said = (f"`{name}` is the most flexible of those that are as alike within the error "
                f"(likeness {best.likeness:.2f}, {free}; beside {', '.join(others)})")
    if freedom < 1 and len(known) > 1:
        said += "; one picture per model cannot tell this from noise, so raise `seeds`"
    return Recommendation(best.strength, False, f"{said}.")


def _most_alike(whole: Sequence[Point]) -> Recommendation:
    """The least strength that is as alike as any, where likeness costs nothing."""
    best = max(whole, key=lambda point: point.likeness)
    enough = next(point for point in whole if best.likeness - point.likeness
                  <= SURE * math.hypot(best.likeness_error, point.likeness_error))
    return Recommendation(enough.strength, False, "There is no knee, because flexibility does not "
                          f"fall beyond noise; {enough.strength:g} is the least strength that is "
                          "as alike as any.")


def _bend(points: Sequence[Point], whole: Sequence[Point], freedom: int) -> Recommendation:
    likeness = [point.likeness for point in whole]
    flexibility = [point.flexibility for point in whole]
    gain, cost = _range(likeness), _range(flexibility)
    height = {point.strength: (point.likeness - min(likeness)) / gain
              - (max(flexibility) - point.flexibility) / cost for point in whole}
    heights = tuple(height.get(point.strength) for point in points)
    best = max(whole, key=lambda point: height[point.strength])
    noise = _student(CHANCE / len(whole), freedom) * math.hypot(
        _share_error((best.likeness - min(likeness)) / gain, best.likeness_error / gain),
        _share_error((max(flexibility) - best.flexibility) / cost, best.flexibility_error / cost))
    tall = height[best.strength]
    if tall <= max(LEAST_HEIGHT, noise):
        why = ("the pictures of one strength differ more than the curve bends; raise `seeds`"
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


def _share_error(share: float, error: float) -> float:
    """The error of (x - low) / (high - low), whose ends are as noisy as x."""
    return error * math.sqrt(1 + share ** 2 + (1 - share) ** 2)


@functools.lru_cache(maxsize=256)
def _studentised_range(means: int, freedom: int) -> float:
    """How many standard errors the range of equal means reaches by chance."""
    from scipy.stats import studentized_range  # heavy

    return float(studentized_range.ppf(1 - CHANCE, means, freedom))


def _student(chance: float, freedom: int) -> float:
    from scipy.special import stdtrit  # heavy

    return float(stdtrit(freedom, 1 - chance))


def _count(number: int) -> str:
    return {0: "No strength has", 1: "Only one strength has"}.get(
        number, f"Only {number} strengths have")


def _range(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(value ** 2 for value in values) / len(values))
