"""Finds faces with their landmarks, canonical mesh, head pose and expression."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import numpy as np

from ..sockets import Face, HeadPose
from . import tasks
from .mesh import canonical_mesh

_MIN_FACE = 16  # pixels; landmarks below this are noise
_BORDER = 0.6  # of the longer side, added all round so that a close-up face has surroundings
_TILE = 0.6  # of each side; four overlapping tiles find faces too small for the whole picture


def find_faces(pixels: np.ndarray, limit: int = 8) -> list[Face]:
    """Find the faces of an (H, W, 3) uint8 RGB picture, largest first.

    The full-range detector looks first (it finds faces down to about 6 % of the picture's side
    and makes few mistakes); where it finds none, the short-range one, then both on the picture
    with a border (close-ups), then the full-range one on four tiles (small faces). What those
    find must be found again in a crop round it: the short-range detector also fires on scenery.
    """
    faces = list(_faces(tasks.detect("face_full_range", pixels), pixels))
    if not faces:
        faces = next(filter(None, _second_looks(pixels)), [])
    faces.sort(key=lambda face: -face.size[0] * face.size[1])
    return faces[:limit]


def find_face(pixels: np.ndarray) -> Face | None:
    """Find the largest face of an (H, W, 3) uint8 RGB picture."""
    return next(iter(find_faces(pixels, limit=1)), None)


def head_pose(matrix: np.ndarray) -> HeadPose:
    """Read the head pose off MediaPipe's 4 x 4 facial transformation matrix (y up, metric)."""
    left, _, right = np.linalg.svd(matrix[:3, :3])
    rotation = left @ right
    yaw = np.arctan2(rotation[0, 2], rotation[2, 2])
    pitch = np.arcsin(np.clip(-rotation[1, 2], -1, 1))
    roll = np.arctan2(rotation[1, 0], rotation[1, 1])
    return HeadPose(*(float(np.degrees(angle)) for angle in (yaw, pitch, roll)))


def _faces(result: Any, pixels: np.ndarray, shift: tuple[int, int] = (0, 0)) -> Iterator[Face]:
    """Convert MediaPipe's result on `pixels`, whose corner lies at `shift` in the photo."""
    height, width = pixels.shape[:2]
    for points, matrix, shapes in zip(result.face_landmarks, result.facial_transformation_matrixes,
                                      result.face_blendshapes, strict=True):
        landmarks = np.array([(p.x * width, p.y * height, p.z * width) for p in points], np.float32)
        landmarks[:, :2] += shift
        (x0, y0), (x1, y1) = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
        if min(x1 - x0, y1 - y0) < _MIN_FACE:
            continue
        expression = {shape.category_name: float(shape.score) for shape in shapes
                      if shape.category_name != "_neutral"}
        yield Face(box=(float(x0), float(y0), float(x1), float(y1)), landmarks=landmarks,
                   mesh=canonical_mesh(landmarks), pose=head_pose(np.asarray(matrix)),
                   expression=MappingProxyType(expression))


def _second_looks(pixels: np.ndarray) -> Iterator[list[Face]]:
    """Yield what each further search finds, confirmed."""
    height, width = pixels.shape[:2]
    yield _confirmed(_faces(tasks.detect("face_short_range", pixels), pixels), pixels)
    border = round(_BORDER * max(height, width))
    padded = np.pad(pixels, ((border, border), (border, border), (0, 0)), mode="edge")
    for task in ("face_full_range", "face_short_range"):
        found = _faces(tasks.detect(task, padded), padded, (-border, -border))
        yield _confirmed(found, pixels)
    tile_height, tile_width = round(_TILE * height), round(_TILE * width)
    found = []
    for top in (0, height - tile_height):
        for left in (0, width - tile_width):
            tile = pixels[top:top + tile_height, left:left + tile_width]
            found += _faces(tasks.detect("face_full_range", tile), tile, (left, top))
    yield _distinct(_confirmed(iter(found), pixels))


def _confirmed(faces: Iterator[Face], pixels: np.ndarray) -> list[Face]:
    """Keep the faces that the full-range detector finds again, alike, in a crop round them."""
    return [face for face in faces if _found_again(face, pixels)]


def _found_again(face: Face, pixels: np.ndarray) -> bool:
    crop, shift = crop_round(pixels, face.box, margin=0.75)
    again = _faces(tasks.detect("face_full_range", crop), crop, shift)
    size = max(face.size)
    return any(np.abs(other.landmarks[:, :2] - face.landmarks[:, :2]).mean() < 0.06 * size
               for other in again)


def crop_round(pixels: np.ndarray, box: tuple[float, float, float, float],
               margin: float) -> tuple[np.ndarray, tuple[int, int]]:
    """Cut a square round a box, repeating edge pixels outside the picture.

    Args:
        margin: share of the box's longer side added on each side.

    Returns:
        The square (S, S, 3) and the place (x, y) of its corner in the picture.
    """
    side = max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * margin)
    left = round((box[0] + box[2] - side) / 2)
    top = round((box[1] + box[3] - side) / 2)
    rows = np.clip(np.arange(top, top + round(side)), 0, pixels.shape[0] - 1)
    columns = np.clip(np.arange(left, left + round(side)), 0, pixels.shape[1] - 1)
    return np.ascontiguousarray(pixels[rows][:, columns]), (left, top)


def _distinct(faces: list[Face]) -> list[Face]:
    """Drop repeats of a face that several tiles saw."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.size[0] * face.size[1]):
        if all(overlap(face.box, other.box) < 0.3 for other in kept):
            kept.append(face)
    return kept


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / (areas - shared)
