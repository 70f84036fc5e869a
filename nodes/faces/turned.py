"""Faces in pictures that lie on their side or upside down, and the way between the two frames.

A picture turned `turns` times is `np.rot90(pixels, turns)`: a quarter turn counter-clockwise each.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ..sockets import Face, HeadPose


def quarter_turns(face: Face) -> int:
    """How many quarter turns (0..3, for `np.rot90`) set this face upright."""
    return round(-face.pose.roll / 90) % 4


def turn_points(points: np.ndarray, turns: int, height: int, width: int) -> np.ndarray:
    """Move points (N, 2 or 3) of a picture of this size to where they lie in the turned picture."""
    moved = points.copy()
    x, y = points[:, 0], points[:, 1]
    if turns % 4 == 1:
        moved[:, 0], moved[:, 1] = y, width - x
    elif turns % 4 == 2:
        moved[:, 0], moved[:, 1] = width - x, height - y
    elif turns % 4 == 3:
        moved[:, 0], moved[:, 1] = height - y, x
    return moved


def turn_box(box: tuple[float, float, float, float], turns: int, height: int,
             width: int) -> tuple[float, float, float, float]:
    """Move a box (x0, y0, x1, y1) of a picture of this size into the turned picture."""
    corners = turn_points(np.array([box[:2], box[2:]], np.float64), turns, height, width)
    (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
    return float(x0), float(y0), float(x1), float(y1)


def turn_face(face: Face, turns: int, height: int, width: int) -> Face:
    """Move a face of a picture of this size into the turned picture; mesh and expression stay."""
    landmarks = turn_points(face.landmarks, turns, height, width)
    (x0, y0), (x1, y1) = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    return dataclasses.replace(face, box=(float(x0), float(y0), float(x1), float(y1)),
                               landmarks=landmarks, pose=turn_pose(face.pose, turns))


def turn_pose(pose: HeadPose, turns: int) -> HeadPose:
    """The pose that the viewer of the turned picture sees."""
    quarter = np.radians(90.0 * turns)
    turn = np.array([[np.cos(quarter), -np.sin(quarter), 0],
                     [np.sin(quarter), np.cos(quarter), 0], [0, 0, 1]])
    return pose_of(turn @ rotation_of(pose))


def pose_of(rotation: np.ndarray) -> HeadPose:
    """Yaw, pitch and roll of a rotation (3, 3) in MediaPipe's frame (y up, metric): Y X Z order."""
    yaw = np.arctan2(rotation[0, 2], rotation[2, 2])
    pitch = np.arcsin(np.clip(-rotation[1, 2], -1, 1))
    roll = np.arctan2(rotation[1, 0], rotation[1, 1])
    return HeadPose(*(float(np.degrees(angle)) for angle in (yaw, pitch, roll)))


def rotation_of(pose: HeadPose) -> np.ndarray:
    """The rotation (3, 3) that `pose_of` reads."""
    (ys, xs, zs), (yc, xc, zc) = (
        function(np.radians([pose.yaw, pose.pitch, pose.roll])) for function in (np.sin, np.cos))
    about_y = np.array([[yc, 0, ys], [0, 1, 0], [-ys, 0, yc]])
    about_x = np.array([[1, 0, 0], [0, xc, -xs], [0, xs, xc]])
    about_z = np.array([[zc, -zs, 0], [zs, zc, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def shift_face(face: Face, x: float, y: float) -> Face:
    """Move a face found in a part of a picture whose corner lies at (x, y) into the picture."""
    landmarks = face.landmarks + np.array([x, y, 0], np.float32)
    x0, y0, x1, y1 = face.box
    return dataclasses.replace(face, box=(x0 + x, y0 + y, x1 + x, y1 + y), landmarks=landmarks)


def scale_face(face: Face, across: float, down: float) -> Face:
    """Move a face into a copy of the picture that is this many times as wide and as high."""
    landmarks = face.landmarks * np.array([across, down, across], np.float32)
    x0, y0, x1, y1 = face.box
    return dataclasses.replace(face, landmarks=landmarks,
                               box=(x0 * across, y0 * down, x1 * across, y1 * down))
