"""Brightness and colour of pixels, and the colour of a face at its landmarks."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..faces.boxes import crop_round
from ..sockets import Face

_SIDE = 160  # pixels that the face is reduced to, so that one pixel is a small patch of skin
_MARGIN = 0.1
# sRGB to CIE XYZ under D65 (IEC 61966-2-1), each row over the white point's value.
_XYZ = np.array([[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8728]])


def luma(pixels: np.ndarray) -> np.ndarray:
    """Rec. 601 luma (...) float32 of (..., 3) uint8 RGB."""
    return pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def linear(pixels: np.ndarray) -> np.ndarray:
    """Undo the display curve of 0..255 sRGB values (IEC 61966-2-1): (...) float32 in [0, 1]."""
    share = np.asarray(pixels, np.float32) / 255.0
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def landmark_colours(pixels: np.ndarray, face: Face) -> np.ndarray:
    """Colour of the face at each landmark, averaged over a patch: (478, 3) float32, 0..255 RGB."""
    crop, corner = crop_round(pixels, face.box, _MARGIN)
    small = np.asarray(Image.fromarray(crop).resize((_SIDE, _SIDE), Image.Resampling.BOX),
                       np.float32)
    # Box filters that are integer sums: a patch of 3 x 3 round each landmark.
    padded = np.pad(small, ((1, 1), (1, 1), (0, 0)), mode="edge")
    patches = sum(padded[dy:dy + _SIDE, dx:dx + _SIDE] for dy in range(3) for dx in range(3)) / 9
    places = (face.landmarks[:, :2] - corner) * (_SIDE / crop.shape[0])
    x, y = np.clip(places.astype(int), 0, _SIDE - 1).T
    return patches[y, x]


def lab(colours: np.ndarray) -> np.ndarray:
    """CIELAB of sRGB values (..., 3) in 0..255, under D65 (CIE 15:2004): (..., 3) float32."""
    xyz = linear(colours) @ _XYZ.T
    x, y, z = np.moveaxis(np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)
