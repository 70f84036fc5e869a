"""Body and hand key points, and the person's silhouette."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import tasks


@dataclass(frozen=True, eq=False)
class Body:
    """One person: MediaPipe's 33 pose landmarks."""

    points: np.ndarray  # (33, 2) pixels
    visibility: np.ndarray  # (33,) 0..1: in the picture and not hidden


@dataclass(frozen=True, eq=False)
class Hand:
    """One hand: 21 landmarks from the wrist to the finger tips."""

    points: np.ndarray  # (21, 2) pixels
    left: bool  # the person's own left hand


def find_bodies(pixels: np.ndarray) -> list[Body]:
    """Find the people of an (H, W, 3) uint8 RGB picture, largest first."""
    height, width = pixels.shape[:2]
    bodies = []
    for points in tasks.detect("pose", pixels).pose_landmarks:
        places = np.array([(point.x * width, point.y * height) for point in points], np.float32)
        seen = np.array([point.visibility or 0.0 for point in points], np.float32)
        bodies.append(Body(points=places, visibility=seen))
    return sorted(bodies, key=lambda body: -float(np.prod(np.ptp(body.points, axis=0))))


def find_hands(pixels: np.ndarray) -> list[Hand]:
    """Find the hands of an (H, W, 3) uint8 RGB picture."""
    height, width = pixels.shape[:2]
    found = tasks.detect("hands", pixels)
    hands = []
    for points, sides in zip(found.hand_landmarks, found.handedness, strict=True):
        places = np.array([(point.x * width, point.y * height) for point in points], np.float32)
        # The model was trained on mirrored selfies: its "Left" is the right hand of a photo.
        hands.append(Hand(points=places, left=sides[0].category_name == "Right"))
    return hands


def person_mask(pixels: np.ndarray) -> np.ndarray:
    """Segment people from the background: (H, W) float32, 1 on a person."""
    # The view's memory belongs to the result and is freed with it (mediapipe 1.2.2): a result that
    # has no name is gone before its mask is copied.
    result = tasks.detect("selfie", pixels)
    mask = np.array(result.confidence_masks[0].numpy_view(), dtype=np.float32)
    return mask.reshape(pixels.shape[:2])
