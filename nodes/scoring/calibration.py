"""Turn a similarity into a verdict with error rates, for one subject and one recogniser.

A raw similarity means nothing by itself: two real photos of one person agree far less than one
expects, and how alike strangers are depends on who is looked for. Two yardsticks make it mean
something: the subject's own leave-one-out similarities s_1..s_n (each photo against the centre of
the others), and how alike the people of a bank are to the subject.

    floor  = what 1 in 1000 strangers reach (`Impostors.limit`); without a bank the recogniser's
             published same-person cut
    doubt  = what 1 in 100 strangers reach; without a bank the published cut
    sigma0 = (median(s) - floor) / 4           what we assume before having seen many photos
    sigma  = sqrt(((n - 1) m^2 + 3 sigma0^2) / (n + 2)),   m = 1.4826 median|s - median(s)|
    keep_from    = max(floor, median(s) - 2 sigma)
    reject_below = min(doubt, median(s) - 3 sigma); without a bank the published cut

`m` is the robust standard deviation (Rousseeuw and Croux 1993, doi
10.1080/01621459.1993.10476408). Mixing in sigma0 with the weight of three photos, as a scaled
inverse chi-square prior of the variance does, keeps three nearly equal selfies from making the
rule absurdly strict.
With sigma0 alone keep_from lies half way between the median and the floor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..sockets import Spread, Verdict
from .rates import Impostors, Rate, false_rejects, percentile

PRIOR_PHOTOS = 3
SIGMAS, FAR_SIGMAS = 2.0, 3.0
MINIMUM_PHOTOS = 3  # with fewer, a leave-one-out spread says nothing
MINIMUM_BANK = 100  # people; from fewer no tail can be fitted, so no limit rests on them
KEEP_RATE, DOUBT_RATE = 0.001, 0.01  # of strangers, that the limits may let in


@dataclass(frozen=True)
class Calibration:
    """Where the verdicts of one subject and one recogniser change, and how often they are wrong."""

    spread: Spread | None  # None: too few photos of the subject
    cut: float | None  # the recogniser's same-person similarity; None: none is published
    keep_from: float | None  # at or above: this person; None: nothing can be called keep
    reject_below: float | None  # below: somebody else; None: nothing can be called reject
    note: str = ""  # why a limit is missing, one sentence
    sigma: float | None = None  # of the subject's own similarities
    impostors: Impostors | None = None  # None: no bank, so false accepts cannot be stated
    left_out: int = 0  # people of the bank who are as alike as the subject's own photos

    @property
    def from_bank(self) -> bool:
        """Whether the limits rest on the bank rather than on the published cut."""
        return (self.impostors is not None
                and len(self.impostors.similarities) >= MINIMUM_BANK)

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

    def above_strangers(self, score: float) -> float | None:
        """The share of the bank's people that are less alike, 0 to 100; ties count half."""
        return None if self.impostors is None else self.impostors.percentile(score)

    def false_accepts(self, limit: float | None) -> Rate | None:
        """How many strangers reach a similarity; None without a bank."""
        if self.impostors is None or limit is None:
            return None
        return self.impostors.false_accepts(limit)

    def false_rejects(self, limit: float | None) -> Rate | None:
        """How many true pictures miss a similarity; None with too few photos of the subject."""
        if self.spread is None or self.sigma is None or limit is None:
            return None
        return false_rejects(limit, self.spread.similarities, self.spread.median, self.sigma,
                             PRIOR_PHOTOS)


def calibrate(spread: Spread | None, cut: float | None,
              strangers: Sequence[float] | np.ndarray | None = None) -> Calibration:
    """Set the limits for one subject.

    Args:
        spread: the subject's leave-one-out similarities; None when there are none.
        cut: the recogniser's stated same-person similarity, or None.
        strangers: similarities of a bank's people to the subject's centre; None without a bank.
    """
    few = spread is None or len(spread.similarities) < MINIMUM_PHOTOS
    spread = None if few else spread
    impostors, left_out = _impostors(strangers, spread)
    floor = doubt = cut
    if impostors is not None and len(impostors.similarities) >= MINIMUM_BANK:
        floor, doubt = impostors.limit(KEEP_RATE), impostors.limit(DOUBT_RATE)
        if spread is not None and spread.median > floor:
            sigma = _sigma(spread, floor)
            return Calibration(spread, cut, max(floor, spread.median - SIGMAS * sigma),
                               min(doubt, spread.median - FAR_SIGMAS * sigma), "", sigma,
                               impostors, left_out)
    if spread is None:
        return Calibration(None, cut, None, doubt,
                           f"The subject has fewer than {MINIMUM_PHOTOS} photos, so no picture can "
                           "be called keep; add photos.", None, impostors, left_out)
    own = robust_sigma(spread.similarities)
    if floor is None:
        return Calibration(spread, None, spread.median - SIGMAS * own, None,
                           "This recogniser states no same-person cut, so no picture can be called "
                           "reject.", own, impostors, left_out)
    if spread.median <= floor:
        return Calibration(spread, cut, None, doubt,
                           "The subject's own photos hardly resemble each other for this "
                           "recogniser, so no picture can be called keep; check the photos.",
                           own, impostors, left_out)
    sigma = _sigma(spread, floor)
    return Calibration(spread, cut, max(floor, spread.median - SIGMAS * sigma), floor, "", sigma,
                       impostors, left_out)


def _impostors(strangers: Sequence[float] | np.ndarray | None,
               spread: Spread | None) -> tuple[Impostors | None, int]:
    """Fit the bank without the subject, who may be one of its people.

    One person as alike as the middle of the subject's own photos is the subject or a twin; two
    such people are strangers whom the recogniser cannot tell apart, and stay.
    """
    if strangers is None or len(strangers) < 2:
        return None, 0
    found = np.asarray(strangers, np.float64)
    if spread is not None and np.count_nonzero(found >= spread.median) == 1 and len(found) > 2:
        return Impostors.of(np.delete(found, found.argmax())), 1
    return Impostors.of(found), 0


def _sigma(spread: Spread, floor: float) -> float:
    assumed = (spread.median - floor) / 4
    count = len(spread.similarities)
    variance = (count - 1) * robust_sigma(spread.similarities) ** 2 + PRIOR_PHOTOS * assumed ** 2
    return math.sqrt(variance / (count - 1 + PRIOR_PHOTOS))


def robust_sigma(values: Sequence[float]) -> float:
    """The standard deviation of a normal sample, from the median absolute deviation."""
    array = np.asarray(values, np.float64)
    return float(1.4826 * np.median(np.abs(array - np.median(array))))
