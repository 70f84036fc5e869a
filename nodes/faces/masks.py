"""Which pixels of a photo are this person's skin, and which are face but not hair.

Skin is told from hair, glasses and hands by the person's own colour: the chroma and brightness of
cheeks, nose and forehead in the photo itself, spread included, so that no skin tone is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..sockets import Face
from .mesh import (
    LEFT_BROW,
    LEFT_EYE,
    LEFT_IRIS,
    LIPS,
    RIGHT_BROW,
    RIGHT_EYE,
    RIGHT_IRIS,
    Edges,
    face_mask,
)

# Landmarks in the middle of bare skin: both cheeks, nose, between the brows, chin.
_SKIN_POINTS = (50, 101, 118, 205, 280, 330, 347, 425, 5, 195, 197, 9, 151, 200)
_PATCH = 0.025  # of the face's longer side, half the side of the square taken at each of them
_FEATURES = (LEFT_EYE, RIGHT_EYE, LEFT_BROW, RIGHT_BROW, LIPS)
_FEATURE_ROOM = 0.015  # of the face's longer side, by which eyes, brows and lips are widened
_SOFT = 0.012  # of the face's longer side, sigma of the soft edge
_TENTHS = 2.563  # spreads between the tenths of a normal distribution
_HOLE = 0.02  # of the oval's area; smaller islands that are not skin are highlights and moles
_LIMIT = 3.5  # spreads of the person's own skin
# Least spreads of log brightness and of the two chroma shares: JPEG and shading alone make these.
_LEAST_SPREAD = (0.16, 0.012, 0.010)


@dataclass(frozen=True, eq=False)
class SkinColour:
    """One person's skin in one photo: middle and spread of (log brightness, red, blue share)."""

    middle: np.ndarray  # (3,)
    spread: np.ndarray  # (3,)


def interocular(face: Face) -> float:
    """Distance between the irises in pixels; a turned head brings them closer together."""
    eyes = face.landmarks[[LEFT_IRIS, RIGHT_IRIS], :2]
    return float(np.linalg.norm(eyes[0] - eyes[1]))


def skin_colour(face: Face, pixels: np.ndarray) -> SkinColour:
    """Read the person's skin off an (H, W, 3) uint8 RGB photo.

    The middle eight tenths count, so that a strand of hair or a highlight on a point does not, and
    both sides of a face lit from one side do.
    """
    reach = max(1, round(_PATCH * max(face.size)))
    height, width = pixels.shape[:2]
    samples = []
    for x, y in face.landmarks[list(_SKIN_POINTS), :2]:
        column, row = int(x), int(y)
        if 0 <= column < width and 0 <= row < height:
            patch = pixels[max(row - reach, 0):row + reach + 1,
                           max(column - reach, 0):column + reach + 1]
            samples.append(_tones(patch).reshape(-1, 3))
    tones = np.concatenate(samples) if samples else _tones(pixels).reshape(-1, 3)
    middle = np.median(tones, axis=0)
    low, high = np.percentile(tones, (10, 90), axis=0)
    return SkinColour(middle, np.maximum((high - low) / _TENTHS, _LEAST_SPREAD))


def skin_mask(face: Face, pixels: np.ndarray) -> np.ndarray:
    """Bare skin of a face in an (H, W, 3) uint8 RGB photo: (H, W) float32 in [0, 1].

    The oval without eyes, brows and lips, where the pixels have the person's skin colour.
    """
    return _refined(face, pixels, _FEATURES)


def hairless_mask(face: Face, pixels: np.ndarray) -> np.ndarray:
    """The face, features included, without hair over it: (H, W) float32 in [0, 1].

    Eyes, brows and lips count whatever their colour; hair on the forehead, hands and the rims of
    glasses outside them do not.
    """
    return _refined(face, pixels, (), _FEATURES)


def _refined(face: Face, pixels: np.ndarray, without: Sequence[Edges],
             always: Sequence[Edges] = ()) -> np.ndarray:
    height, width = pixels.shape[:2]
    oval = face_mask(face, height, width)
    mask = np.zeros((height, width), np.float32)
    rows, columns = np.nonzero(oval.any(1))[0], np.nonzero(oval.any(0))[0]
    if not len(rows):
        return mask
    # Only round the face: the colours of a whole photo take long.
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    corner = (int(columns[0]), int(rows[0]))
    colour = skin_colour(face, pixels)
    off = (_tones(pixels[part]) - colour.middle) / colour.spread
    # Shading runs over a face: brightness weighs half as much as chroma.
    skin = (off ** 2 @ (0.25, 1.0, 1.0)) < _LIMIT ** 2
    size = max(face.size)
    kept = _filled(_smoothed(skin, max(1, round(0.008 * size))), _HOLE * float(oval.sum()))
    inside = kept & ~_painted(face, without, kept.shape, corner)
    inside |= _painted(face, always, kept.shape, corner)
    picture = Image.fromarray(np.uint8(inside) * 255).filter(ImageFilter.GaussianBlur(_SOFT * size))
    mask[part] = oval[part] * np.asarray(picture, np.float32) / 255.0
    return mask


def _tones(pixels: np.ndarray) -> np.ndarray:
    """Log brightness, red share and blue share: (..., 3) float32."""
    rgb = pixels.astype(np.float32) + 4.0  # keeps the shares of nearly black pixels from jumping
    total = rgb.sum(-1)
    return np.stack([np.log(total), rgb[..., 0] / total, rgb[..., 2] / total], axis=-1)


def _painted(face: Face, features: Sequence[Edges], shape: tuple[int, int],
             corner: tuple[int, int]) -> np.ndarray:
    """The hulls of some features, widened: (h, w) bool of the part whose corner this is."""
    picture = Image.new("L", (shape[1], shape[0]))
    draw = ImageDraw.Draw(picture)
    room = _FEATURE_ROOM * max(face.size)
    for edges in features:
        points = face.landmarks[sorted({point for edge in edges for point in edge}), :2] - corner
        outline = [tuple(point) for point in _hull(points)]
        draw.polygon(outline, fill=255)
        draw.line([*outline, outline[0]], fill=255, width=max(1, round(2 * room)), joint="curve")
    return np.asarray(picture) > 0


def _hull(points: np.ndarray) -> np.ndarray:
    """Convex hull (K, 2) of points (N, 2): Andrew's monotone chain."""
    ordered = sorted(map(tuple, points.astype(float)))

    def half(sequence: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        chain: list[tuple[float, float]] = []
        for x, y in sequence:
            while len(chain) > 1 and ((chain[-1][0] - chain[-2][0]) * (y - chain[-2][1])
                                      <= (chain[-1][1] - chain[-2][1]) * (x - chain[-2][0])):
                chain.pop()
            chain.append((x, y))
        return chain[:-1]

    return np.array(half(ordered) + half(ordered[::-1]))


def _smoothed(mask: np.ndarray, radius: int) -> np.ndarray:
    """Drop specks and gaps that are smaller than the radius: (h, w) bool."""
    picture = Image.fromarray(np.uint8(mask) * 255).filter(ImageFilter.BoxBlur(radius))
    return np.asarray(picture) > 127


def _filled(mask: np.ndarray, area: float) -> np.ndarray:
    """Fill holes of at most this area, in pixels: (h, w) bool."""
    from scipy import ndimage  # slow to import

    holes, number = ndimage.label(~mask)
    sizes = np.bincount(holes.ravel(), minlength=number + 1)
    small = sizes <= area
    small[0] = True  # the mask itself
    return small[holes]
