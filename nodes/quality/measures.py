"""Measures of one face in a photo: size, sharpness, exposure, completeness, light and the rest."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..faces.boxes import crop_round
from ..faces.mesh import face_mask
from ..faces.turned import shift_face
from ..media.views import View
from ..sockets import Face
from .compression import compression, enlargement
from .covers.strokes import strokes
from .drawn import drawn_measures
from .edits import edit_measures
from .light import light_measures
from .near import Near
from .occlusion import eyes_closed, occlusion_measures
from .tones import landmark_colours, luma

_DARK_LEVEL, _BRIGHT_LEVEL = 8, 247  # luma beyond which nothing is left to see
_SIDES = 234, 454  # landmarks where the oval meets the ears
_OUTER_CORNERS = 33, 263  # of the eyes
_IRISES_PER_CORNERS = 0.73  # the portraits' median of their distances


def measure(pixels: np.ndarray, face: Face) -> dict[str, float]:
    """Take every measure of a face; the names are stable ids that rules and reports use."""
    seen = Near(View(pixels), face)
    return measure_near(face, *pixels.shape[:2], seen, seen, pixels)


def measure_near(face: Face, height: int, width: int, detail: Near, features: Near,
                 whole: np.ndarray) -> dict[str, float]:
    """Take every measure of a face in a photo of this size.

    Args:
        detail: the face at `near.DETAIL`.
        features: the face at `near.FEATURES`.
        whole: (h, w, 3) uint8 RGB, all of the photo, at whatever size.
    """
    pixels, shown = features.pixels, features.face
    patches = landmark_colours(pixels, shown)
    return {
        "face_width": face_width(face),
        "eyes_apart": eyes_apart(face),
        "face_share": face.size[0] * face.size[1] / (width * height),
        "photo_side": float(np.sqrt(width * height)),
        "sharpness": sharpness(detail),
        **exposure(pixels, shown),
        "outside": outside(face, height, width),
        "eyes_closed": eyes_closed(face),
        **occlusion_measures(pixels, shown, patches),
        "strokes": strokes(pixels, shown),
        **drawn_measures(detail),
        "compression": compression(detail),
        "enlargement": enlargement(detail),
        **light_measures(patches),
        **edit_measures(detail, whole),
    }


def face_width(face: Face) -> float:
    """Distance of the face's sides in pixels, in depth too: turning the head does not change it."""
    return _distance(face, *_SIDES)


def eyes_apart(face: Face) -> float:
    """Distance of the irises in pixels, in depth too: turning the head does not change it.

    Taken from the outer corners of the eyes: the network guesses the depth of an iris badly where
    the head is turned.
    """
    return _IRISES_PER_CORNERS * _distance(face, *_OUTER_CORNERS)


def outside(face: Face, height: int, width: int) -> float:
    """Share of the landmarks that lie beyond the edges of a picture of this size."""
    x, y = face.landmarks[:, 0], face.landmarks[:, 1]
    return float(((x < 0) | (y < 0) | (x > width) | (y > height)).mean())


def _distance(face: Face, a: int, b: int) -> float:
    return float(np.linalg.norm(face.landmarks[a] - face.landmarks[b]))


def exposure(pixels: np.ndarray, face: Face) -> dict[str, float]:
    """Mean luma of the face, its brightest parts, and how much of it is lost in black or white."""
    pixels, face = _round_the_face(pixels, face)
    inner = luma(pixels[face_mask(face, *pixels.shape[:2], grow=-0.1) > 0.5])
    if not inner.size:
        return {"luma": 0.0, "highlights": 0.0, "clipped_dark": 1.0, "clipped_bright": 0.0}
    return {
        "luma": float(inner.mean()),
        "highlights": float(np.percentile(inner, 95)),
        "clipped_dark": float((inner < _DARK_LEVEL).mean()),
        "clipped_bright": float((inner > _BRIGHT_LEVEL).mean()),
    }


def _round_the_face(pixels: np.ndarray, face: Face) -> tuple[np.ndarray, Face]:
    """The part of a picture in which the face's mask lies, and the face in it: less to paint."""
    x0, y0, x1, y1 = face.box
    room = 0.5 * max(face.size)
    height, width = pixels.shape[:2]
    left, top = (int(np.clip(edge - room, 0, side)) for edge, side in ((x0, width), (y0, height)))
    right, bottom = (int(np.clip(edge + room + 1, 0, side))
                     for edge, side in ((x1, width), (y1, height)))
    return pixels[top:bottom, left:right], shift_face(face, -left, -top)


def sharpness(detail: Near, shrunk: float = 1.0) -> float:
    """Variance of the Laplacian on the face, cut 1.4 times as wide and scaled to 256 px.

    Scaling first makes photos of all sizes comparable (Pech-Pacheco et al. 2000 for the measure).

    Args:
        shrunk: as if the view had so many times fewer pixels a side; 1 and less: as it is.
    """
    picture = Image.fromarray(crop_round(detail.light, detail.face.box, margin=0.2)[0])
    sides = [max(round(picture.width / shrunk), 1)] if shrunk > 1 else []
    for side in (*sides, 256):
        picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    grey = np.asarray(picture)
    inner = grey[1:-1, 1:-1]
    laplacian = (grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner)
    return float(laplacian.var())
