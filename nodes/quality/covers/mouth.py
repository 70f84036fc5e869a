"""Whether a mask, a scarf or a hand hides the mouth, from the colours at the landmarks.

A beard changes the colour round the mouth, make-up that of the lips; neither hides that lips are
redder than what surrounds them, nor changes nose and cheeks. Cloth does both, whatever its pattern.
"""

from __future__ import annotations

import numpy as np

from .evidence import apart, middle, weighing

# Landmarks of MediaPipe's mesh. What stays bare above a mask: forehead, bridge, below the eyes.
_FOREHEAD = (9, 151, 108, 337, 69, 299)
_BRIDGE = (6, 168, 197)
_UNDER_EYES = (118, 119, 347, 348, 117, 346, 100, 329)
# Where no beard grows, but a mask lies.
_NOSE_TIP = (1, 4, 5, 195, 45, 275, 51, 281)
_CHEEKS = (36, 266, 205, 425, 50, 280, 101, 330, 203, 423)
_NOSTRILS = (2, 97, 326, 98, 327)
_LIPS = (72, 302, 38, 268, 12, 37, 267, 0, 85, 315, 86, 316, 15, 16, 14, 17)
_SEAM = (13, 14, 312, 82, 87, 317)  # between the lips
_UPPER_LIP = (164, 167, 393, 165, 391, 92, 322)
_CHIN = (18, 200, 199, 175, 83, 313, 201, 421, 208, 428)
_SHADE = 0.4


def covered_mouth(colours: np.ndarray) -> float:
    """How likely something lies over the mouth, 0..1, from CIELAB colours (478, 3)."""
    return weighing("mouth").share(mouth_measures(colours))


def mouth_measures(colours: np.ndarray) -> dict[str, float]:
    """What tells a covered mouth, in units of CIELAB, from colours at the landmarks (478, 3)."""
    skin = middle(colours, _FOREHEAD + _BRIDGE + _UNDER_EYES)
    tip, bridge = middle(colours, _NOSE_TIP), middle(colours, _BRIDGE)
    lips, around = colours[list(_LIPS)], colours[list(_UPPER_LIP + _CHIN)]
    lip, ring = np.median(lips, axis=0), np.median(around, axis=0)
    off = lip - ring
    spread = np.sqrt(lips[:, 1].var() + around[:, 1].var()) + 1
    return {
        "lips_redder_by_spread": float(off[1] / spread),
        "lips_redder": float(off[1]),
        "lips_redder_than_skin": float(lip[1] - skin[1]),
        "lips_colour": float(np.hypot(off[1], off[2])),
        "tip_from_bridge": apart(tip, bridge, _SHADE),
        "tip_from_skin": apart(tip, skin, 0.0),
        "chin_from_skin": apart(middle(colours, _CHIN), skin, _SHADE),
        "cheeks_from_skin": apart(middle(colours, _CHEEKS), skin, _SHADE),
        "nostrils_lighter": float(middle(colours, _NOSTRILS)[0] - tip[0]),
        "seam_lighter": float(np.median(colours[list(_SEAM), 0]) - np.median(lips[:, 0])),
    }
