"""Turns a person's own canonical mesh into the pose of another face."""

from __future__ import annotations

import numpy as np

from ..sockets import Face, HeadPose

# The canonical frame has y up and z towards the camera; a picture has y down and z away from it.
_TO_PICTURE = np.array([1.0, -1.0, -1.0])


def rotation(pose: HeadPose) -> np.ndarray:
    """The rotation (3, 3) of a head pose in the canonical frame: about y, then x, then z."""
    yaw, pitch, roll = np.radians([pose.yaw, pose.pitch, pose.roll])
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)],
                        [0, np.sin(pitch), np.cos(pitch)]])
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0],
                        [0, 0, 1]])
    return about_y @ about_x @ about_z


def posed_like(mesh: np.ndarray, face: Face) -> np.ndarray:
    """Put a person's canonical mesh (478, 3) where a face is: landmarks (478, 3) in its pixels.

    The place, size and rotation are those that carry the face's own canonical mesh to its own
    landmarks (Umeyama 1991), so a mesh posed like its own face gives that face back.
    """
    source = face.mesh.astype(np.float64)
    target = face.landmarks.astype(np.float64)
    source_mean, target_mean = source.mean(0), target.mean(0)
    source_off, target_off = source - source_mean, target - target_mean
    left, singular, right = np.linalg.svd(target_off.T @ source_off)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    turn = left @ (sign[:, None] * right)
    scale = (singular * sign).sum() / (source_off ** 2).sum()
    return scale * (mesh - source_mean) @ turn.T + target_mean


def turned(points: np.ndarray, pose: HeadPose, pivot: np.ndarray) -> np.ndarray:
    """Rotate points (N, 3) of the canonical frame about a pivot (3,)."""
    return (points - pivot) @ rotation(pose).T + pivot


def to_picture(points: np.ndarray) -> np.ndarray:
    """Flip points (N, 3) of the canonical frame into a picture's axes, still in centimetres."""
    return points * _TO_PICTURE
