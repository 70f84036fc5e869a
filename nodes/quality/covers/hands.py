"""How much of a face, of the mouth or of an eye lies under hands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from ...faces.body import Hand, find_hands
from ...faces.boxes import crop_round
from ...faces.mesh import face_outline
from ...sockets import Face

_FACE = 0.4  # share of the face under hands that is as bad as can be
_PART = 0.9  # the same of the mouth or of one eye
_SIDE = 256  # pixels; the hand model looks at 192
_PALM = 0.06  # of the face's width: how far flesh reaches beyond a hand's landmarks
_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
_EYES = ((33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
         (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249))


def covered_by_hands(pixels: np.ndarray, face: Face) -> float:
    """How much lies under hands, 0..1: two fifths of the face, all of the mouth or of an eye are 1.

    A hand counts as far as it is found again in the mirror image. Beyond the picture all is black:
    repeated edges look like fingers, which 12 of 158 bare faces in tight crops then had.
    """
    crop, corner = crop_round(pixels, face.box, margin=0.5, beyond="constant")
    scale = _SIDE / crop.shape[0]
    small = np.asarray(Image.fromarray(crop).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR,
                                                    reducing_gap=2))
    outline = (face_outline(face) - corner) * scale
    parts = [(face.landmarks[list(places), :2] - corner) * scale for places in (_LIPS, *_EYES)]
    found = _hidden(find_hands(small), outline, parts)
    if not found:
        return 0.0
    mirrored = [replace(hand, points=np.float32((_SIDE, 0)) + hand.points * np.float32((-1, 1)))
                for hand in find_hands(np.ascontiguousarray(small[:, ::-1]))]
    return min(found, _hidden(mirrored, outline, parts))


def _hidden(hands: Sequence[Hand], outline: np.ndarray, parts: Sequence[np.ndarray]) -> float:
    reach = _PALM * float(np.ptp(outline[:, 0]))
    worst = max(hidden_share(part, hands, reach) for part in parts)
    return min(max(hidden_share(outline, hands, reach) / _FACE, worst / _PART), 1.0)


def hidden_share(outline: np.ndarray, hands: Sequence[Hand], reach: float) -> float:
    """Share of the area inside an outline (N, 2) that lies under hands, 0..1.

    Args:
        reach: pixels that flesh reaches beyond a hand's landmarks.
    """
    if not hands:
        return 0.0
    corner = np.floor(outline.min(0))
    width, height = (np.ceil(outline.max(0) - corner) + 1).astype(int)
    inside = _painted([outline - corner], (width, height), 0.0)
    covers = _painted([points - corner for hand in hands for points in _flesh(hand)],
                      (width, height), reach)
    return float((inside & covers).sum() / max(inside.sum(), 1))


def _flesh(hand: Hand) -> list[np.ndarray]:
    """The palm and the five fingers of a hand as chains of points."""
    palm = hand.points[[0, 1, 5, 9, 13, 17]]
    return [palm, *(hand.points[start:start + 4] for start in (1, 5, 9, 13, 17))]


def _painted(shapes: Sequence[np.ndarray], size: tuple[int, int], reach: float) -> np.ndarray:
    """Where shapes lie, their lines drawn `reach` pixels to each side: (height, width) bool."""
    picture = Image.new("1", (int(size[0]), int(size[1])))
    draw = ImageDraw.Draw(picture)
    for shape in shapes:
        points = [(float(x), float(y)) for x, y in shape]
        draw.polygon(points, fill=1)
        if reach:
            draw.line(points, fill=1, width=max(round(2 * reach), 1), joint="curve")
    return np.asarray(picture)
