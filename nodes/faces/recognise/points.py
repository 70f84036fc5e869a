"""Embeddings as points whose Euclidean distance tells people apart, for what groups and averages.

The squared distances of recognisers that judge together are summed, each over its deviation among
strangers, so that each has as much of a say; the sum is brought to the scale of the first, by which
strangers then lie as far apart as by it alone.
"""

from __future__ import annotations

import numpy as np

from . import backends
from .embed import split_parts


def as_points(rows: np.ndarray, backend: str) -> np.ndarray:
    """Embeddings (..., D) as `embed` gives them, as points (..., D) of the same type.

    Of one recogniser these are the embeddings themselves, or unit vectors where the cosine counts.

    Raises:
        LikenessError: unknown recogniser.
    """
    known = backends.backend(backend)
    if not known.parts:
        return rows if known.metric == "l2" else _unit(rows)
    squares = [_between_strangers(part) for part in known.parts]
    scale = squares[0][0] / sum(mean / deviation for mean, deviation in squares)
    return np.concatenate(
        [rows.dtype.type(np.sqrt(scale / deviation)) * as_points(own, part.id)
         for part, own, (_, deviation) in zip(known.parts, split_parts(rows, backend), squares,
                                              strict=True)], axis=-1)


def _between_strangers(part: backends.Part) -> tuple[float, float]:
    """Mean and deviation of the squared distance of two strangers' points, to first order."""
    if backends.backend(part.id).metric == "l2":  # similarity is 1 - distance
        apart = 1 - part.stranger_mean
        return apart ** 2 + part.stranger_deviation ** 2, 2 * apart * part.stranger_deviation
    return 2 * (1 - part.stranger_mean), 2 * part.stranger_deviation  # of unit vectors


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
