"""Where the points of a picture come to lie on a map of another size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import LikenessError

CROP = "crop"
LETTERBOX = "letterbox"
FITS = (CROP, LETTERBOX)


@dataclass(frozen=True)
class Placement:
    """A scaling without distortion, then a shift, in pixels of the map."""

    scale: float
    x: float
    y: float

    def move(self, points: np.ndarray) -> np.ndarray:
        """Move points (N, 2) or (N, 3); depth is scaled with them."""
        shift = np.array([self.x, self.y, 0.0])[:points.shape[1]]
        return points * self.scale + shift


def placement(source: tuple[int, int], target: tuple[int, int], fit: str) -> Placement:
    """Place a picture on a map, both given as (width, height), their centres on each other.

    Args:
        fit: `crop` fills the map and cuts what stands out, as the host does with a control image
            of another shape; `letterbox` shows the whole picture and leaves the rest black.

    Raises:
        LikenessError: there is no such fit.
    """
    if fit not in FITS:
        raise LikenessError(f"`fit` must be one of {', '.join(FITS)}, got `{fit}`.")
    ratios = target[0] / source[0], target[1] / source[1]
    scale = max(ratios) if fit == CROP else min(ratios)
    return Placement(scale, (target[0] - source[0] * scale) / 2,
                     (target[1] - source[1] * scale) / 2)
