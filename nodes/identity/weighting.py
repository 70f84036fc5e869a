"""How much each reference photo counts in an average face."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np

from ..errors import LikenessError
from ..sockets import Photo

_ENOUGH = 224.0  # pixels of face width: twice what ArcFace recognisers look at
_LEAST = 0.05  # a profile still counts a little, so that profiles alone average too


class Weighting(str, Enum):
    """Whether photos count alike."""

    EQUAL = "equal"
    QUALITY = "quality"  # large, frontal faces count more


def photo_weights(photos: Sequence[Photo], how: Weighting) -> np.ndarray:
    """Give each photo its share of the average: (N,) float32 with sum 1.

    Quality is the face's width up to 224 pixels times the squared cosine of its yaw: a turned
    head hides one side, which the recogniser then guesses.

    Raises:
        LikenessError: quality is asked for and a photo has no known face.
    """
    if how is Weighting.EQUAL:
        return np.full(len(photos), 1 / len(photos), np.float32)
    weights = []
    for photo in photos:
        if photo.face is None:
            raise LikenessError(f"`{photo.name}` has no known face to weigh; leave it out or set "
                                f"`weighting` to {Weighting.EQUAL.value}.")
        frontal = max(float(np.cos(np.radians(photo.face.pose.yaw))), _LEAST) ** 2
        weights.append(frontal * min(photo.face.size[0] / _ENOUGH, 1.0))
    return np.asarray(weights, np.float32) / np.float32(sum(weights))
