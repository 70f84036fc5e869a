"""What saving, scaling and filtering left in a face: by it the original of a shot is told.

None of these measures speaks against a photo by itself; they compare copies of one shot.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from ..faces.boxes import crop_round
from ..faces.mesh import face_mask
from ..sockets import Face
from .near import Near
from .tones import lab

_BLOCK = 8  # pixels: JPEG codes squares of this side on their own (ITU-T T.81)
_REGION = 256  # pixels: so much round the face tells how it was coded
_STEPS = np.arange(2, 49, dtype=np.float32)  # of quantisation that are looked for
_ON_STEP = 0.55  # mean cosine of the coefficients' places between steps; 1: all lie on them
_FEWEST = 12  # coefficients that must speak
# Low frequencies (row, column): of high ones few coefficients are left.
_FREQUENCIES = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1), (2, 2), (0, 3), (3, 0))
_SKIN_SIDE = 128  # pixels that the face is reduced to for its colours
_BINOMIAL = np.array([1, 4, 6, 4, 1], np.float32) / 16
_EVEN = 10  # levels that a row of a frame's pixels may differ by
_FRAME = 0.02  # of the side: narrower is no frame


def edit_measures(detail: Near, whole: np.ndarray) -> dict[str, float]:
    """Take the measures by which copies of a shot are compared.

    Args:
        detail: the face at `near.DETAIL`.
        whole: (H, W, 3) uint8 RGB, all of the photo, at whatever size.

    Returns:
        jpeg_step: log2 of the coarsest JPEG quantisation that shows, 0 for none;
        skin_chroma, skin_hue, chroma_spread: of the face in CIELAB, the hue in radians;
        deepest, lightest: 1st and 99th percentile of the face's lightness, 0..100;
        lost_channels: share of pixels with a channel at the end of its range;
        detail_fine, detail_middle, detail_coarse: log ratios of the contrast of neighbouring
        octaves at the face's own pixels, the finest first; detail_level: log of the fourth;
        detail_uneven: log of the finest octave's spread over its median: smoothing keeps edges;
        framed: sides of the picture, 0..4, along which even stripes lie; content: the share of
        the picture that lies within them.
    """
    face = detail.face
    crop, corner = crop_round(detail.pixels, face.box, margin=0.0)
    octaves, uneven = _octaves(detail.face_light)
    stripes = _stripes(whole)
    return {
        "jpeg_step": jpeg_step(detail),
        **_colours(crop, corner, face),
        "lost_channels": _lost_channels(crop),
        "detail_fine": octaves[0] - octaves[1],
        "detail_middle": octaves[1] - octaves[2],
        "detail_coarse": octaves[2] - octaves[3],
        "detail_level": octaves[3],
        "detail_uneven": uneven,
        "framed": float(sum(share > _FRAME for share in stripes)),
        "content": (1 - stripes[0] - stripes[1]) * (1 - stripes[2] - stripes[3]),
    }


def jpeg_step(detail: Near) -> float:
    """Mean log2 of the quantisation steps on which the face's DCT coefficients lie; 0 for none.

    Coefficients of a decoded JPEG file lie on multiples of its steps (Fan and de Queiroz 2003),
    until the picture is cut off its grid or scaled. Steps of one are not seen: files of quality
    95 have 0, of 90 about 1, of 75 2.7, of 50 3.8. A view that is `shrunk` has none.
    """
    if detail.view.shrunk > 1:
        return 0.0
    # The grid begins at the photo's corner, not at the view's.
    left, top = (-(-(max(int(edge), 0) + start) // _BLOCK) * _BLOCK - start
                 for edge, start in zip(detail.face.box[:2], detail.view.corner, strict=True))
    right, bottom = (int(min(edge, start + _REGION)) for edge, start in
                     zip(detail.face.box[2:], (left, top), strict=True))
    grey = detail.light[top:bottom, left:right]
    rows, columns = grey.shape[0] // _BLOCK, grey.shape[1] // _BLOCK
    if min(rows, columns) < 4:
        return 0.0
    blocks = grey[:rows * _BLOCK, :columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK)
    transform = _cosines()
    coefficients = transform @ blocks.transpose(0, 2, 1, 3).reshape(-1, _BLOCK, _BLOCK) \
        @ transform.T
    return float(np.mean([_coarsest(np.abs(coefficients[:, row, column]))
                          for row, column in _FREQUENCIES]))


def _cosines() -> np.ndarray:
    """The orthonormal DCT-II as a matrix (8, 8)."""
    places = np.arange(_BLOCK)
    rows = np.sqrt(2 / _BLOCK) * np.cos(np.pi * (2 * places + 1) * places[:, None] / (2 * _BLOCK))
    rows[0] /= np.sqrt(2)
    return rows.astype(np.float32)


def _coarsest(sizes: np.ndarray) -> float:
    """log2 of the coarsest step on whose multiples values (N,) lie."""
    sizes = sizes[sizes > 1]
    beyond = sizes[:, None] > _STEPS / 2  # smaller ones lie near the multiple zero of any step
    count = beyond.sum(0)
    near = (np.cos(2 * np.pi * sizes[:, None] / _STEPS) * beyond).sum(0) / np.maximum(count, 1)
    found = _STEPS[(count >= _FEWEST) & (near > _ON_STEP)]
    return float(np.log2(found[-1])) if found.size else 0.0


def _octaves(grey: np.ndarray) -> tuple[list[float], float]:
    """Logs of the contrast in four octaves of detail, the finest first (Burt and Adelson 1983),
    and by how much the finest one's contrast lies above its median.
    """
    found, uneven = [], 0.0
    while len(found) < 4 and min(grey.shape) >= 8:
        soft = _softened(_softened(grey).T).T
        detail = (grey - soft)[2:-2, 2:-2]
        found.append(_log(detail.std()))
        if len(found) == 1:
            uneven = found[0] - _log(np.median(np.abs(detail)))
        grey = soft[::2, ::2]
    return found + (found[-1:] or [0.0]) * (4 - len(found)), uneven


def _log(contrast: float) -> float:
    return float(np.log(contrast + 0.05))  # grey levels; less is rounding


def _softened(grey: np.ndarray) -> np.ndarray:
    padded = np.pad(grey, ((0, 0), (2, 2)), mode="edge")
    return sum(weight * padded[:, start:start + grey.shape[1]]
               for start, weight in enumerate(_BINOMIAL))


def _lost_channels(crop: np.ndarray) -> float:
    lost = [(channel <= 2) | (channel >= 253) for channel in np.moveaxis(crop, -1, 0)]
    return float((lost[0] | lost[1] | lost[2]).mean())


def _colours(crop: np.ndarray, corner: tuple[int, int], face: Face) -> dict[str, float]:
    scale = _SKIN_SIDE / crop.shape[0]
    small = np.asarray(Image.fromarray(crop).resize((_SKIN_SIDE, _SKIN_SIDE),
                                                    Image.Resampling.BOX))
    landmarks = (face.landmarks - np.float32((*corner, 0))) * scale
    within = replace(face, landmarks=landmarks, box=(0.0, 0.0, *(scale * side for side in
                                                                 face.size)))
    inner = face_mask(within, _SKIN_SIDE, _SKIN_SIDE, grow=-0.1) > 0.5
    light, green_red, blue_yellow = lab(small[inner] if inner.any() else small).reshape(-1, 3).T
    return {
        "skin_chroma": float(np.median(np.hypot(green_red, blue_yellow))),
        "skin_hue": float(np.median(np.arctan2(blue_yellow, green_red))),
        "chroma_spread": float(np.sqrt(green_red.var() + blue_yellow.var())),
        "deepest": float(np.percentile(light, 1)),
        "lightest": float(np.percentile(light, 99)),
    }


def _stripes(pixels: np.ndarray) -> tuple[float, float, float, float]:
    """Shares of height or width that even stripes take: above, below, left and right."""
    across = np.swapaxes(pixels, 0, 1)
    return tuple(_even_rows(rows[:len(rows) // 2]) / len(rows)
                 for rows in (pixels, pixels[::-1], across, across[::-1]))


def _even_rows(rows: np.ndarray) -> int:
    """How many rows from the first one on have one colour each."""
    for count, row in enumerate(rows):
        if np.ptp(row, axis=0).max() > _EVEN:
            return count
    return len(rows)
