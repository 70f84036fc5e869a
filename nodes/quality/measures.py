"""Measures of one face in a photo: size, sharpness, light, completeness."""

from __future__ import annotations

import numpy as np

from ..faces.boxes import crop_round
from ..faces.mesh import face_mask
from ..images import resize
from ..sockets import Face

_DARK_LEVEL, _BRIGHT_LEVEL = 8, 247  # luma beyond which nothing is left to see
_SIDES = 234, 454  # landmarks where the oval meets the ears


def measure(pixels: np.ndarray, face: Face) -> dict[str, float]:
    """Take the measures of a face: size, sharpness, light, completeness."""
    height, width = pixels.shape[:2]
    x, y = face.landmarks[:, 0], face.landmarks[:, 1]
    outside = (x < 0) | (y < 0) | (x > width) | (y > height)
    inner = luma(pixels[face_mask(face, height, width, grow=-0.1) > 0.5])
    return {
        "face_width": face_width(face),
        "face_share": face.size[0] * face.size[1] / (width * height),
        "sharpness": sharpness(pixels, face),
        "luma": float(inner.mean()) if inner.size else 0.0,
        "highlights": float(np.percentile(inner, 95)) if inner.size else 0.0,
        "clipped_dark": float((inner < _DARK_LEVEL).mean()) if inner.size else 1.0,
        "clipped_bright": float((inner > _BRIGHT_LEVEL).mean()) if inner.size else 0.0,
        "outside": float(outside.mean()),
    }


def face_width(face: Face) -> float:
    """Distance of the face's sides in pixels, in depth too: turning the head does not change it."""
    return float(np.linalg.norm(face.landmarks[_SIDES[0]] - face.landmarks[_SIDES[1]]))


def luma(pixels: np.ndarray) -> np.ndarray:
    """Rec. 601 luma (...) float32 of (..., 3) uint8 RGB."""
    return pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def sharpness(pixels: np.ndarray, face: Face) -> float:
    """Variance of the Laplacian on the face, cut 1.4 times as wide and scaled to 256 px.

    Scaling first makes photos of all sizes comparable (Pech-Pacheco et al. 2000 for the measure).
    """
    crop, _ = crop_round(pixels, face.box, margin=0.2)
    grey = luma(resize(crop, 256, 256))
    inner = grey[1:-1, 1:-1]
    laplacian = (grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner)
    return float(laplacian.var())
