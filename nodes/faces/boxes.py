"""Boxes (x0, y0, x1, y1) in a picture: what lies round one, and how much two share."""

from __future__ import annotations

import numpy as np

Box = tuple[float, float, float, float]


def crop_round(pixels: np.ndarray, box: Box, margin: float,
               beyond: str = "edge") -> tuple[np.ndarray, tuple[int, int]]:
    """Cut a square round a box.

    Args:
        pixels: (H, W, 3), or (H, W) of one channel.
        margin: share of the box's longer side added on each side.
        beyond: what lies outside the picture, a mode of `numpy.pad`: "edge" repeats its pixels,
            "constant" is black.

    Returns:
        The square (S, S, 3) or (S, S) and the place (x, y) of its corner in the picture.
    """
    side = max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * margin)
    left = round((box[0] + box[2] - side) / 2)
    top = round((box[1] + box[3] - side) / 2)
    rows, above, below = _within(top, round(side), pixels.shape[0])
    columns, before, after = _within(left, round(side), pixels.shape[1])
    inside = pixels[rows, columns]
    if not (above or below or before or after):
        return inside.copy(), (left, top)
    lacking = (above, below), (before, after), (0, 0)
    return np.pad(inside, lacking[:pixels.ndim], mode=beyond), (left, top)


def _within(start: int, length: int, size: int) -> tuple[slice, int, int]:
    """The part of a span inside a picture, one pixel at least, and what lacks on each side."""
    first = min(max(start, 0), size - 1)
    last = min(max(start + length, first + 1), size)
    lacking = length - (last - first)
    before = min(max(-start, 0), lacking)
    return slice(first, last), before, lacking - before


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / (areas - shared)
