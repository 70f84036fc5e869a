"""The identity guard: how hard a face may be restored before it is somebody else's.

Two rules. The restorer's own face, unblended, must still be the same person as before: a share of
somebody else's face can raise a similarity by chance. Then the strongest blend is taken whose
likeness to the subject is not lower than before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import FaceNotFoundError, LikenessError
from ..faces.recognise import backends, embed
from ..faces.recognise.centre import robust_centre
from ..sockets import Face, Subject

FRACTIONS = (1.0, 0.8, 0.6, 0.4, 0.2)  # of the strength asked for, tried from the hardest down

LOWERS = "Every setting lowers the likeness."
SOMEBODY_ELSE = "The restored face is not the same person as before."
UNASKED = "no same-person cut is stated, so it is not asked whether the face stays one person's"
UNSEEN = "The recogniser sees no face here, so nothing can be guarded."


@dataclass(frozen=True)
class Trial:
    """One strength that was tried and the likeness it gave; None: the recogniser saw no face."""

    strength: float
    likeness: float | None


@dataclass(frozen=True, eq=False)
class Judge:
    """Measures how much a face looks like the subject, or without one like itself before."""

    backend: str
    compared_with: str  # for the report
    centre: np.ndarray | None  # (D,) robust, of the subject's photos; None: no subject
    cut: float | None  # published same-person similarity; None: none is, so rule one is not asked
    allowed_loss: float = 0.0

    def look(self, pixels: np.ndarray, face: Face) -> np.ndarray | None:
        """Embed a face of an (H, W, 3) uint8 picture; None when the recogniser sees none.

        The landmarks are those from before restoring, so that a face whose features moved counts
        as changed.
        """
        try:
            return embed.embed(pixels, face, self.backend)
        except FaceNotFoundError:
            return None

    def likeness(self, seen: np.ndarray | None, before: np.ndarray | None) -> float | None:
        """Similarity to the subject, or without a subject to the face before."""
        return self._similarity(seen, before if self.centre is None else self.centre)

    def alone(self, seen: np.ndarray | None, before: np.ndarray | None) -> dict[str, float]:
        """The likeness by each of several judges alone; empty where there is one, or no face."""
        parts = backends.parts_of(self.backend)
        against = before if self.centre is None else self.centre
        if len(parts) == 1 or seen is None or against is None:
            return {}
        rows = zip(parts, *(embed.split_parts(row, self.backend) for row in (seen, against)),
                   strict=True)
        return {part: embed.similarity(own, other, part) for part, own, other in rows}

    def same_person(self, seen: np.ndarray | None, before: np.ndarray | None) -> bool:
        """Whether two looks at a face show one person; yes when the recogniser has no cut."""
        found = self._similarity(seen, before)
        return found is not None and (self.cut is None or found >= self.cut)

    def least(self, before: float) -> float:
        """The least likeness that is accepted after restoring."""
        if self.centre is not None:
            return before - self.allowed_loss
        return -math.inf if self.cut is None else self.cut

    def _similarity(self, a: np.ndarray | None, b: np.ndarray | None) -> float | None:
        return None if a is None or b is None else embed.similarity(a, b, self.backend)


def make_judge(subject: Subject | None, backend: str, allowed_loss: float = 0.0,
               guard: bool = True) -> Judge:
    """Judge by the subject's held-out photos, else all of them, else each face by itself.

    Args:
        allowed_loss: how far similarity to the subject may fall below what it was before.
        guard: whether anything will be decided by the judge, or only reported.

    Raises:
        MissingModelError: the recogniser's files are absent.
        LikenessError: nothing to decide by: no subject, and no stated same-person cut.
    """
    backends.require(backend)
    cut = backends.backend(backend).same_person
    if subject is None:
        if cut is None and guard:
            raise LikenessError(f"The recogniser {backend} states no same-person cut, so it cannot "
                                "guard faces without a subject; connect one, or choose dlib.")
        return Judge(backend, "the face before restoring", None, cut)
    rows = embed.subject_embeddings(subject, backend)
    own = rows[len(subject.references):] if subject.held_out else rows
    with_what = "held-out photos" if subject.held_out else "all photos"
    return Judge(backend, with_what if cut is not None else f"{with_what}; {UNASKED}",
                 robust_centre(own, backend), cut, allowed_loss)


def strongest(measure: Callable[[float], float | None], strength: float,
              least: float) -> tuple[float, tuple[Trial, ...]]:
    """Find the strongest setting whose likeness is enough.

    Args:
        measure: strength -> likeness of the picture blended that hard.
        strength: the hardest to try.
        least: the likeness that is enough.

    Returns:
        The strength, 0 when every setting harms, and what was tried.
    """
    trials: list[Trial] = []
    for fraction in FRACTIONS:
        trial = Trial(strength * fraction, measure(strength * fraction))
        trials.append(trial)
        if trial.likeness is not None and trial.likeness >= least:
            return trial.strength, tuple(trials)
    return 0.0, tuple(trials)
