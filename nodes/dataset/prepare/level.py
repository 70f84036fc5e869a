"""Level eyes: how far a photo is turned, and the crop of real pixels that remains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...faces.mesh import face_outline
from ...media.images import turned
from ...sockets import Face, Photo
from .crop import Box, Crop, Framing, choose_crop

_RIGHT_EYE, _LEFT_EYE = (33, 133), (362, 263)  # corners
_FRONTAL = 40.0  # degrees of yaw; beyond, one eye is guessed, and perspective tilts the line
_LEVEL = 0.5  # degrees that nobody sees and that are not worth a resampling
_SIZES = 24  # tried between the whole crop and the face alone
_ROUNDS = 60


def frame(photo: Photo, framing: Framing, buckets: Sequence[tuple[int, int]],
          level_eyes: bool) -> Crop:
    """Pick the region of a photo as `choose_crop`, turned until the eyes are level if asked.

    Raises:
        LikenessError: as `choose_crop`.
    """
    crop = choose_crop(photo, framing, buckets)
    if not level_eyes or photo.face is None:
        return crop
    return level(photo.face, crop, photo.width, photo.height)


def eye_tilt(face: Face) -> float:
    """Degrees by which the photo must be turned counter-clockwise for the eyes to be level."""
    if abs(face.pose.yaw) > _FRONTAL:
        return -face.pose.roll
    right, left = (face.landmarks[list(eye), :2].mean(0) for eye in (_RIGHT_EYE, _LEFT_EYE))
    across, down = left - right
    return float(np.degrees(np.arctan2(down, across)))


def level(face: Face, crop: Crop, width: int, height: int) -> Crop:
    """Turn an upright crop of a photo so that the eyes are level, with real pixels alone.

    It is never larger than the upright crop unless the turned face needs it, and shrinks towards
    the face. Where not even the face fits (near an edge), the photo is turned less far.
    """
    tilt = eye_tilt(face)
    if abs(tilt) < _LEVEL:
        return crop
    # If it can be, with the forehead up to the hairline, which the landmarks leave out.
    bare = face.landmarks[:, :2]
    whole = np.concatenate([bare, face_outline(face)])
    for share in np.linspace(1.0, 0.1, 10):
        for points in (whole, bare):
            found = _turned_crop(np.clip(points, 0.0, (width, height)), crop, width, height,
                                 tilt * float(share))
            if found is not None:
                return found
    return crop


def _turned_crop(points: np.ndarray, crop: Crop, width: int, height: int,
                 turn: float) -> Crop | None:
    """The largest crop of the upright one's ratio that holds the points in the turned photo."""
    middle = (width / 2, height / 2)
    x0, y0, x1, y1 = crop.box
    half = np.array([x1 - x0, y1 - y0]) / 2
    level_points = turned(points, turn, middle)
    low, high = level_points.min(0), level_points.max(0)
    needed = float(((high - low + 1.0) / (2 * half)).max())
    wanted = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    for scale in np.linspace(max(1.0, needed), needed, _SIZES):
        centre = _centre(wanted, half * scale, (low - 0.5, high + 0.5), (width, height), turn)
        if centre is not None:
            start, end = centre - half * scale, centre + half * scale
            box: Box = (float(start[0]), float(start[1]), float(end[0]), float(end[1]))
            return Crop(box, crop.bucket, turn, middle)
    return None


def _centre(wanted: np.ndarray, half: np.ndarray, face: tuple[np.ndarray, np.ndarray],
            size: tuple[int, int], turn: float) -> np.ndarray | None:
    """Where a box of this half size holds the face and lies inside the photo; None: nowhere.

    Both conditions bound the box's middle by a rectangle, one upright and one turned; projecting
    on each in turn ends in what they share (https://en.wikipedia.org/wiki/Projections_onto_convex_sets).

    Args:
        wanted: middle of the upright crop in the photo (2,).
        face: corner points in the turned photo.
    """
    middle = (size[0] / 2, size[1] / 2)
    cos, sin = abs(np.cos(np.radians(turn))), abs(np.sin(np.radians(turn)))
    reach = np.array([[cos, sin], [sin, cos]]) @ half  # of the box along the photo's own sides
    room = np.array(size) - reach
    if (room < reach).any():
        return None
    low, high = face[1] - half, face[0] + half
    centre = turned(np.clip(wanted, reach, room), turn, middle)
    for _ in range(_ROUNDS):
        centre = np.clip(centre, low, high)
        inside = np.clip(turned(centre, -turn, middle), reach, room)
        centre = turned(inside, turn, middle)
        if (centre >= low - 0.5).all() and (centre <= high + 0.5).all():
            return centre
    return None
