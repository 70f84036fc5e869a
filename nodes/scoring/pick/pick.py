"""Choosing the best of a batch by rule: who may be picked, and why the others were not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...errors import LikenessError
from ...quality.look import face_pattern
from ...quality.rules import Rules
from ...sockets import Verdict
from ..score.axes import Axes
from ..score.report import LikenessReport, picture_print
from ..score.score import Score

VERDICTS = ("keep", "keep or unsure", "any scored")
QUALITIES = ("no objection", "not rejected", "any")


@dataclass(frozen=True)
class PickRules:
    """What a picture must meet. Each rule has a value that switches it off.

    Raises:
        LikenessError: an unknown choice.
    """

    count: int = 0  # how many are picked at most; 0: all that may be
    verdict: str = "keep"
    min_score: float = -1.0  # similarity; -1: any
    min_percentile: float = 0.0  # of the subject's own photos; 0: any
    copies: bool = False  # whether copies of a reference photo may be picked
    max_copy_paste: float = 1.0  # of MultiID-Bench's measure; 1: any
    quality: str = "not rejected"
    min_difference: int = Rules().duplicate_bits + 1  # bits of 64 between two picks; 0: any

    def __post_init__(self) -> None:
        for name, known in (("verdict", VERDICTS), ("quality", QUALITIES)):
            if getattr(self, name) not in known:
                raise LikenessError(f"`{name}` must be one of {', '.join(known)}; got "
                                    f"`{getattr(self, name)}`.")


@dataclass(frozen=True)
class Choice:
    """What became of one picture."""

    index: int  # in the batch
    picked: bool
    rule: str  # which rule decided; `picked` when none objected
    text: str  # one sentence


def pick(scores: Sequence[Score], axes: Axes, patterns: Mapping[int, np.ndarray],
         rules: PickRules) -> list[Choice]:
    """Go through a ranking and pick greedily, so that a better picture is never left for a worse.

    Args:
        scores: ranked, best first.
        axes: of the same batch, in its order.
        patterns: `face_pattern` of each picture with a face, by its number in the batch.
    """
    picks: list[int] = []
    choices = []
    for score in scores:
        refused = _refused(score, axes, rules) or _repeats(score, picks, patterns, rules)
        if refused is None and rules.count and len(picks) == rules.count:
            refused = "count", f"{_pictures(rules.count)} better than this one."
        if refused is None:
            picks.append(score.index)
        choices.append(Choice(score.index, refused is None, *(refused or (
            "picked", f"Place {len(picks)} of those that may be picked."))))
    return choices


def best_one(choices: Sequence[Choice], scores: Sequence[Score], axes: Axes,
             rules: PickRules) -> list[Choice]:
    """Pick the first of the ranking all the same, where no rule let anything pass.

    Where copies are refused, the first that is none goes before them.

    Raises:
        LikenessError: not even that one has a score.
    """
    first = next((score for score in scores
                  if score.score is not None and not _copied(score, axes, rules)), scores[0])
    if first.score is None:
        raise LikenessError(f"None of {len(scores)} pictures could be scored, so there is no best "
                            f"one: {first.text} Make pictures that show a face.")
    return [Choice(choice.index, True, choice.rule, f"Picked as the best of those refused: "
                   f"{choice.text}") if choice.index == first.index else choice
            for choice in choices]


def none_left(choices: Sequence[Choice]) -> LikenessError:
    """What to say when no picture is picked and that is an error."""
    reasons = [choice.rule for choice in choices]
    told = ", ".join(f"{reasons.count(rule)} by {rule}" for rule in dict.fromkeys(reasons))
    return LikenessError(f"None of {len(choices)} pictures may be picked ({told}); the best: "
                         f"{choices[0].text} Loosen a rule, make more pictures, or set `when_none` "
                         "to `best one`.")


def patterns_of(pictures: Sequence[np.ndarray],
                scores: Sequence[Score]) -> dict[int, np.ndarray]:
    """The perceptual hash round each face that was scored: (64,) bool by number."""
    return {score.index: face_pattern(pictures[score.index], score.face)
            for score in scores if score.face is not None}


def order_of(report: LikenessReport, pictures: Sequence[np.ndarray]) -> list[int]:
    """Where each picture of a report lies among `pictures`, by its number in the scored batch.

    Pictures are told by their content, so they may come in any order.

    Raises:
        LikenessError: they are others, more or fewer.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, pixels in enumerate(pictures):
        places[picture_print(pixels)].append(place)
    known = sorted(zip((score.index for score in report.scores), report.prints, strict=True))
    order = [places[content].pop(0) for _, content in known if places[content]]
    if len(order) < len(known) or len(pictures) != len(known):
        raise LikenessError(f"The report is of other pictures than the {len(pictures)} in "
                            "`images`; connect both to the same Likeness Score, or leave the "
                            "report away.")
    return order


def as_json(choices: Sequence[Choice], rules: PickRules, report: LikenessReport) -> dict[str, Any]:
    """The choice as JSON: the rules, and each picture with its reason, best first."""
    entries = {entry["index"]: entry for entry in report.data["images"]}
    picked = [choice.index for choice in choices if choice.picked]
    return {
        "format": 1, "kind": "likeness_pick", "subject": report.subject,
        "backend": report.backend, "rules": asdict(rules), "count": len(picked),
        "picked": picked, "refused": {rule: sum(choice.rule == rule and not choice.picked
                                                for choice in choices)
                                      for rule in dict.fromkeys(
                                          choice.rule for choice in choices if not choice.picked)},
        "images": [{"picked": choice.picked, "rule": choice.rule, "why": choice.text,
                    **entries[choice.index]} for choice in choices]}


def _refused(score: Score, axes: Axes, rules: PickRules) -> tuple[str, str] | None:
    """The first rule that a picture does not meet, and why."""
    if score.score is None:
        return "score", score.text
    allowed = {"keep": (Verdict.KEEP,), "keep or unsure": (Verdict.KEEP, Verdict.UNSURE)}
    if score.verdict not in allowed.get(rules.verdict, tuple(Verdict)):
        return "verdict", score.text
    if score.score < rules.min_score:
        return "score", f"The score {score.score:.2f} is below {rules.min_score:.2f}."
    if rules.min_percentile > 0:
        if score.percentile is None:
            return "percentile", "The subject has too few photos for a percentile."
        if score.percentile < rules.min_percentile:
            return "percentile", (f"Percentile {score.percentile:.0f} of the own photos is below "
                                  f"{rules.min_percentile:.0f}.")
    return _copied(score, axes, rules) or _poor(score, axes, rules)


def _copied(score: Score, axes: Axes, rules: PickRules) -> tuple[str, str] | None:
    copy = axes.copies[score.index]
    if copy is not None and copy.copied and not rules.copies:
        return "copy", copy.text
    if rules.max_copy_paste < 1:
        value = None if copy is None else copy.copy_paste
        if value is None:
            return "copy-paste", "No photo was held out, so copy-paste cannot be measured."
        if value > rules.max_copy_paste:
            return "copy-paste", (f"Copy-paste {value:.2f} is above {rules.max_copy_paste:.2f}: "
                                  f"nearer to `{copy.nearest}` than to other photos.")
    return None


def _poor(score: Score, axes: Axes, rules: PickRules) -> tuple[str, str] | None:
    quality = axes.quality[score.index]
    if quality is None or rules.quality == "any":
        return None
    against = [reason for reason in quality.reasons
               if rules.quality == "no objection" or reason.verdict is Verdict.REJECT]
    return ("quality", against[0].text) if against else None


def _repeats(score: Score, picks: Sequence[int], patterns: Mapping[int, np.ndarray],
             rules: PickRules) -> tuple[str, str] | None:
    if not rules.min_difference:
        return None
    own = patterns[score.index]
    for other in picks:
        bits = int(np.count_nonzero(own != patterns[other]))
        if bits < rules.min_difference:
            return "repeat", (f"Nearly the same face picture as image {other + 1}: {bits} of 64 "
                              f"bits differ, fewer than {rules.min_difference}.")
    return None


def _pictures(count: int) -> str:
    return "One picture is" if count == 1 else f"{count} pictures are"
