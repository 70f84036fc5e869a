"""The 18 body points of OpenPose, and how MediaPipe's 33 become them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# "right" and "left" are the person's own: the right arm is on the left of the picture.
JOINTS = ("nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder",
          "left_elbow", "left_wrist", "right_hip", "right_knee", "right_ankle", "left_hip",
          "left_knee", "left_ankle", "right_eye", "left_eye", "right_ear", "left_ear")
NECK = JOINTS.index("neck")

# The order and the colours of OpenPose's COCO model, as the ControlNets saw them.
LIMBS = ((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11),
         (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17))

_MEDIAPIPE_SHOULDERS = (12, 11)
# MediaPipe's number of each joint; the neck, which it lacks, is the middle of the shoulders.
_MEDIAPIPE = (0, 0, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7)


@dataclass(frozen=True, eq=False)
class Skeleton:
    """One body."""

    points: np.ndarray  # (18, 2) pixels
    confidence: np.ndarray  # (18,) 0..1; 0 for a joint that is not there


def from_mediapipe(landmarks: np.ndarray, visibility: np.ndarray) -> Skeleton:
    """Turn MediaPipe's 33 points (33, 2 or 3) in pixels and visibility (33,) into the 18."""
    points = landmarks[list(_MEDIAPIPE), :2].astype(np.float64)
    confidence = visibility[list(_MEDIAPIPE)].astype(np.float64)
    shoulders = list(_MEDIAPIPE_SHOULDERS)
    points[NECK] = landmarks[shoulders, :2].mean(0)
    confidence[NECK] = visibility[shoulders].min()
    return Skeleton(points, confidence)


def in_frame(skeleton: Skeleton, width: int, height: int, least: float) -> np.ndarray:
    """Which joints (18,) are surely seen and lie on a map of this size.

    A landmarker also guesses joints outside the picture; a ControlNet would draw them at the rim.
    """
    x, y = skeleton.points.T
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return inside & (skeleton.confidence > 0) & (skeleton.confidence >= least)


def openpose_people(skeletons: list[Skeleton], width: int, height: int,
                    least: float) -> dict[str, object]:
    """Write bodies as OpenPose's JSON: flat x, y, confidence triples, zeros for absent joints."""
    people = []
    for skeleton in skeletons:
        seen = in_frame(skeleton, width, height, least)[:, None]
        rows = np.concatenate([skeleton.points, skeleton.confidence[:, None]], axis=1) * seen
        people.append({"pose_keypoints_2d": [round(float(value), 3) for value in rows.ravel()]})
    return {"people": people, "canvas_width": width, "canvas_height": height}
