"""People who do not exist: two portraits blended over the face mesh.

    python tests/demonstrator/morphs.py WORK [--count N]

The shape lies a random share of the way from one portrait's landmarks to the other's, the skin and
features another share; hair, clothes and background stay the first one's, warped along. Partners
are alike in gender, age, expression and glasses, so that nothing shines through.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from pack_import import pack
from prepare import CANVAS
from warps import warp_to

# Enough of the 478 landmarks to carry a shape: contours, irises, nose, cheeks, forehead.
_NOSE_AND_SKIN = (1, 2, 4, 5, 6, 98, 327, 168, 195, 50, 280, 205, 425, 9, 151, 69, 299, 187, 411)
_AGE_GAP = 16  # years
_OVAL_GROW = 0.12  # by which the blended skin goes beyond the landmarks' oval, up to the hair


def control_points() -> np.ndarray:
    """Indices of the landmarks that steer a warp."""
    mesh = pack("faces.mesh")
    chosen = {point for edge in mesh.CONTOURS for point in edge}
    return np.array(sorted(chosen | {mesh.LEFT_IRIS, mesh.RIGHT_IRIS, *_NOSE_AND_SKIN}))


def skin_mask(points: np.ndarray) -> np.ndarray:
    """Soft mask (CANVAS, CANVAS, 1) of the face oval."""
    oval = points[list(pack("faces.mesh").FACE_OVAL_POINTS)]
    oval = oval + (oval - oval.mean(0)) * _OVAL_GROW * np.array([0.3, 1.0])
    mask = np.zeros((CANVAS, CANVAS), np.float32)
    cv2.fillPoly(mask, [oval.round().astype(np.int32)], 1.0)
    mask = cv2.erode(mask, np.ones((5, 5)))
    return cv2.GaussianBlur(mask, (0, 0), 4)[..., None]


def morph(first: np.ndarray, second: np.ndarray, marks: tuple[np.ndarray, np.ndarray],
          shape: float, texture: float, control: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Blend two canvases: (CANVAS, CANVAS, 3) uint8 and landmarks (478, 2).

    Args:
        shape, texture: share of the second one.
    """
    target = (1 - shape) * marks[0] + shape * marks[1]
    one = warp_to(first, marks[0][control], target[control]).astype(np.float32)
    other = warp_to(second, marks[1][control], target[control]).astype(np.float32)
    mask = skin_mask(target)
    inside = mask[..., 0] > 0.8
    means = [picture[inside].mean(0) for picture in (one, other)]
    spreads = [picture[inside].std(0) + 1 for picture in (one, other)]
    other = (other - means[1]) * np.clip(spreads[0] / spreads[1], 0.6, 1.6) + means[0]
    blended = one + mask * texture * (other - one)
    return np.clip(blended, 0, 255).astype(np.uint8), target


def partners(labels: list[dict], index: int) -> list[int]:
    """Who can be blended with one of the people."""
    own = labels[index]
    return [other for other, label in enumerate(labels) if other != index
            and all(label[name] == own[name] for name in ("gender", "glasses"))
            and (label["expression"] == "laugh") == (own["expression"] == "laugh")
            and abs(label["age"] - own["age"]) <= _AGE_GAP]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--count", type=int, default=12000)
    options = parser.parse_args()
    stored = np.load(options.work / "portraits.npz")
    free = np.flatnonzero(~stored["held_out"] & stored["frontal"])
    canvases, points = stored["canvases"][free], stored["points"][free].astype(np.float64)
    labels = [json.loads(text) for text in stored["labels"][free]]
    fitting = [partners(labels, index) for index in range(len(free))]
    control, random = control_points(), np.random.default_rng(0)
    pictures = np.lib.format.open_memmap(options.work / "morphs.npy", "w+", np.uint8,
                                         (options.count, CANVAS, CANVAS, 3))
    marks = np.zeros((options.count, 478, 2), np.float32)
    parents = np.zeros((options.count, 2), np.int32)
    usable = [index for index in range(len(free)) if len(fitting[index]) >= 3]
    for number in range(options.count):
        first = usable[number % len(usable)]
        second = int(random.choice(fitting[first]))
        shape, texture = random.uniform(0.2, 0.9), random.uniform(0.3, 0.9)
        pictures[number], marks[number] = morph(
            canvases[first], canvases[second], (points[first], points[second]),
            shape, texture, control)
        parents[number] = free[first], free[second]
    pictures.flush()
    np.savez(options.work / "morphs.npz", points=marks, parents=parents)


if __name__ == "__main__":
    main()
