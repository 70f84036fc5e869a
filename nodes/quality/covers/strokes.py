"""How much of the skin lies under strokes: of a pen across the photo, of thin things before a face.

Strokes are thin, so that a median removes them, and unlike the skin that they cross. Eyes, brows,
nostrils and lips, which are thin and dark themselves, are left out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ...faces.boxes import crop_round
from ...faces.mesh import face_mask
from ...sockets import Face
from ..tones import lab

_SIDE, _MEDIAN = 64, 7  # pixels: a stroke is up to a twentieth of the face wide
_UNLIKE = 24.0  # CIELAB: distance of a stroke from the skin round it
_NEIGHBOURS = 2  # of eight, that lie on the stroke too; noise has none
_ROOM = 2  # pixels round what is left out
# Each eye with its brow, the lips and the nostrils, whose boxes are left out.
_THIN = ((33, 133, 159, 145, 46, 55, 105, 65, 52, 53, 66, 107, 63, 70),
         (362, 263, 386, 374, 276, 285, 334, 295, 282, 283, 296, 336, 293, 300),
         (61, 291, 0, 17, 37, 267, 84, 314, 40, 270, 91, 321),
         (2, 97, 326, 98, 327, 48, 278, 64, 294))


def strokes(pixels: np.ndarray, face: Face) -> float:
    """The share of the skin, 0..1, that thin strokes unlike it take."""
    crop, corner = crop_round(pixels, face.box, margin=0.0)
    scale = _SIDE / crop.shape[0]
    small = Image.fromarray(crop).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    under = small.filter(ImageFilter.MedianFilter(_MEDIAN))
    apart = np.linalg.norm(lab(np.asarray(small)) - lab(np.asarray(under)), axis=-1)
    found = apart > _UNLIKE
    found &= _neighbours(found) >= _NEIGHBOURS
    skin = _skin(replace(face, box=(0.0, 0.0, *(scale * side for side in face.size)),
                         landmarks=(face.landmarks - np.float32((*corner, 0))) * scale))
    return float(found[skin].mean()) if skin.any() else 0.0


def _skin(face: Face) -> np.ndarray:
    """Where the small picture shows bare skin: (S, S) bool."""
    thin = Image.new("1", (_SIDE, _SIDE))
    for places in _THIN:
        points = face.landmarks[list(places), :2]
        box = (*(points.min(0) - _ROOM), *(points.max(0) + _ROOM))
        ImageDraw.Draw(thin).rectangle(tuple(map(float, box)), fill=1)
    return (face_mask(face, _SIDE, _SIDE, grow=-0.12) > 0.5) & ~np.asarray(thin)


def _neighbours(marked: np.ndarray) -> np.ndarray:
    """How many of the eight pixels round each one are marked too."""
    padded = np.pad(marked, 1).astype(np.int8)
    return sum(padded[dy:dy + _SIDE, dx:dx + _SIDE]
               for dy in range(3) for dx in range(3)) - marked
