"""A second judge: another recogniser's opinion of the same pictures, and where the two differ.

A recogniser that took part in making a picture praises its own work: cosine to the reference that
was injected, by the recogniser that injected it, is high by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import LikenessError
from .score import Score, Yardstick, rescore

NONE = "none"


@dataclass(frozen=True, eq=False)
class SecondOpinion:
    """What another recogniser says about the pictures of a batch."""

    measure: Yardstick
    scores: tuple[Score, ...]  # in the order of the batch
    agreement: float | None  # rank correlation of both scores, -1..1; None: too few or all equal

    def differs(self, score: Score) -> bool:
        """Whether the verdicts about one picture differ."""
        return self.scores[score.index].verdict is not score.verdict


def second_opinion(pictures: Sequence[np.ndarray], first: Sequence[Score], judge: str,
                   measure: Yardstick,
                   on_item: Callable[[int], None] = lambda done: None) -> SecondOpinion:
    """Score the faces that the first judge scored in pictures (H, W, 3) uint8 RGB.

    Args:
        first: what the first judge said, in the order of the batch.
        judge: the first judge's recogniser.
        measure: the subject by the second judge's.
        on_item: called with the number of pictures done; may raise to cancel.

    Raises:
        LikenessError: both judges are the same.
    """
    if measure.backend == judge:
        raise LikenessError(f"Both judges are {judge}; choose another `second_backend`, or none.")
    scores = []
    for done, (pixels, score) in enumerate(zip(pictures, first, strict=True), 1):
        scores.append(rescore(pixels, score, measure))
        on_item(done)
    both = [(one.score, other.score) for one, other in zip(first, scores, strict=True)
            if one.score is not None and other.score is not None]
    return SecondOpinion(measure, tuple(scores), rank_correlation(both))


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's rho of pairs (N, 2), ties sharing their rank; None where it has no meaning."""
    if len(pairs) < 3:
        return None
    ranks = [_ranks(column) for column in np.asarray(pairs, np.float64).T]
    if any(column.std() == 0 for column in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    below = (values[:, None] > values[None]).sum(1)
    equal = (values[:, None] == values[None]).sum(1)
    return below + (equal - 1) / 2
