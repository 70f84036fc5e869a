"""Whether dark glasses hide the eyes, from the colours at the landmarks and the light in the eyes.

Deep sockets, light from the side and make-up darken what lies round the eyes, but leave white and
iris to be told apart; clear glasses change neither.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from ...faces.boxes import crop_round
from ...sockets import Face
from ..tones import luma
from .evidence import apart, middle, weighing
from .mouth import covered_mouth

# Landmarks of MediaPipe's mesh, of the person's right eye, then of the left one.
_BELOW = ((228, 229, 230, 231, 232, 233, 22, 23, 24, 110),
          (448, 449, 450, 451, 452, 453, 252, 253, 254, 339))
_ABOVE = ((222, 223, 224, 225, 27, 28, 29, 30, 221, 113),
          (442, 443, 444, 445, 257, 258, 259, 260, 441, 342))
_OPENINGS = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249))
_IRISES = (468, 473)
# Skin to compare with: a mask leaves the first, hair and hats leave the others.
_FOREHEAD = (9, 151, 108, 337, 69, 299)
_CHEEKS = (50, 280, 101, 330, 36, 266, 205, 425)
_NOSE = (6, 197, 195, 5, 4, 1)
_SHADE = 0.5
# What lies round the eyes must differ from skin by this much, from a first doubt to a full one:
# blurred eyes and eyes in the dark show as little as covered ones.
_UNLIKE = 9.0, 16.0
# And eyes the clearer of which shows this much contrast are seen, however dark the skin is.
_SEEN = 0.4, 0.5
_MASKED = 0.4  # a mouth that is covered this likely leaves only the forehead to compare with
_SIDE = 160  # pixels that the face is brought to, as for its colours
_MARGIN = 0.1


def covered_eyes(pixels: np.ndarray, face: Face, colours: np.ndarray) -> float:
    """How likely something lies over both eyes, 0..1.

    Args:
        colours: CIELAB at the landmarks (478, 3).
    """
    found = eye_measures(pixels, face, colours)
    unlike = _between(found["round_eyes_from_skin"], _UNLIKE)
    hidden = 1 - _between(found["contrast_at_best"], _SEEN)
    return weighing("eyes").share(found) * unlike * hidden


def eye_measures(pixels: np.ndarray, face: Face, colours: np.ndarray) -> dict[str, float]:
    """What tells covered eyes, of the eye that is covered less: hair over one eye is no glasses.

    Args:
        colours: CIELAB at the landmarks (478, 3).
    """
    bare = (_FOREHEAD,) if covered_mouth(colours) > _MASKED else (_FOREHEAD, _CHEEKS, _NOSE)
    skins = [middle(colours, places) for places in bare]
    below = [middle(colours, places) for places in _BELOW]
    round_eyes = [middle(colours, above + under)
                  for above, under in zip(_ABOVE, _BELOW, strict=True)]
    contrasts = _contrasts(pixels, face)
    return {
        "round_eyes_from_skin": min(apart(eye, skin, _SHADE)
                                    for eye in round_eyes for skin in skins),
        "contrast_in_eye": min(contrasts), "contrast_at_best": max(contrasts),
        "iris_lighter": min(float(colours[iris, 0] - under[0])
                            for iris, under in zip(_IRISES, below, strict=True)),
        "below_redder": max(float(under[1] - skins[0][1]) for under in below),
    }


def _contrasts(pixels: np.ndarray, face: Face) -> list[float]:
    """How far light and dark lie apart between the lids of each eye, over the skin's luma."""
    crop, corner = crop_round(pixels, face.box, _MARGIN)
    light = luma(np.asarray(Image.fromarray(crop).resize((_SIDE, _SIDE), Image.Resampling.BOX)))
    places = (face.landmarks[:, :2] - corner) * (_SIDE / crop.shape[0])
    x, y = np.clip(places[list(_FOREHEAD + _CHEEKS)].astype(int), 0, _SIDE - 1).T
    skin = max(float(light[y, x].mean()), 1.0)
    return [_span(light, places[list(opening)]) / skin for opening in _OPENINGS]


def _between(value: float, ends: tuple[float, float]) -> float:
    """How far a value lies on the way from one end to the other, 0..1."""
    return float(np.clip((value - ends[0]) / (ends[1] - ends[0]), 0.0, 1.0))


def _span(light: np.ndarray, outline: np.ndarray) -> float:
    """Between the 5th and the 95th percentile of what lies inside an outline (N, 2)."""
    shape = Image.new("1", (_SIDE, _SIDE))
    ImageDraw.Draw(shape).polygon([(float(x), float(y)) for x, y in outline], fill=1)
    inside = light[np.asarray(shape)]
    return float(np.ptp(np.percentile(inside, (5, 95)))) if inside.size else 0.0
