"""Thin plate splines that move the points of a square picture.

Bookstein 1989, doi 10.1109/34.24792.
"""

from __future__ import annotations

import cv2
import numpy as np

_COARSE = 40  # cells a side in which a warp is reckoned; between them it is smooth
_SMOOTHING = 0.5


def warp_to(pixels: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Move points (N, 2) of a square picture (S, S, 3) uint8 to others; its border stays."""
    side = pixels.shape[0]
    source, target = (np.concatenate([points, _border(side)]) for points in (source, target))
    count = len(target)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _bend(target, target, side) + _SMOOTHING * np.eye(count)
    system[:count, count] = system[count, :count] = 1
    system[:count, count + 1:], system[count + 1:, :count] = target, target.T
    wanted = np.concatenate([source - target, np.zeros((3, 2))])
    weights = np.linalg.solve(system, wanted)
    steps = (np.arange(_COARSE) + 0.5) * side / _COARSE
    coarse = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    moved = (_bend(coarse, target, side) @ weights[:count] + weights[count]
             + coarse @ weights[count + 1:])
    shift = cv2.resize(moved.reshape(_COARSE, _COARSE, 2).astype(np.float32), (side, side),
                       interpolation=cv2.INTER_LINEAR)
    cells = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1)
    return cv2.remap(pixels, (cells + shift).astype(np.float32), None, cv2.INTER_CUBIC,
                     borderMode=cv2.BORDER_REPLICATE)


def _border(side: int) -> np.ndarray:
    steps = np.linspace(0, side, 5)
    return np.array([(x, y) for x in steps for y in steps if {x, y} & {0.0, float(side)}])


def _bend(points: np.ndarray, centres: np.ndarray, side: int) -> np.ndarray:
    squared = ((points[:, None] - centres[None]) ** 2).sum(-1)
    return squared * np.log(squared + 1e-9) / side
