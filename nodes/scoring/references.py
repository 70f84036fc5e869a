"""Several photos of one person as one yardstick that no single photo can bend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import LikenessError
from ..faces import backends
from ..faces.embed import similarity
from ..sockets import Spread

_STEPS, _CLOSE = 200, 1e-7
FEWEST = 3  # embeddings of which one can be outvoted


@dataclass(frozen=True)
class Nearness:
    """How alike one embedding and several photos are."""

    best: float  # similarity to the most alike photo
    mean: float  # mean of the similarities to all photos
    nearest: int  # which photo is the most alike


def robust_centre(embeddings: Sequence[np.ndarray] | np.ndarray,
                  backend: str = "dlib") -> np.ndarray:
    """The geometric median of embeddings (N, D), of unit vectors where cosine counts: (D,).

    The point with the least sum of distances: one odd photo pulls with the same weight wherever
    it lies, while a mean follows it. Weiszfeld's iteration as Vardi and Zhang (PNAS 2000, doi
    10.1073/pnas.97.4.1423) complete it. Of one or two it is the mean.

    Raises:
        LikenessError: no embeddings.
    """
    rows = np.asarray(embeddings, np.float64)
    if not len(rows):
        raise LikenessError("There is no face embedding to average; keep at least one photo.")
    cosine = backends.backend(backend).metric == "cosine"
    if cosine:
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    middle = rows.mean(0)
    if len(rows) >= FEWEST:
        middle = _geometric_median(rows, middle)
    if cosine:
        middle = middle / max(float(np.linalg.norm(middle)), 1e-12)
    return middle.astype(np.float32)


def _geometric_median(rows: np.ndarray, start: np.ndarray) -> np.ndarray:
    point = start
    for _ in range(_STEPS):
        distances = np.linalg.norm(rows - point, axis=1)
        apart = distances > 1e-12
        if not apart.any():
            return point
        weights = 1 / distances[apart]
        target = (rows[apart] * weights[:, None]).sum(0) / weights.sum()
        here = len(rows) - int(apart.sum())  # photos that lie on the point and hold it there
        pull = float(np.linalg.norm(((rows[apart] - point) * weights[:, None]).sum(0)))
        stay = min(1.0, here / pull) if pull else 1.0
        moved = (1 - stay) * target + stay * point
        if np.linalg.norm(moved - point) < _CLOSE:
            return moved
        point = moved
    return point


def own_spread(embeddings: np.ndarray, backend: str = "dlib") -> Spread | None:
    """Compare each of several embeddings (N, D) with the robust centre of the others.

    None for fewer than two.
    """
    if len(embeddings) < 2:
        return None
    return Spread(tuple(
        similarity(row, robust_centre(np.delete(embeddings, index, axis=0), backend), backend)
        for index, row in enumerate(embeddings)))


def nearness(embedding: np.ndarray, photos: np.ndarray, backend: str = "dlib") -> Nearness:
    """Compare an embedding (D,) with each photo (N, D)."""
    found = np.array([similarity(embedding, row, backend) for row in photos])
    return Nearness(float(found.max()), float(found.mean()), int(found.argmax()))
