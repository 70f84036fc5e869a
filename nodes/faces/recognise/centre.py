"""The middle of a person's photos that no single photo can bend, the same for every judge."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import LikenessError
from . import backends
from .embed import split_parts

_STEPS, _CLOSE = 200, 1e-7
FEWEST = 3  # embeddings of which one can be outvoted


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
    parts = backends.parts_of(backend)
    if len(parts) > 1:
        return np.concatenate([robust_centre(own, part) for own, part
                               in zip(split_parts(rows, backend), parts, strict=True)])
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
