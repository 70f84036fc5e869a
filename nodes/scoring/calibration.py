"""Turn a similarity into a verdict, measured against how much a person's own photos differ.

A raw similarity means nothing by itself: two real photos of one person agree far less than one
expects. Two yardsticks make it mean something: the subject's own leave-one-out similarities
s_1..s_n (each photo against the centre of the others) and the recogniser's stated same-person cut.

    sigma0 = (median(s) - cut) / 4             what we assume before having seen many photos
    sigma  = sqrt(((n - 1) m^2 + 3 sigma0^2) / (n + 2)),   m = 1.4826 median|s - median(s)|
    keep_from   = max(cut, median(s) - 2 sigma)
    reject_below = cut

`m` is the robust standard deviation (Rousseeuw and Croux 1993, doi
10.1080/01621459.1993.10476408). Mixing in sigma0 with the weight of three photos, as a scaled
inverse chi-square prior of the variance does, keeps three nearly equal selfies from making the
rule absurdly strict.
With sigma0 alone keep_from lies half way between the median and the cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..sockets import Spread, Verdict

PRIOR_PHOTOS = 3
SIGMAS = 2.0
MINIMUM_PHOTOS = 3  # with fewer, a leave-one-out spread says nothing


@dataclass(frozen=True)
class Calibration:
    """Where the verdicts of one subject and one recogniser change."""

    spread: Spread | None  # None: too few photos of the subject
    cut: float | None  # the recogniser's same-person similarity; None: none is published
    keep_from: float | None  # at or above: this person; None: nothing can be called keep
    reject_below: float | None  # below: somebody else; None: nothing can be called reject
    note: str = ""  # why a limit is missing, one sentence

    def verdict(self, score: float) -> Verdict:
        """Decide about one raw similarity."""
        if self.reject_below is not None and score < self.reject_below:
            return Verdict.REJECT
        if self.keep_from is not None and score >= self.keep_from:
            return Verdict.KEEP
        return Verdict.UNSURE

    def percentile(self, score: float) -> float | None:
        """The share of the subject's own photos that score lower, 0 to 100; ties count half."""
        return None if self.spread is None else percentile(score, self.spread.similarities)


def calibrate(spread: Spread | None, cut: float | None) -> Calibration:
    """Set the limits for one subject.

    Args:
        spread: the subject's leave-one-out similarities; None when there are none.
        cut: the recogniser's stated same-person similarity, or None.
    """
    if spread is None or len(spread.similarities) < MINIMUM_PHOTOS:
        return Calibration(None, cut, None, cut,
                           f"The subject has fewer than {MINIMUM_PHOTOS} photos, so no picture can "
                           "be called keep; add photos.")
    own = robust_sigma(spread.similarities)
    if cut is None:
        return Calibration(spread, None, spread.median - SIGMAS * own, None,
                           "This recogniser states no same-person cut, so no picture can be called "
                           "reject.")
    if spread.median <= cut:
        return Calibration(spread, cut, None, cut,
                           "The subject's own photos hardly resemble each other for this "
                           "recogniser, so no picture can be called keep; check the photos.")
    assumed = (spread.median - cut) / 4
    count = len(spread.similarities)
    variance = (count - 1) * own ** 2 + PRIOR_PHOTOS * assumed ** 2
    sigma = math.sqrt(variance / (count - 1 + PRIOR_PHOTOS))
    return Calibration(spread, cut, max(cut, spread.median - SIGMAS * sigma), cut)


def robust_sigma(values: Sequence[float]) -> float:
    """The standard deviation of a normal sample, from the median absolute deviation."""
    array = np.asarray(values, np.float64)
    return float(1.4826 * np.median(np.abs(array - np.median(array))))


def percentile(score: float, own: Sequence[float]) -> float:
    """100 (number of own values below + half of those equal) / number."""
    array = np.asarray(own, np.float64)
    below, equal = np.count_nonzero(array < score), np.count_nonzero(array == score)
    return float(100 * (below + 0.5 * equal) / len(array))
