"""The frame of a face that a cover is drawn in, and how a cover is laid over a photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

LUMA = (0.299, 0.587, 0.114)
_NOSE, _CHIN, _FOREHEAD, _RIGHT, _LEFT = 1, 152, 10, 234, 454
_CHEEKS = (50, 280, 101, 330, 118, 347)
_LIT = (50, 280, 4, 152)
_REDUCED = 8  # light is smooth, so a small picture holds it


@dataclass(frozen=True, eq=False)
class Frame:
    """A face's own axes: across to the left of the person, and down to the chin."""

    points: np.ndarray  # (478, 2) pixels
    across: np.ndarray  # (2,) unit
    down: np.ndarray  # (2,) unit
    width: float  # pixels from ear to ear

    def axes(self, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Where each pixel lies: (H, W) across, -1..1 from ear to ear, and down, 1 at the chin."""
        rows, columns = np.mgrid[0:shape[0], 0:shape[1]] + 0.5
        off = np.stack([columns, rows], -1) - self.points[_NOSE]
        across, down = off @ self.across, off @ self.down
        reach = [max(abs(float((self.points[place] - self.points[_NOSE]) @ axis)), 8.0)
                 for place, axis in ((_RIGHT, self.across), (_LEFT, self.across),
                                     (_FOREHEAD, self.down), (_CHIN, self.down))]
        return (np.where(across < 0, across / reach[0], across / reach[1]),
                np.where(down < 0, down / reach[2], down / reach[3]))


def frame_of(face: Any) -> Frame:
    """The frame of a face by its landmarks."""
    points = face.landmarks[:, :2].astype(np.float64)
    side = points[_LEFT] - points[_RIGHT]
    width = max(float(np.linalg.norm(side)), 8.0)
    across = side / width
    down = np.array([-across[1], across[0]])
    if (points[_CHIN] - points[_FOREHEAD]) @ down < 0:
        down = -down
    return Frame(points, across, down, width)


def rounded(corners: Sequence[np.ndarray], steps: int = 6) -> np.ndarray:
    """A closed Catmull-Rom curve through corners: (N * steps, 2)."""
    points = np.asarray(corners, np.float64)
    before, after, beyond = (np.roll(points, shift, 0) for shift in (1, -1, -2))
    share = np.linspace(0, 1, steps, endpoint=False)[:, None, None]
    curve = 0.5 * (2 * points + (after - before) * share
                   + (2 * before - 5 * points + 4 * after - beyond) * share ** 2
                   + (3 * points - before - 3 * after + beyond) * share ** 3)
    return curve.transpose(1, 0, 2).reshape(-1, 2)


def filled(shape: tuple[int, int], outline: np.ndarray, soft: float) -> np.ndarray:
    """How far each pixel lies inside an outline (N, 2): (H, W) in 0..1."""
    picture = Image.new("L", (shape[1] * 2, shape[0] * 2))
    ImageDraw.Draw(picture).polygon([tuple(point) for point in outline * 2], fill=255)
    small = picture.resize((shape[1], shape[0]), Image.Resampling.BOX)
    return ndimage.gaussian_filter(np.asarray(small, np.float64) / 255, soft)


def noise(shape: tuple[int, int], rng: np.random.Generator, size: float) -> np.ndarray:
    """Smooth noise of deviation 1 whose blots are `size` pixels wide: (H, W)."""
    step = max(1, int(size / 2))
    coarse = rng.standard_normal((shape[0] // step + 2, shape[1] // step + 2))
    coarse = ndimage.gaussian_filter(coarse, size / step)
    coarse = (coarse - coarse.mean()) / max(float(coarse.std()), 1e-9)
    wide = Image.fromarray(coarse.astype(np.float32))
    return np.asarray(wide.resize((shape[1], shape[0]), Image.Resampling.BICUBIC), np.float64)


def skin(pixels: np.ndarray, face: Any) -> np.ndarray:
    """The middle colour of the cheeks: (3,) in 0..255."""
    height, width = pixels.shape[:2]
    places = np.clip(face.landmarks[list(_CHEEKS), :2].astype(int), 2, (width - 3, height - 3))
    return np.median([pixels[y - 2:y + 3, x - 2:x + 3].reshape(-1, 3).mean(0)
                      for x, y in places], axis=0)


def light(pixels: np.ndarray, face: Any) -> np.ndarray:
    """How the light falls on a face, 1 in its middle: (H, W)."""
    frame = frame_of(face)
    grey = Image.fromarray((pixels @ np.array(LUMA)).astype(np.float32))
    coarse = ndimage.gaussian_filter(np.asarray(grey.reduce(_REDUCED), np.float64),
                                     max(0.18 * frame.width / _REDUCED, 1.0), mode="nearest")
    smooth = np.asarray(Image.fromarray(coarse.astype(np.float32)).resize(
        grey.size, Image.Resampling.BICUBIC), np.float64)
    places = np.clip(frame.points[list(_LIT)].astype(int), 0, np.array(grey.size) - 1)
    middle = max(float(smooth[places[:, 1], places[:, 0]].mean()), 20.0)
    return np.clip(smooth / middle, 0.45, 1.5)


def lay(pixels: np.ndarray, face: Any, cover: np.ndarray, inside: np.ndarray,
        rng: np.random.Generator, lit: bool = True) -> np.ndarray:
    """Lay a cover (H, W, 3) over a photo where `inside` (H, W) says: (H, W, 3) uint8.

    It takes the photo's light, throws a shadow on the skin below and has the grain of a photo.
    """
    width = frame_of(face).width
    below = pixels.astype(np.float64)
    if lit:
        shadow = ndimage.shift(ndimage.gaussian_filter(inside, 0.02 * width),
                               (-0.008 * width, 0), order=1)
        below *= 1 - rng.uniform(0.15, 0.5) * (np.clip(shadow, 0, 1) * (1 - inside))[..., None]
        bright = np.clip((skin(pixels, face) @ LUMA + 60) / 215, 0.45, 1.12)
        cover = cover * (0.3 + 0.7 * light(pixels, face)[..., None]) * bright
    grain = np.clip(cover + rng.normal(0, 2, cover.shape), 0, 255)
    blur = 0.6 * width / 250
    cover = ndimage.gaussian_filter(grain, (blur, blur, 0))
    share = inside[..., None]
    return np.uint8(np.clip(below * (1 - share) + cover * share, 0, 255) + 0.5)
