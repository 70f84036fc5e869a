"""Turn a similarity into a verdict with error rates, for one subject and one recogniser.

A raw similarity means nothing by itself: two real photos of one person agree far less than one
expects, and how alike strangers are depends on who is looked for. Two yardsticks make it mean
something: the subject's own leave-one-out similarities s_1..s_n (each photo against the centre of
the others), and how alike the people of a bank are to the subject.

    floor  = what 1 in 1000 strangers reach (`Impostors.limit`), by the group of the bank's people
             of which most do; without a bank the recogniser's published same-person cut
    doubt  = what 1 in 100 strangers reach, alike; without a bank the published cut
    sigma0 = max((median(s) - floor) / 4, (1 - median(s)) / 8)
                                           what we assume before having seen many photos
    sigma  = sqrt(((n - 1) m^2 + 3 sigma0^2) / (n + 2)),   m = 1.4826 c_n median|s - median(s)|
    keep_from    = max(floor, median(s) - 2 sigma)
    reject_below = min(doubt, median(s) - 3 sigma); without a bank the published cut

`m` is the robust standard deviation (Rousseeuw and Croux 1993, doi
10.1080/01621459.1993.10476408); c_n makes the mean of m^2 right for n normal values. Mixing in
sigma0 with the weight of three photos, as a scaled inverse chi-square prior of the variance does,
keeps three nearly equal selfies from making the rule absurdly strict. With sigma0 alone keep_from
lies half way between a high median and the floor. The rule is one and continuous: photos that agree
less move the limits down, keep_from no further than to the floor, and a note says where the subject
cannot be told from strangers.

A woman is more like other women than like the people of a bank that are men for the most part: 1 in
100 of the bank are then 1 in 8 of those who could be taken for her. So where a bank says who its
people are, a limit is the highest that any of its groups asks for, and a rate that of the group of
which most pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from ...sockets import Spread, Verdict
from .rates import Impostors, Rate, false_rejects, percentile

PRIOR_PHOTOS = 3
SIGMAS, FAR_SIGMAS = 2.0, 3.0
MINIMUM_PHOTOS = 3  # with fewer, a leave-one-out spread says nothing
MINIMUM_BANK = 100  # people; from fewer no tail can be fitted, so no limit rests on them
KEEP_RATE, DOUBT_RATE = 0.001, 0.01  # of strangers, that the limits may let in
SUBJECT_CHANCE = 0.01  # that a stranger stands out from the bank as far as the subject would
HARDLY = 0.5  # share of strangers above `reject_below` from which it tells nobody apart

# Of n = 3, 4, ... normal values, from 200 000 samples each; from 11 on it is 1 within 2 %.
_MAD_FACTORS = (1.143, 1.183, 1.053, 1.076, 1.026, 1.043, 1.020, 1.029)


@dataclass(frozen=True)
class Calibration:
    """Where the verdicts of one subject and one recogniser change, and how often they are wrong."""

    spread: Spread | None  # None: too few photos of the subject
    cut: float | None  # the recogniser's same-person similarity; None: none is published
    keep_from: float | None  # at or above: this person; None: nothing can be called keep
    reject_below: float | None  # below: somebody else; None: nothing can be called reject
    note: str = ""  # why a limit is missing or tells little, one sentence
    sigma: float | None = None  # of the subject's own similarities
    impostors: Impostors | None = None  # None: no bank, so false accepts cannot be stated
    groups: tuple[Impostors, ...] = ()  # of those, by who they are; none: the bank does not say
    everyone: Impostors | None = None  # with the one who was left out; None: nobody was

    @property
    def left_out(self) -> int:
        """How many people of the bank were taken for the subject."""
        return 0 if self.everyone is None else 1

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
        """How many strangers of the worst group reach a similarity; None without a bank."""
        if self.impostors is None or limit is None:
            return None
        rates = [group.false_accepts(limit) for group in self.groups or (self.impostors,)]
        return max(rates, key=lambda rate: rate.upper if rate.estimate is None else rate.estimate)

    def false_accepts_of_everyone(self, limit: float | None) -> Rate | None:
        """The same with the person who was left out; None where nobody was."""
        if self.everyone is None or limit is None:
            return None
        return self.everyone.false_accepts(limit)

    def false_rejects(self, limit: float | None) -> Rate | None:
        """How many true pictures miss a similarity; None with too few photos of the subject.

        An own photo is compared with the centre of the n - 1 others, a picture with that of all n,
        to which its distance is less by the factor sqrt(1 - 1 / n^2) where photos scatter evenly.
        """
        if self.spread is None or self.sigma is None or limit is None:
            return None
        own, middle = self.spread.similarities, self.spread.median
        nearer = 1 - (1 - middle) * math.sqrt(1 - 1 / len(own) ** 2)
        return false_rejects(limit, own, nearer, self.sigma, PRIOR_PHOTOS)


def calibrate(spread: Spread | None, cut: float | None,
              strangers: Sequence[float] | np.ndarray | None = None,
              groups: Mapping[str, np.ndarray] = MappingProxyType({})) -> Calibration:
    """Set the limits for one subject.

    Args:
        spread: the subject's leave-one-out similarities; None when there are none.
        cut: the recogniser's stated same-person similarity, or None.
        strangers: similarities of a bank's people to the subject's centre; None without a bank.
        groups: which of the people belong together, (N,) bool by name; small groups do not count.
    """
    few = spread is None or len(spread.similarities) < MINIMUM_PHOTOS
    spread = None if few else spread
    everyone = None if strangers is None or len(strangers) < 2 else Impostors.of(strangers)
    rest = None if everyone is None or spread is None else _without_subject(everyone, spread)
    impostors = everyone if rest is None else rest
    everyone = None if rest is None else everyone
    banked = impostors is not None and len(impostors.similarities) >= MINIMUM_BANK
    told = _by_group(strangers, groups, rest is not None) if banked else ()
    floor = _highest(told or (impostors,), KEEP_RATE) if banked else cut
    doubt = _highest(told or (impostors,), DOUBT_RATE) if banked else cut
    if spread is None:
        return Calibration(None, cut, None, doubt,
                           f"The subject has fewer than {MINIMUM_PHOTOS} photos, so no picture can "
                           "be called keep; add photos.", None, impostors, told)
    sigma = _sigma(spread, floor)
    reject_below = min(doubt, spread.median - FAR_SIGMAS * sigma) if banked else doubt
    return Calibration(spread, cut, _keep_from(spread, sigma, floor), reject_below,
                       _note(spread, floor, reject_below, impostors if banked else None), sigma,
                       impostors, told, everyone)


def _by_group(strangers: Sequence[float] | np.ndarray, groups: Mapping[str, np.ndarray],
              without_first: bool) -> tuple[Impostors, ...]:
    """The strangers of each group that is large enough, the most alike of all left out if asked."""
    values = np.asarray(strangers, np.float64)
    counts = np.ones(len(values), bool)
    if without_first:
        counts[int(values.argmax())] = False
    return tuple(Impostors.of(values[members & counts], name) for name, members in groups.items()
                 if (members & counts).sum() >= MINIMUM_BANK)


def _highest(groups: Sequence[Impostors], rate: float) -> float:
    return max(group.limit(rate) for group in groups)


def _without_subject(everyone: Impostors, spread: Spread) -> Impostors | None:
    """The bank without the subject, who may be one of its people; None where nobody must be him.

    The two highest of values with an exponential tail lie an exponential gap of the same scale
    apart (Renyi 1953). Who lies farther above the second than a stranger hardly ever would, and
    would be kept, is the subject or a twin.
    """
    ordered = everyone.similarities
    if len(ordered) <= MINIMUM_BANK:
        return None
    rest = Impostors.of(ordered[:-1])
    if math.exp(-(ordered[-1] - ordered[-2]) / rest.excess) >= SUBJECT_CHANCE:
        return None
    floor = rest.limit(KEEP_RATE)
    return rest if ordered[-1] >= _keep_from(spread, _sigma(spread, floor), floor) else None


def _keep_from(spread: Spread, sigma: float, floor: float | None) -> float:
    reach = spread.median - SIGMAS * sigma
    return reach if floor is None else max(floor, reach)


def _note(spread: Spread, floor: float | None, reject_below: float | None,
          impostors: Impostors | None) -> str:
    """Where the limits tell little, and why."""
    if floor is None:
        return ("This recogniser states no same-person cut, so no picture can be called reject; "
                "connect a bank of other people's faces.")
    if spread.median <= floor:
        return ("The subject's own photos are no more alike for this recogniser than the most "
                "alike strangers are, so keep says little; check the photos.")
    if impostors is not None and impostors.false_accepts(reject_below).estimate > HARDLY:
        return ("The subject's own photos differ so much that most strangers could be one of "
                "them, so hardly a picture can be called reject; check the photos.")
    return ""


def _sigma(spread: Spread, floor: float | None) -> float:
    assumed = (1 - spread.median) / 8
    if floor is not None:
        assumed = max(assumed, (spread.median - floor) / 4)
    count = len(spread.similarities)
    variance = (count - 1) * robust_sigma(spread.similarities) ** 2 + PRIOR_PHOTOS * assumed ** 2
    return math.sqrt(variance / (count - 1 + PRIOR_PHOTOS))


def robust_sigma(values: Sequence[float]) -> float:
    """The standard deviation of a normal sample, from the median absolute deviation."""
    array = np.asarray(values, np.float64)
    place = len(array) - MINIMUM_PHOTOS
    factor = _MAD_FACTORS[place] if 0 <= place < len(_MAD_FACTORS) else 1.0
    return float(1.4826 * factor * np.median(np.abs(array - np.median(array))))
