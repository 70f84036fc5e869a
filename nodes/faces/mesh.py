"""The 478 MediaPipe landmarks: index tables, the canonical frame, face masks.

The canonical frame is that of MediaPipe's canonical face model: centimetres, x to the right of
the picture, y up, z towards the camera, pose removed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..errors import LikenessError
from ..sockets import Face

LANDMARKS = 478  # 468 on the surface, then 5 for each iris

Edges = tuple[tuple[int, int], ...]


def _path(*points: int, closed: bool = False) -> Edges:
    ends = points[1:] + points[:1] if closed else points[1:]
    return tuple(zip(points, ends, strict=False))


# Contours of MediaPipe's face mesh (mediapipe/python/solutions/face_mesh_connections.py).
FACE_OVAL_POINTS = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)
FACE_OVAL = _path(*FACE_OVAL_POINTS, closed=True)
LIPS = (
    _path(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
    + _path(61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
    + _path(78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
    + _path(78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308))
# RIGHT and LEFT are the person's own sides; the right eye is on the left of the picture.
LEFT_EYE = (_path(263, 249, 390, 373, 374, 380, 381, 382, 362)
            + _path(263, 466, 388, 387, 386, 385, 384, 398, 362))
LEFT_BROW = _path(276, 283, 282, 295, 285) + _path(300, 293, 334, 296, 336)
LEFT_IRIS = 473
RIGHT_EYE = (_path(33, 7, 163, 144, 145, 153, 154, 155, 133)
             + _path(33, 246, 161, 160, 159, 158, 157, 173, 133))
RIGHT_BROW = _path(46, 53, 52, 65, 55) + _path(70, 63, 105, 66, 107)
RIGHT_IRIS = 468
CONTOURS = FACE_OVAL + LIPS + LEFT_EYE + LEFT_BROW + RIGHT_EYE + RIGHT_BROW  # 124 edges

_CHIN, _FOREHEAD = 152, 10
# Hair starts about this share of the face height above the topmost landmark.
_HAIRLINE = 0.22


@functools.cache
def _canonical() -> tuple[np.ndarray, np.ndarray]:
    """Vertices (468, 3) of the canonical face and their Procrustes weights (468,)."""
    from safetensors.numpy import load_file

    tensors = load_file(Path(__file__).resolve().parent / "models" / "face_canonical.safetensors")
    return tensors["vertices"].astype(np.float64), tensors["weights"].astype(np.float64)


def canonical_mesh(landmarks: np.ndarray) -> np.ndarray:
    """Move landmarks (478, 3) in pixels into the canonical frame: (478, 3) float32, centimetres.

    Weighted similarity fit (Umeyama 1991) on the 33 rigid points that MediaPipe's own geometry
    module uses; pose, place and size go, shape and expression stay.
    """
    target, weights = _canonical()
    points = landmarks.astype(np.float64) * (1, -1, -1)
    source = points[:len(target)]
    share = (weights / weights.sum())[:, None]
    source_mean, target_mean = (source * share).sum(0), (target * share).sum(0)
    source_off, target_off = source - source_mean, target - target_mean
    left, singular, right = np.linalg.svd((target_off * share).T @ source_off)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = left @ (sign[:, None] * right)
    scale = (singular * sign).sum() / (source_off ** 2 * share).sum()
    moved = scale * (points - source_mean) @ rotation.T + target_mean
    return moved.astype(np.float32)


def subject_mesh(faces: Sequence[Face]) -> np.ndarray:
    """Average the canonical meshes of one person: (478, 3) float32.

    Faces seen frontally count more: a turned head hides one side, which is then guessed.

    Raises:
        LikenessError: no faces.
    """
    if not faces:
        raise LikenessError("A mean face needs at least one face; keep at least one photo.")
    weights = [max(np.cos(np.radians(face.pose.yaw)), 0.05) ** 2 for face in faces]
    mean = np.average(np.stack([face.mesh for face in faces]), axis=0, weights=weights)
    return mean.astype(np.float32)


def face_outline(face: Face, grow: float = 0.0) -> np.ndarray:
    """The face oval lifted to the hairline: (36, 2) float32 pixels.

    Args:
        grow: share of the face's size by which the outline is pushed outwards.
    """
    points = face.landmarks[list(FACE_OVAL_POINTS), :2].astype(np.float32)
    up = face.landmarks[_FOREHEAD, :2] - face.landmarks[_CHIN, :2]
    height = max(float(np.linalg.norm(up)), 1e-6)
    axis = up / height
    centre = points.mean(0)
    # How far up a point lies: 0 at the centre, 1 at the top; the lift grows with it.
    rise = np.clip((points - centre) @ axis / (height / 2), 0, 1)[:, None]
    points = points + rise * _HAIRLINE * height * axis
    return points + grow * (points - centre)


def face_mask(face: Face, height: int, width: int, grow: float = 0.0) -> np.ndarray:
    """Paint the face, forehead and hairline included, with a soft edge: (H, W) float32 in [0, 1].

    Args:
        grow: share of the face's size by which the mask is widened (negative: narrowed).
    """
    outline = face_outline(face, grow)
    radius = 0.03 * max(face.size)
    # Only round the face: blurring a whole photo takes long.
    room = 3 * radius + 2
    left, top = np.clip(outline.min(0) - room, 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(outline.max(0) + room), 0, (width, height)).astype(int)
    mask = np.zeros((height, width), np.float32)
    if right <= left or bottom <= top:
        return mask
    part = Image.new("L", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(part).polygon([(float(x - left), float(y - top)) for x, y in outline], fill=255)
    soft = part.filter(ImageFilter.GaussianBlur(radius))
    mask[top:bottom, left:right] = np.asarray(soft, dtype=np.float32) / 255.0
    return mask
