"""What storing a photo did to its face: the block grid of compression, and pixels made up later."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..faces.boxes import crop_round
from .near import LARGEST, Near

_BLOCK = 8  # pixels: JPEG codes squares of this side on their own (ITU-T T.81)
_STEPS = (1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
_LOST = 0.035  # share of the contrast that a shrunk copy must miss to count as detail


def compression(detail: Near) -> float:
    """How far the 8 x 8 grid of JPEG stands out of the face, in grey levels; 0 is no grid.

    The step between two neighbouring columns less the mean of the steps beside it, gathered by
    the eight places that a grid line can have, the strongest place less the middle one; rows alike
    (after Wang, Sheikh and Bovik 2002, which takes the place as known; a crop moves it).

    In a view that is `shrunk` the lines lie closer; with 8 they cannot be told from pixels: 0.
    """
    shrunk = detail.view.shrunk
    grey, _ = crop_round(detail.light, detail.face.box, margin=0.05)
    strength = min(_grid(grey, _BLOCK // shrunk), _grid(grey.T, _BLOCK // shrunk))
    # The grid of a face larger than any training picture shows shrinks with it.
    return strength * min(LARGEST / (shrunk * grey.shape[0]), 1.0)


def _grid(grey: np.ndarray, period: int) -> float:
    """Strength of the strongest of the possible sets of grid lines across the columns."""
    steps = np.abs(np.diff(grey, axis=1)).mean(0)
    excess = steps[1:-1] - (steps[:-2] + steps[2:]) / 2
    if excess.size < 4 * period:
        return 0.0
    places = np.array([excess[start::period].mean() for start in range(period)])
    return float(max(places.max() - np.median(places), 0.0))


def enlargement(detail: Near) -> float:
    """By what factor the face can shrink and grow again without a visible loss; 1 is none.

    Faces wider than any training picture shows (`LARGEST`) are reduced first, so that a soft photo
    of many pixels does not count as enlarged. The factor is read off where the loss, as a share of
    the face's contrast, passes a fixed small one, between two of a series of tries.
    """
    grey = detail.face_light
    picture = Image.fromarray(grey)
    contrast = float(grey.std())
    if contrast < 1.0:
        return 1.0
    before, lost_before = 1.0, 0.0
    for step in _STEPS:
        lost = _loss(picture, grey, step) / contrast
        if lost >= _LOST:
            return before + (step - before) * (_LOST - lost_before) / (lost - lost_before)
        before, lost_before = step, lost
    return _STEPS[-1]


def _loss(picture: Image.Image, grey: np.ndarray, step: float) -> float:
    """Root mean square of what a copy shrunk by `step` and grown again misses."""
    small = max(round(picture.width / step), 4)
    back = (picture.resize((small, small), Image.Resampling.LANCZOS)
            .resize(picture.size, Image.Resampling.BICUBIC))
    return float(np.sqrt(np.mean((np.asarray(back) - grey) ** 2)))
