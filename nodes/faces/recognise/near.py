"""The upright surroundings of a known face, in which another library looks for it again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import FaceNotFoundError
from ...sockets import Face
from ..boxes import Box, crop_round, overlap
from ..turned import quarter_turns, turn_box
from . import backends

_MARGIN = 1.0  # the face fills a third of the crop: what detectors like best
_SAME_FACE = 0.25  # least overlap; detectors' boxes are wider and higher than the landmarks'


@dataclass(frozen=True, eq=False)
class Surroundings:
    """A square round one face, turned so that the face is upright."""

    pixels: np.ndarray  # (S, S, 3) uint8, RGB
    box: Box  # the face in it

    @property
    def blue_first(self) -> np.ndarray:
        """The pixels as OpenCV and insightface read them: BGR."""
        return np.ascontiguousarray(self.pixels[..., ::-1])


def surroundings(pixels: np.ndarray, face: Face) -> Surroundings:
    """Cut the upright surroundings of a face of an (H, W, 3) uint8 RGB picture.

    A detector that sees nothing else cannot choose another person, and finds close-ups.
    """
    crop, (left, top) = crop_round(pixels, face.box, _MARGIN)
    box = (face.box[0] - left, face.box[1] - top, face.box[2] - left, face.box[3] - top)
    turns = quarter_turns(face)
    return Surroundings(np.ascontiguousarray(np.rot90(crop, turns)),
                        turn_box(box, turns, *crop.shape[:2]))


def same_face(boxes: np.ndarray, near: Surroundings, face: Face, id: str) -> int:
    """Which of the boxes (N, >= 4: x0, y0, x1, y1) that a detector found is the face itself.

    Raises:
        FaceNotFoundError: none of them.
    """
    overlaps = [overlap(tuple(box[:4]), near.box) for box in boxes]
    if not overlaps or max(overlaps) < _SAME_FACE:
        raise FaceNotFoundError(
            f"The detector of {backends.backend(id).title} does not find the face at "
            f"{tuple(round(v) for v in face.box)}; use a photo that shows it larger or more from "
            "the front, or choose another recogniser.")
    return int(np.argmax(overlaps))
