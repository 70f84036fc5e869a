"""Face-aware crops: which part of a photo trains, and in which bucket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from ...errors import LikenessError
from ...media.images import cut_region, turned
from ...sockets import Face, Photo

Framing = Literal["head", "head and shoulders", "body", "whole photo"]
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels of the photo

# Height of the crop in face heights (chin to forehead as the landmarks span it), and where in the
# crop the middle of the face sits, from the top.
# A standing person is about ten such heights tall; "body" reaches to the hips.
_REACH: dict[str, tuple[float, float]] = {"head": (2.1, 0.50), "head and shoulders": (3.6, 0.38),
                                          "body": (6.0, 0.26)}
FRAMINGS: tuple[str, ...] = (*_REACH, "whole photo")


@dataclass(frozen=True)
class Crop:
    """A region of a photo and the size it is resampled to."""

    box: Box  # in the photo after it is turned
    bucket: tuple[int, int]  # width, height in pixels
    turn: float = 0.0  # degrees by which the photo is turned about `centre`, > 0 counter-clockwise
    centre: tuple[float, float] = (0.0, 0.0)  # of the photo

    def place(self, points: np.ndarray) -> np.ndarray:
        """Where points (N, 2) of the photo lie in the resampled crop."""
        if self.turn:
            points = turned(points, self.turn, self.centre)
        x0, y0, x1, y1 = self.box
        return (points - (x0, y0)) * np.divide(self.bucket, (x1 - x0, y1 - y0))

    @property
    def enlargement(self) -> float:
        """Output pixels per photo pixel; above 1 the crop is blown up."""
        return self.bucket[0] / (self.box[2] - self.box[0])


def make_buckets(resolution: int, step: int = 64, longest: float = 2.0) -> list[tuple[int, int]]:
    """List the (width, height) buckets whose area is at most resolution^2.

    The scheme of kohya sd-scripts: sides are multiples of `step`, the ratio at most `longest`.
    """
    side = max(step, resolution // step * step)
    buckets = {(side, side)}
    for width in range(step, int(side * longest) + 1, step):
        height = side * side // width // step * step
        if height and 1 / longest <= width / height <= longest:
            buckets |= {(width, height), (height, width)}
    return sorted(buckets)


def choose_crop(photo: Photo, framing: Framing, buckets: Sequence[tuple[int, int]]) -> Crop:
    """Pick the region of `photo` that trains, and its bucket; the face is never cut.

    Raises:
        LikenessError: the photo has no face, or the framing is unknown.
    """
    if photo.face is None:
        raise LikenessError(f"{photo.name} has no detected face, so it cannot be cropped; "
                            "curate the photos first.")
    if framing not in FRAMINGS:
        raise LikenessError(f"`framing` must be one of {', '.join(FRAMINGS)}, got {framing}.")
    region = _region(photo.face, framing, photo.width, photo.height)
    ratio = (region[2] - region[0]) / (region[3] - region[1])
    bucket = min(buckets, key=lambda size: (abs(np.log(size[0] / size[1] / ratio)),
                                            -size[0] * size[1]))
    return Crop(_fit(region, photo.face.box, bucket, photo.width, photo.height), bucket)


def _region(face: Face, framing: str, width: int, height: int) -> Box:
    if framing == "whole photo":
        return 0.0, 0.0, float(width), float(height)
    reach, above = _REACH[framing]
    side = max(face.size) * reach
    middle_x = (face.box[0] + face.box[2]) / 2
    middle_y = (face.box[1] + face.box[3]) / 2
    top = middle_y - side * above
    return (max(0.0, middle_x - side / 2), max(0.0, top),
            min(float(width), middle_x + side / 2), min(float(height), top + side))


def _fit(region: Box, face: Box, bucket: tuple[int, int], width: int, height: int) -> Box:
    """The largest box of the bucket's ratio in the region, moved so that it holds the face."""
    ratio = bucket[0] / bucket[1]
    across, down = region[2] - region[0], region[3] - region[1]
    across, down = min(across, down * ratio), min(down, across / ratio)
    # A wide face in a narrow region: grow as far as the photo lets us.
    face_across = min(face[2], width) - max(face[0], 0.0)
    face_down = min(face[3], height) - max(face[1], 0.0)
    grow = max(face_across / across, face_down / down, 1.0)
    grow = min(grow, width / across, height / down)
    across, down = across * grow, down * grow
    x0 = _place(region[0], region[2], across, face[0], face[2], width)
    y0 = _place(region[1], region[3], down, face[1], face[3], height)
    return x0, y0, x0 + across, y0 + down


def _place(low: float, high: float, length: float, face_low: float, face_high: float,
           limit: float) -> float:
    """Where a span of `length` starts: mid-region, moved over the face, then into the photo."""
    start = (low + high - length) / 2
    start = min(start, face_low)
    start = max(start, face_high - length)
    return min(max(start, 0.0), limit - length)


def cut(pixels: np.ndarray, crop: Crop) -> np.ndarray:
    """Resample a crop of an (H, W, 3) uint8 photo to its bucket: (h, w, 3) uint8."""
    picture = cut_region(Image.fromarray(pixels), crop.box, crop.bucket, crop.turn)
    return np.ascontiguousarray(np.asarray(picture))


def cut_mask(mask: np.ndarray, crop: Crop, width: int, height: int) -> np.ndarray:
    """Average an (H, W) float mask of the photo over the cells of a (height, width) grid."""
    picture = Image.fromarray(np.asarray(mask, dtype=np.float32), mode="F")
    cells = cut_region(picture, crop.box, (width, height), crop.turn, Image.Resampling.BOX)
    return np.clip(np.asarray(cells, dtype=np.float32), 0.0, 1.0)
