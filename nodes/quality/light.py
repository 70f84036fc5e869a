"""The light on a face, read off its skin: from where, how bright, how hard, how warm.

Compared are patches of skin at landmarks that hair, brows, eyes, lips and teeth leave free. The
colour of a skin is part of what is measured: warmth and contrast say how photos of one person
differ, not how two people do.
"""

from __future__ import annotations

import numpy as np

from .tones import linear, luma

# Skin at the landmarks of MediaPipe's mesh; each place on one side beside its mirror image.
_PICTURE_LEFT = (50, 36, 205, 187, 207, 123, 147, 101, 118, 69, 104, 108, 135, 169)
_PICTURE_RIGHT = (280, 266, 425, 411, 427, 352, 376, 330, 347, 299, 333, 337, 364, 394)
_UPPER = (9, 151, 108, 337, 69, 299, 118, 347, 101, 330)  # planes that face up
_LOWER = (207, 427, 187, 411, 214, 434, 194, 418)  # planes that face down
_SKIN = _PICTURE_LEFT + _PICTURE_RIGHT + (9, 151, 5, 195, 200, 199)
# Medians over 138 official portraits, which are lit from the front and a little from above.
USUAL_TOP = 0.21
USUAL_WARMTH = 1.58  # log2 of red over blue, linear
_WARMTH_SPAN = 1.5  # so many doublings more are as warm as those portraits get


def light_measures(patches: np.ndarray) -> dict[str, float]:
    """Describe the light by five numbers.

    Args:
        patches: colours at the landmarks (478, 3), 0..255 RGB, of `tones.landmark_colours`.

    Returns:
        light_side: -1 all light from the left of the picture, +1 all from its right;
        light_top: -1 all from below, +1 all from above, 0 as portraits are usually lit;
        light_key: mean luma of the skin, 0..1;
        light_contrast: 0 flat, 1 as hard as can be, (a - b) / (a + b) of light and dark skin;
        light_warmth: -1 cold (blue), 0 usual, +1 warm (orange).
    """
    light = luma_of(linear(patches))
    bright, dark = np.percentile(light[list(_SKIN)], (90, 10))
    red, _, blue = linear(patches[list(_SKIN)]).mean(0) + 1e-3
    warmth = (np.log2(red / blue) - USUAL_WARMTH) / _WARMTH_SPAN
    return {
        "light_side": _lean(light[list(_PICTURE_RIGHT)].mean(), light[list(_PICTURE_LEFT)].mean()),
        "light_top": float(np.clip(_lean(light[list(_UPPER)].mean(), light[list(_LOWER)].mean())
                                   - USUAL_TOP, -1, 1)),
        "light_key": float(luma(patches[list(_SKIN)]).mean() / 255.0),
        "light_contrast": max(_lean(bright, dark), 0.0),
        "light_warmth": float(np.clip(warmth, -1, 1)),
    }


def luma_of(light: np.ndarray) -> np.ndarray:
    """Rec. 709 luminance (...) of linear RGB (..., 3)."""
    return light @ np.array([0.2126, 0.7152, 0.0722], np.float32)


def _lean(a: float, b: float) -> float:
    """How much of the light is on the first side: -1..1."""
    return float((a - b) / max(a + b, 1e-6))
