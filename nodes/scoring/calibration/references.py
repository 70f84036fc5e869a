"""Several photos of one person as one yardstick that no single photo can bend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...faces.recognise.centre import robust_centre
from ...faces.recognise.embed import similarity
from ...sockets import Spread


@dataclass(frozen=True)
class Nearness:
    """How alike one embedding and several photos are."""

    best: float  # similarity to the most alike photo
    mean: float  # mean of the similarities to all photos
    nearest: int  # which photo is the most alike


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
