"""Whether landmarks lie the right way up on the pixels.

The landmark network was trained on upright faces: on an upside-down one it puts a whole, upright
set of landmarks, eyes on the mouth. What tells the two apart: eyes are darker than the skin right
below them and brows darker than the forehead, in any skin and light that a camera can use, and
whatever hides the rest of the face. Where that leaves a doubt, the short-range detector is surer of
a face the nearer to upright it lies, and its own key points lie where right landmarks do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..sockets import Face
from . import tasks
from .boxes import crop_round
from .turned import quarter_turns, shift_face, turn_face

_IRISES = (468, 473)
_UNDER_EYES = (230, 231, 232, 450, 451, 452)  # above the edge of a mask
_BROWS = (66, 296, 52, 282)
_FOREHEAD = (151, 9, 108, 337)
_PATCH = 0.03  # of the face's longer side, half the side of the square that is averaged
_EYE_PATCH = 0.0125  # the same for irises and the skin that is next to them
_MOST = 2.0  # a contrast beyond it says no more than this one does
# The landmarks that the key points of the short-range detector stand for, in its order: the eyes
# of the person's right and left, the tip of the nose, the mouth.
_KEY_POINTS = ((33, 133), (362, 263), (1, 1), (13, 14))
_ASTRAY = 0.3  # of the face's longer side, the key points of a face that the detector does not see

# Measured on 214 portraits, bare and with drawn covers, upright and upside down, of which 336 faces
# are found both ways up. Without `_UPRIGHT` the right way is 0.4 to 2.9 less strange for bare faces
# and for masked ones between 2.5 less and 0.4 stranger, which `_UPRIGHT` decides for what nearly
# all photos are: of 107 others none of the upright ones is turned, of the bare ones upside down 4
# are taken for upright, of 83 masked ones 39. A logistic regression on the four terms gives about
# these weights. Of the irises over the skin below them the right way has up to 0.8, the wrong way
# 0.4 to 1.8; of the brows over the forehead the right way has up to 0.87, the wrong way 0.8 and
# more.
_DOUBTFUL_ROLL = 30.0  # degrees; a sideways face is seen tilted at best
_DOUBTFUL_EYES, _DOUBTFUL_BROWS = 0.7, 0.9
# Of upright faces 99 in 100 have key points up to 0.06 astray, of the wrong way half 0.15 and more.
_ODD_BROWS, _ODD_KEY_POINTS = 0.75, 0.08
_PLAUSIBLE = 1.6
_PLAUSIBLE_ROLL = 60.0  # degrees
_SCORE_WEIGHT = 1.5  # the score differs by 0.03..0.5 between an upright and an upside-down face
_ASTRAY_WEIGHT = 1.5
_UPRIGHT = 0.6  # of misfit, in favour of what nearly all photos are
ALIKE = 0.3  # misfits that differ by less say nothing of two finds that lie the same way


def misfit(face: Face, pixels: np.ndarray) -> float:
    """How bright eyes are over the skin below, plus brows over the forehead; lower fits better.

    Args:
        pixels: (H, W, 3) uint8, the picture the face is in.
    """
    return sum(_contrasts(face, pixels))


def doubtful(face: Face, pixels: np.ndarray) -> bool:
    """Whether another orientation is worth a look."""
    eyes, brows = _contrasts(face, pixels)
    if (abs(face.pose.roll) > _DOUBTFUL_ROLL or eyes > _DOUBTFUL_EYES
            or brows > _DOUBTFUL_BROWS):
        return True
    return brows > _ODD_BROWS and _detected(face, pixels)[1] > _ODD_KEY_POINTS


def plausible(face: Face, pixels: np.ndarray) -> bool:
    """Whether a face found in a turned picture may be believed: it is upright there, and fits."""
    return abs(face.pose.roll) < _PLAUSIBLE_ROLL and misfit(face, pixels) < _PLAUSIBLE


def strangeness(face: Face, pixels: np.ndarray) -> float:
    """How little speaks for this find among several at one place.

    Misfit, the detector's score and key points, and lying upright.

    Args:
        pixels: (H, W, 3) uint8, the picture the face is in.
    """
    score, astray = _detected(face, pixels)
    upright = 0.0 if quarter_turns(face) else _UPRIGHT
    return misfit(face, pixels) - _SCORE_WEIGHT * score + _ASTRAY_WEIGHT * astray - upright


def _detected(face: Face, pixels: np.ndarray) -> tuple[float, float]:
    """How sure the detector is of a face that lies as this one, and how far its key points lie off.
    """
    turns = quarter_turns(face)
    crop, (left, top) = crop_round(pixels, face.box, margin=0.75)
    found = tasks.detect("face_scores", np.rot90(crop, turns)).detections
    best = max(found, key=lambda detection: detection.categories[0].score, default=None)
    if best is None:
        return 0.0, _ASTRAY
    turned = turn_face(shift_face(face, -left, -top), turns, *crop.shape[:2])
    return best.categories[0].score, min(_apart(turned, best.keypoints, crop.shape[0]), _ASTRAY)


def _apart(face: Face, key_points: Sequence[Any], side: int) -> float:
    """How far the key points of a square picture lie from a face's landmarks, over its size."""
    places = [face.landmarks[list(points), :2].mean(0) for points in _KEY_POINTS]
    off = [(point.x * side, point.y * side) - place
           for point, place in zip(key_points, places, strict=False)]
    return float(np.linalg.norm(np.mean(off, axis=0))) / max(face.size)


def _contrasts(face: Face, pixels: np.ndarray) -> tuple[float, float]:
    eyes, below = (_brightness(face, pixels, points, _EYE_PATCH)
                   for points in (_IRISES, _UNDER_EYES))
    brows, forehead = (_brightness(face, pixels, points, _PATCH) for points in (_BROWS, _FOREHEAD))
    return min(eyes / max(below, 1.0), _MOST), min(brows / max(forehead, 1.0), _MOST)


def _brightness(face: Face, pixels: np.ndarray, points: Sequence[int], patch: float) -> float:
    """Mean of the pixels round some landmarks; white where all lie outside the picture."""
    reach = max(1, round(patch * max(face.size)))
    height, width = pixels.shape[:2]
    values = []
    for x, y in face.landmarks[list(points), :2]:
        column, row = int(x), int(y)
        if 0 <= column < width and 0 <= row < height:
            values.append(pixels[max(row - reach, 0):row + reach + 1,
                                 max(column - reach, 0):column + reach + 1].mean())
    return float(np.mean(values)) if values else 255.0
