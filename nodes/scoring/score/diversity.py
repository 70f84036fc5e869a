"""How different the pictures of one batch are: a model that has collapsed scores well otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...faces.recognise.embed import similarity
from ...media.images import resize
from .score import Score, Yardstick

_REACH = 1.64  # standard errors that a normal value exceeds once in twenty times
_SIDE = 32  # pixels; layout and light, no grain


@dataclass(frozen=True)
class Diversity:
    """The spread of a batch. Numbers are None where fewer than two pictures can be compared."""

    pictures: float | None  # mean difference of two pictures, 0 the same to 1 unrelated
    effective: float | None  # how many different pictures the batch amounts to (Vendi score)
    faces: float | None  # mean similarity of two scored faces
    real_faces: float | None  # mean similarity of two real photos of the subject
    margin: float | None = None  # by which `faces` may exceed `real_faces` by chance
    seen: float | None = None  # the Vendi score of what CLIP sees; None: none is connected

    @property
    def narrower_than_real(self) -> bool:
        """Whether the batch's faces differ less than as many photos of the person would."""
        return (self.faces is not None and self.real_faces is not None
                and self.margin is not None and self.faces > self.real_faces + self.margin)


def diversity(pictures: Sequence[np.ndarray], scores: Sequence[Score], measure: Yardstick,
              clip_embeddings: np.ndarray | None = None) -> Diversity:
    """Compare the pictures (H, W, 3) uint8 RGB of a batch, and their faces, with each other.

    Two pictures differ by 1 - the correlation of their colours at 32 x 32, mapped to 0..1 by a
    floor at 0: DreamBooth's DIV (arXiv 2208.12242) with a measure that needs no trained network
    where that has LPIPS.

    Args:
        clip_embeddings: (N, D) of the same pictures, or None.
    """
    kernel = correlations(pictures)
    faces = [score.embedding for score in scores if score.embedding is not None]
    several = len(pictures) > 1
    return Diversity(
        _mean_of_pairs(1 - kernel.clip(0)) if several else None,
        vendi(kernel) if several else None, _mean_similarity(faces, measure.backend),
        _mean_similarity(list(measure.photos), measure.backend),
        chance_margin(measure.photos, len(faces), measure.backend),
        vendi(_cosines(clip_embeddings)) if several and clip_embeddings is not None else None)


def chance_margin(photos: np.ndarray, count: int, backend: str) -> float | None:
    """How far as many more real photos may exceed the mean similarity of these by chance.

    About once in twenty times: 1.64 times the jackknife's standard error of the mean similarity of
    the N photos (Efron and Stein 1981, doi 10.1214/aos/1176345462), whose variance falls as 1 / N,
    for the N photos and for the others.

    Args:
        photos: (N, D) embeddings; fewer than three have no margin.
        count: how many others are compared with them.
    """
    total = len(photos)
    if total < 3 or count < 2:
        return None
    alike = np.array([[similarity(a, b, backend) for b in photos] for a in photos])
    without = [_mean_of_pairs(np.delete(np.delete(alike, i, 0), i, 1)) for i in range(total)]
    variance = (total - 1) * float(np.var(without))
    return _REACH * math.sqrt(variance * (1 + total / count))


def correlations(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """The correlation of each two pictures at 32 x 32: (N, N), 1 for a picture and itself."""
    rows = np.stack([resize(pixels, _SIDE, _SIDE).astype(np.float64).ravel()
                     for pixels in pictures])
    return _cosines(rows - rows.mean(1, keepdims=True))


def vendi(kernel: np.ndarray) -> float:
    """The effective number of different things: exp of the entropy of the eigenvalues of K / n.

    Friedman and Dieng, "The Vendi Score", arXiv 2210.02410. 1 when all are the same, n when all
    are unrelated.

    Args:
        kernel: (n, n) positive semidefinite, ones on the diagonal.
    """
    values = np.linalg.eigvalsh(kernel / len(kernel)).clip(1e-12)
    return float(np.exp(-(values * np.log(values)).sum()))


def _cosines(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-9)
    kernel = rows @ rows.T
    np.fill_diagonal(kernel, 1.0)  # also of a picture of one colour
    return kernel


def _mean_of_pairs(matrix: np.ndarray) -> float:
    return float(matrix[np.triu_indices(len(matrix), 1)].mean())


def _mean_similarity(rows: Sequence[np.ndarray], backend: str) -> float | None:
    pairs = [similarity(rows[i], rows[j], backend) for i in range(len(rows)) for j in range(i)]
    return float(np.mean(pairs)) if pairs else None
