"""What stands beside likeness, always: copies, diversity, the prompt and the face's quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...quality.judge import judge
from ...quality.look import Seen
from ...quality.measures import measure as measure_face
from ...quality.rules import Rules
from ...sockets import Reason
from .copying import Copying, Originals, copying, originals
from .diversity import Diversity, diversity
from .prompt import PromptFit
from .score import Score, Yardstick

# What curation asks of photos and a generated headshot need not meet.
_NOT_OF_PICTURES = frozenset({"several_faces", "turned"})


@dataclass(frozen=True, eq=False)
class FaceQuality:
    """How well a picture shows the face, by the measures and limits of curation."""

    measures: Mapping[str, float]
    reasons: tuple[Reason, ...]  # empty: nothing is wrong


@dataclass(frozen=True, eq=False)
class Axes:
    """The other axes of a batch, tuples in the order of the batch."""

    copies: tuple[Copying | None, ...]  # None: no score, so no comparison
    quality: tuple[FaceQuality | None, ...]  # None: no face
    diversity: Diversity
    prompt: PromptFit | None  # None: no CLIP is connected
    originals: Originals

    @property
    def copied(self) -> int:
        """How many pictures are copies of a reference photo."""
        return sum(copy is not None and copy.copied for copy in self.copies)


def measure_axes(pictures: Sequence[np.ndarray], scores: Sequence[Score], measure: Yardstick,
                 prompt: PromptFit | None = None,
                 on_item: Callable[[int], None] = lambda done: None) -> Axes:
    """Measure pictures (H, W, 3) uint8 RGB that have been scored, in the order of the batch.

    Args:
        scores: one per picture, in the same order.
        on_item: called with the number of pictures done; may raise to cancel.
    """
    known = originals(measure)
    copies, quality = [], []
    for pixels, score in zip(pictures, scores, strict=True):
        copies.append(copying(pixels, score, known))
        quality.append(face_quality(pixels, score))
        on_item(len(copies))
    return Axes(
        tuple(copies), tuple(quality),
        diversity(pictures, scores, measure, None if prompt is None else prompt.seen),
        prompt, known)


def face_quality(pixels: np.ndarray, score: Score) -> FaceQuality | None:
    """Measure the face that was scored; None where there is none."""
    if score.face is None:
        return None
    found = measure_face(pixels, score.face)
    reasons = judge(Seen(score.face, {"faces": float(score.faces), "second_face": 0.0, **found}),
                    Rules())
    return FaceQuality(found, tuple(reason for reason in reasons
                                    if reason.rule not in _NOT_OF_PICTURES))
