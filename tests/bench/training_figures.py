"""What the training bench says: ratios against their bars, as JSON and as a table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bar:
    """One promise: a ratio, averaged over the cases that it applies to, against a bound."""

    name: str
    numerator: str  # contenders
    denominator: str
    bound: float
    at_most: bool
    batch: int | None = 1  # None: any
    figure: str = "seconds"
    words: str = ""

    def holds(self, value: float) -> bool:
        """Whether a ratio meets the bound."""
        return value <= self.bound if self.at_most else value >= self.bound


# Ratios of times are slower over faster, and of bytes ours over theirs.
BARS = (
    Bar("over_floor", "ours", "floor", 1.15, True, batch=None,
        words="the default recipe over the frozen network's forward and backward"),
    Bar("core_batch1", "core_same", "ours_all", 1.15, False,
        words="core over ours, the same layers, float32 adapters, checkpointing and attention"),
    Bar("core_default", "core", "ours", 1.5, False,
        words="core's defaults over ours"),
    Bar("core_batch4", "core_same", "ours_all", 4.0, False, batch=4,
        words="as core_batch1, four photos with a caption each"),
    Bar("diffusers_peft", "peft", "ours_plain", 1.1, False,
        words="a diffusers + peft loop over ours, no checkpointing"),
    Bar("graph_bytes_over_core", "ours_all_plain", "core_plain", 0.6, True, figure="graph",
        words="what autograd keeps, the same layers, no checkpointing"),
    Bar("peak_over_core", "ours", "core", 1.0, True, figure="peak",
        words="most bytes in a step: ours over core's defaults"),
    Bar("peak_over_core_same", "ours_all", "core_same", 1.0, True, figure="peak",
        words="most bytes in a step: ours over core, the same layers and checkpointing"),
    Bar("peak_over_diffusers_peft", "ours_plain", "peft", 1.0, True, figure="peak",
        words="most bytes in a step: ours over diffusers + peft, no checkpointing"),
)


def summarise(cases: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each bar's ratio over the cases that it applies to, the worst, and each case's own.

    The mean is geometric, as is usual for ratios: halving one and doubling another cancel.
    """
    found = {}
    for bar in BARS:
        single = {case["name"]: case[bar.figure][bar.numerator] / case[bar.figure][bar.denominator]
                  for case in cases if _applies(bar, case)}
        if single:
            values = single.values()
            worst = max(values) if bar.at_most else min(values)
            mean = statistics.geometric_mean(values)
            found[bar.name] = {"mean": mean, "worst": worst, "bound": bar.bound,
                               "at_most": bar.at_most, "met": bar.holds(mean),
                               "met_by_all": bar.holds(worst), "cases": single}
    return found


def table(bars: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """Lines of text."""
    yield f"{'ratio':26}{'mean':>8}{'worst':>8}{'bar':>9}  met"
    for bar in BARS:
        if (row := bars.get(bar.name)) is not None:
            bound = f"{'<=' if bar.at_most else '>='} {bar.bound:g}"
            yield (f"{bar.name:26}{row['mean']:8.3f}{row['worst']:8.3f}{bound:>9}  "
                   f"{'yes' if row['met'] else 'NO '}  {bar.words}")


def _applies(bar: Bar, case: Mapping[str, Any]) -> bool:
    return (bar.batch in (None, case["batch"])
            and {bar.numerator, bar.denominator} <= case.get(bar.figure, {}).keys())
