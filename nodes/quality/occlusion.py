"""What hides a face: eyes shut, dark glasses, a mask over the mouth, a hand before it.

MediaPipe draws its landmarks over whatever lies before a face and does not say so; the colours
under them do.
"""

from __future__ import annotations

import numpy as np

from ..sockets import Face
from .covers.eyes import covered_eyes
from .covers.hands import covered_by_hands
from .covers.mouth import covered_mouth
from .tones import lab


def eyes_closed(face: Face) -> float:
    """How far the more open eye is shut, 0..1; both must be for the photo to show closed eyes."""
    return min(face.expression.get("eyeBlinkLeft", 0.0), face.expression.get("eyeBlinkRight", 0.0))


def occlusion_measures(pixels: np.ndarray, face: Face, patches: np.ndarray) -> dict[str, float]:
    """How much hides the eyes, the mouth, and the face behind hands: 0..1 each, and the worst.

    Args:
        patches: colours at the landmarks (478, 3), of `tones.landmark_colours`.
    """
    colours = lab(patches)
    found = {"covered_eyes": covered_eyes(pixels, face, colours),
             "covered_mouth": covered_mouth(colours),
             "covered_hand": covered_by_hands(pixels, face)}
    return {**found, "occlusion": max(found.values())}
