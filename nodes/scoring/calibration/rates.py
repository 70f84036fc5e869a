"""Error rates from few samples: what was counted, what a model says, and how wrong both may be.

Counts of rare events say little: none of 535 strangers above a limit still allows one in 180. So
every rate comes with its count and the exact one-sided 95 % bound (Clopper and Pearson 1934, doi
10.1093/biomet/26.4.404; with a count of zero about 3 / n, the rule of three). Beyond what can be
counted a model extrapolates, and the rate says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95  # of the upper bounds, one-sided
COUNTED = 10  # samples beyond a limit from which their share is better than a model's guess
MODELLED_FROM = 50  # impostors; a tail fitted to fewer is no better than a guess
_MAD_EFFICIENCY = 0.37  # of the median absolute deviation, as an estimate of a normal's
_TAIL_SHARE, _TAIL_LEAST = 0.1, 20  # of the impostors, from which the tail is fitted


@dataclass(frozen=True)
class Rate:
    """A share of cases, 0 to 1."""

    estimate: float | None  # None: too few samples for a count or a model, so the bound alone
    counted: int  # samples that were found beyond the limit
    of: int  # samples
    upper: float  # 95 % sure to be above the true rate, by the count alone
    modelled: bool  # the estimate comes from a model, because too few were counted
    among: str = ""  # which group of people it holds for; empty: all of them

    @property
    def text(self) -> str:
        """For people, such as `0.04 % (modelled; 0 of 141 women counted, at most 2.1 %)`."""
        counted = f"{self.counted} of {self.of}{' ' if self.among else ''}{self.among} counted"
        if self.estimate is None:
            return f"at most {percent(self.upper)} ({counted})"
        how = "modelled; " if self.modelled else ""
        return f"{percent(self.estimate)} ({how}{counted}, at most {percent(self.upper)})"


def percent(rate: float | None) -> str:
    """A rate in per cent with two digits that matter."""
    if rate is None:
        return "not known"
    if rate < 1e-6:
        return "under 0.0001 %"
    return f"{100 * rate:.{max(0, 1 - math.floor(math.log10(100 * rate)))}f} %"


def upper_bound(counted: int, of: int) -> float:
    """The exact one-sided bound of a share of which `counted` of `of` samples were seen."""
    from scipy.special import betaincinv  # heavy

    return 1.0 if counted >= of else float(betaincinv(counted + 1, of - counted, CONFIDENCE))


@dataclass(frozen=True, eq=False)
class Impostors:
    """How alike strangers are to one subject, and the tail beyond the most alike of them.

    The excesses over a high level u are taken to be exponential: a generalised Pareto tail of
    shape 0, what maxima of normal and similar variables tend to (Balkema and de Haan 1974, Pickands
    1975: peaks over threshold). With k of n above u and b their mean excess,

        P(a stranger >= t) = k / n exp(-(t - u) / b)   for t >= u.

    A normal tail falls faster, so the estimate errs to the side of more false accepts.
    """

    similarities: np.ndarray  # (n,) ascending
    level: float  # u
    excess: float  # b
    above: int  # k
    among: str = ""  # which group of people these are; empty: all of them

    @classmethod
    def of(cls, similarities: Sequence[float] | np.ndarray, among: str = "") -> Impostors:
        """Fit the tail to at least two similarities of strangers."""
        ordered = np.sort(np.asarray(similarities, np.float64))
        count = min(max(round(_TAIL_SHARE * len(ordered)), _TAIL_LEAST), len(ordered) - 1)
        level = float(ordered[-count - 1])
        excess = max(float((ordered[-count:] - level).mean()), 1e-6)
        return cls(ordered, level, excess, count, among)

    def false_accepts(self, limit: float) -> Rate:
        """How many strangers a limit lets in."""
        of = len(self.similarities)
        counted = of - int(np.searchsorted(self.similarities, limit, side="left"))
        modelled = counted < COUNTED and limit > self.level
        if modelled and of < MODELLED_FROM:
            return Rate(None, counted, of, upper_bound(counted, of), False, self.among)
        estimate = self._tail(limit) if modelled else counted / of
        return Rate(estimate, counted, of, upper_bound(counted, of), modelled, self.among)

    def limit(self, rate: float) -> float:
        """The similarity that strangers reach at this rate, by count or by the tail."""
        share = self.above / len(self.similarities)
        if rate <= share:
            return self.level + self.excess * math.log(share / rate)
        return float(np.quantile(self.similarities, 1 - rate))

    def percentile(self, score: float) -> float:
        """The share of strangers that are less alike, 0 to 100; ties count half."""
        return percentile(score, self.similarities)

    def _tail(self, limit: float) -> float:
        share = self.above / len(self.similarities)
        return share * math.exp(-(limit - self.level) / self.excess)


def false_rejects(limit: float, own: Sequence[float], middle: float, sigma: float,
                  assumed: int) -> Rate:
    """How many true pictures of a person fall below a limit, rather more than fewer.

    The next similarity of a person of n photos, of whom the middle is the median and sigma comes
    from the median absolute deviation with the weight of `assumed` photos more, follows about
    Student's t with 0.37 (n - 1) + assumed degrees of freedom and the scale
    sigma sqrt(1 + pi / (2 n)) (Gelman et al., Bayesian Data Analysis, 3.2): a median varies by
    pi / 2 as much as a mean, and the deviation has 37 % of a variance's efficiency (Rousseeuw and
    Croux 1993). It errs to the upper side where the assumed variance is wider than the person's,
    and was up to 1.7 times too low for simulated photos that differ in a few directions alone.

    Args:
        own: the person's own leave-one-out similarities.
    """
    from scipy.special import stdtr  # heavy

    count = len(own)
    below = sum(value < limit for value in own)
    scale = max(sigma, 1e-6) * math.sqrt(1 + math.pi / 2 / count)
    freedom = _MAD_EFFICIENCY * (count - 1) + assumed
    estimate = float(stdtr(freedom, (limit - middle) / scale))
    return Rate(estimate, below, count, upper_bound(below, count), True)


def percentile(score: float, values: Sequence[float] | np.ndarray) -> float:
    """100 (number of values below + half of those equal) / number."""
    array = np.asarray(values, np.float64)
    below, equal = np.count_nonzero(array < score), np.count_nonzero(array == score)
    return float(100 * (below + 0.5 * equal) / len(array))
