"""Whether a face is drawn: even between its lines, where skin is shaded everywhere."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .near import Near

_EVEN_SIDE, _LINES_SIDE = 128, 256  # pixels that the face is brought to
_EVEN = 0.6  # grey levels a pixel; shading of skin goes beyond
_FAINT = 0.3  # grey levels a pixel, that a middle contrast of none counts as


def drawn_measures(detail: Near) -> dict[str, float]:
    """Measure what line drawings, flat cartoons and posterised photos have and photos have not.

    Args:
        detail: the face at `near.DETAIL`.

    Returns:
        even: share of the face without any shading, 0..1;
        lines: contrast of the sharpest lines over the middle one.
    """
    grey = Image.fromarray(detail.face_light)
    shrinks = grey.width > _LINES_SIDE
    fine = _slopes(grey, _LINES_SIDE, Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC)
    middle, sharpest = np.percentile(fine, (50, 97))
    coarse = _slopes(grey, _EVEN_SIDE, Image.Resampling.BOX)
    return {"even": float((coarse < _EVEN).mean()), "lines": float(sharpest / (middle + _FAINT))}


def _slopes(grey: Image.Image, side: int, resample: Image.Resampling) -> np.ndarray:
    """Size of the gradient in grey levels a pixel, but for the picture's edges."""
    return np.hypot(*np.gradient(np.asarray(grey.resize((side, side), resample))))[4:-4, 4:-4]
