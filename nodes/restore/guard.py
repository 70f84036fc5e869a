"""The identity guard: how hard a face may be restored before it is somebody else's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import LikenessError
from ..faces import backends, embed
from ..sockets import Face, Subject

FRACTIONS = (1.0, 0.8, 0.6, 0.4, 0.2)  # of the strength asked for, tried from the hardest down


@dataclass(frozen=True)
class Judge:
    """Says how much a face looks like someone, and how much it must."""

    compared_with: str  # for the report
    measure: Callable[[np.ndarray, Face], float]  # (H, W, 3) uint8, face -> similarity
    least: Callable[[float], float]  # likeness before -> the least that is accepted after


# (picture before restoring, face) -> the judge of that face
JudgeFor = Callable[[np.ndarray, Face], Judge]


@dataclass(frozen=True)
class Trial:
    """One strength that was tried and the likeness it gave."""

    strength: float
    likeness: float


def judge_for(subject: Subject | None, backend: str, allowed_loss: float = 0.0,
              guard: bool = True) -> JudgeFor:
    """Judge by the subject's photos, or without a subject by each face itself.

    Args:
        allowed_loss: how far similarity to the subject may fall below what it was before.
        guard: whether anything will be decided by the judge, or only reported.

    Raises:
        MissingModelError: the recogniser's files are absent.
        LikenessError: nothing to decide by: no subject, and no stated same-person cut.
    """
    backends.require(backend)
    if subject is not None:
        return _subject_judge(subject, backend, allowed_loss)
    cut = backends.backend(backend).same_person
    if cut is None and guard:
        raise LikenessError(f"The recogniser {backend} states no same-person cut, so it cannot "
                            "guard faces without a subject; connect one, or choose dlib.")
    return _original_judge(backend, cut if cut is not None else -math.inf)


def _subject_judge(subject: Subject, backend: str, allowed_loss: float) -> JudgeFor:
    """Compare with the held-out photos when there are any, else with all."""
    rows = embed.subject_embeddings(subject, backend)
    own = rows[len(subject.references):] if subject.held_out else rows
    middle = embed.centre(own, backend)

    def measure(pixels: np.ndarray, face: Face) -> float:
        return embed.similarity(embed.embed(pixels, face, backend), middle, backend)

    judge = Judge("held-out photos" if subject.held_out else "all photos", measure,
                  lambda before: before - allowed_loss)
    return lambda pixels, face: judge


def _original_judge(backend: str, cut: float) -> JudgeFor:
    """Compare with the face before restoring: it must stay the same person."""

    def judge(pixels: np.ndarray, face: Face) -> Judge:
        original = embed.embed(pixels, face, backend)

        def measure(after: np.ndarray, face: Face) -> float:
            return embed.similarity(embed.embed(after, face, backend), original, backend)

        return Judge("the face before restoring", measure, lambda before: cut)
    return judge


def strongest(measure: Callable[[float], float], strength: float,
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
        if trial.likeness >= least:
            return trial.strength, tuple(trials)
    return 0.0, tuple(trials)
