"""Draws control maps exactly as the ControlNets' training data was drawn.

Each function paints on a (H, W, 3) uint8 RGB canvas in place; the canvas starts black.
"""

from __future__ import annotations

import math

import numpy as np

from ..faces import mesh
from .skeleton import LIMBS, Skeleton, in_frame

Colour = tuple[int, int, int]

# CrucibleAI's ControlNetMediaPipeFace. Its drawer paints BGR and reverses the channels at the end;
# these are the colours that result. The person's right eye is on the left of the picture.
FACE_LINES: tuple[tuple[mesh.Edges, Colour], ...] = (
    (mesh.FACE_OVAL, (10, 200, 10)),
    (mesh.LIPS, (10, 180, 10)),
    (mesh.RIGHT_EYE, (180, 200, 10)),
    (mesh.RIGHT_BROW, (180, 220, 10)),
    (mesh.LEFT_EYE, (10, 200, 180)),
    (mesh.LEFT_BROW, (10, 220, 180)),
)
FACE_IRISES: tuple[tuple[int, Colour], ...] = (
    (mesh.RIGHT_IRIS, (250, 200, 10)),
    (mesh.LEFT_IRIS, (10, 200, 250)),
)
FACE_LINE_THICKNESS = 2
_IRIS_HALF = 2

# OpenPose's 18 steps round the colour circle: a limb takes its own number's, a joint likewise.
RAINBOW: tuple[Colour, ...] = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0),
    (0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255),
    (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85))
LIMB_SHADE = 0.6
_LIMB_HALF_WIDTH = 4
_JOINT_RADIUS = 4


def draw_face_mesh(canvas: np.ndarray, landmarks: np.ndarray) -> None:
    """Draw one face for CrucibleAI's face ControlNets: 124 edges in six colours and two irises.

    As in their training data, an edge is left out when one of its ends is outside the canvas, and
    an iris when its centre is.

    Args:
        landmarks: (478, 2 or 3) pixels of the canvas, MediaPipe order.
    """
    import cv2  # comes with mediapipe

    height, width = canvas.shape[:2]
    x, y = landmarks[:, 0], landmarks[:, 1]
    inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
    points = np.floor(np.stack([np.minimum(x, width - 1), np.minimum(y, height - 1)], axis=1))
    for edges, colour in FACE_LINES:
        for start, end in edges:
            if inside[start] and inside[end]:
                cv2.line(canvas, *(tuple(int(v) for v in points[i]) for i in (start, end)),
                         colour, FACE_LINE_THICKNESS)
    for index, colour in FACE_IRISES:
        if inside[index]:
            left, top = (max(int(value) - _IRIS_HALF, 0) for value in points[index])
            right, bottom = (int(value) + _IRIS_HALF for value in points[index])
            canvas[top:bottom, left:right] = colour


def draw_body(canvas: np.ndarray, skeleton: Skeleton, least: float = 0.5, scale: int = 1) -> None:
    """Draw one body for OpenPose ControlNets: 17 limbs, shaded, then 18 joints at full colour.

    Args:
        least: joints below this confidence, and the limbs at them, are left out.
        scale: times the width of limbs and joints, see `xinsir_scale`.
    """
    import cv2  # comes with mediapipe

    height, width = canvas.shape[:2]
    seen = in_frame(skeleton, width, height, least)
    for (start, end), colour in zip(LIMBS, RAINBOW, strict=False):
        if seen[start] and seen[end]:
            (x0, y0), (x1, y1) = skeleton.points[start], skeleton.points[end]
            length = math.hypot(x1 - x0, y1 - y0)
            angle = math.degrees(math.atan2(y0 - y1, x0 - x1))
            outline = cv2.ellipse2Poly(
                (int((x0 + x1) / 2), int((y0 + y1) / 2)),
                (int(length / 2), _LIMB_HALF_WIDTH * scale), int(angle), 0, 360, 1)
            cv2.fillConvexPoly(canvas, outline, tuple(int(part * LIMB_SHADE) for part in colour))
    for point, colour, visible in zip(skeleton.points, RAINBOW, seen, strict=True):
        if visible:
            cv2.circle(canvas, (int(point[0]), int(point[1])), _JOINT_RADIUS * scale, colour, -1)


def xinsir_scale(width: int, height: int) -> int:
    """How much wider xinsir's SDXL pose ControlNets saw limbs and joints drawn, by map size."""
    longest = max(width, height)
    return 1 if longest < 500 else min(2 + longest // 1000, 7)
