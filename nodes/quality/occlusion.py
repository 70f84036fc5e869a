"""What hides a face: eyes shut, dark glasses, a mask over the mouth, a hand before it.

MediaPipe draws its landmarks over whatever lies before a face and does not say so; the colours
under them do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..faces.body import Hand, find_hands
from ..faces.boxes import crop_round
from ..faces.mesh import face_outline
from ..media.images import resize
from ..sockets import Face
from .tones import lab, luma

# Landmarks of MediaPipe's mesh. Round each eye: the lids and the skin below, where no brow grows.
_ROUND_EYES = (
    (228, 229, 230, 231, 232, 233, 22, 23, 24, 110, 222, 223, 224, 225, 27, 28, 29, 30, 221, 113),
    (448, 449, 450, 451, 452, 453, 252, 253, 254, 339, 442, 443, 444, 445, 257, 258, 259, 260,
     441, 342))
_CHEEKS_AND_NOSE = (50, 36, 205, 187, 207, 123, 147, 101, 280, 266, 425, 411, 427, 352, 376, 330,
                    6, 197, 195, 5, 4, 1, 51, 281, 45, 275)
_FOREHEAD = (9, 151, 108, 337, 69, 299, 107, 336, 66, 296, 6, 197, 195, 5)
_LIPS = (72, 302, 38, 268, 85, 315, 86, 316, 11, 12, 15, 16)
_ROUND_MOUTH = (164, 167, 393, 165, 391, 92, 322, 18, 200, 199, 175, 83, 313, 201, 421, 208, 428,
                182, 406, 194, 418)
# The opening between the lids.
_OPENINGS = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249))
_SHADE = 0.5  # weight of lightness beside colour: shadows are not covers
_MOUTH_SHADE = 0.3
# Where evidence begins, and how far on it is complete; see `rules.Rules.occlusion`.
_EYES = 14.0, 16.0  # CIELAB distance of the skin round the eyes from that of cheeks and nose
_SEEN = 0.2, 0.3  # contrast between the lids over the skin's luma: eyes hidden, eyes to be seen
_MOUTH = 1.5, 6.0  # how much less the lips stand out than the mouth differs from the forehead
_HAND = 0.4  # share of the face under a hand that is as bad as can be
_HAND_SIDE = 256  # pixels; the hand model looks at 192
_EYE_SIDE = 384  # pixels that the face is brought to, so that an eye has some fifty
_PALM = 0.06  # of the face's width: how far flesh reaches beyond a hand's landmarks


def eyes_closed(face: Face) -> float:
    """How far the more open eye is shut, 0..1; both must be for the photo to show closed eyes."""
    return min(face.expression.get("eyeBlinkLeft", 0.0), face.expression.get("eyeBlinkRight", 0.0))


def occlusion_measures(pixels: np.ndarray, face: Face, patches: np.ndarray) -> dict[str, float]:
    """How much hides the eyes, the mouth, and the face behind hands: 0..1 each, and the worst.

    Args:
        patches: colours at the landmarks (478, 3), of `tones.landmark_colours`.
    """
    colours = lab(patches)
    behind = 1 - _share((eye_contrast(pixels, face, patches) - _SEEN[0]) / (_SEEN[1] - _SEEN[0]))
    found = {"covered_eyes": covered_eyes(colours) * behind,
             "covered_mouth": covered_mouth(colours),
             "covered_hand": covered_by_hands(pixels, face)}
    return {**found, "occlusion": max(found.values())}


def covered_eyes(colours: np.ndarray) -> float:
    """Whether something unlike skin lies over both eyes (dark glasses), from colours (478, 3).

    The CIELAB distance of the skin round each eye from that of cheeks and nose; the less covered
    eye counts, so that hair over one eye does not. Deep sockets, light from the side and make-up
    look alike, but leave white and iris to be told apart; see `eye_contrast`.
    """
    skin = _middle(colours, _CHEEKS_AND_NOSE)
    apart = min(_apart(_middle(colours, places), skin, _SHADE) for places in _ROUND_EYES)
    return _share((apart - _EYES[0]) / _EYES[1])


def eye_contrast(pixels: np.ndarray, face: Face, patches: np.ndarray) -> float:
    """How far light and dark lie apart between the lids of the clearer eye, over the skin's luma.

    Args:
        patches: colours at the landmarks (478, 3), of `tones.landmark_colours`.
    """
    crop, corner = crop_round(pixels, face.box, margin=0.1)
    scale = _EYE_SIDE / crop.shape[0]
    light = luma(resize(crop, _EYE_SIDE, _EYE_SIDE))
    spans = [0.0]
    for opening in _OPENINGS:
        outline = (face.landmarks[list(opening), :2] - corner) * scale
        inside = light[_painted([outline], (_EYE_SIDE, _EYE_SIDE), 0.0)]
        spans += [float(np.ptp(np.percentile(inside, (5, 95))))] if inside.size else []
    return max(spans) / max(float(luma(_middle(patches, _CHEEKS_AND_NOSE))), 1.0)


def covered_mouth(colours: np.ndarray) -> float:
    """Whether something unlike skin lies over the mouth (a mask), from colours (478, 3).

    A beard changes the colour round the mouth but leaves the lips to be seen; a mask makes both
    alike and unlike the forehead.
    """
    around = _middle(colours, _ROUND_MOUTH)
    lips = _apart(_middle(colours, _LIPS), around, 1.0)
    unlike = _apart(around, _middle(colours, _FOREHEAD), _MOUTH_SHADE)
    return _share((unlike / (lips + 2.0) - _MOUTH[0]) / _MOUTH[1])


def covered_by_hands(pixels: np.ndarray, face: Face) -> float:
    """How much of the face lies under hands, 0..1; two fifths of it count as all."""
    crop, corner = crop_round(pixels, face.box, margin=0.5)
    scale = _HAND_SIDE / crop.shape[0]
    hands = find_hands(resize(crop, _HAND_SIDE, _HAND_SIDE))
    outline = (face_outline(face) - corner) * scale
    return _share(hidden_share(outline, hands) / _HAND)


def hidden_share(outline: np.ndarray, hands: Sequence[Hand]) -> float:
    """Share of the area inside an outline (N, 2) that lies under hands, 0..1."""
    if not hands:
        return 0.0
    corner = np.floor(outline.min(0))
    width, height = (np.ceil(outline.max(0) - corner) + 1).astype(int)
    face = _painted([outline - corner], (width, height), 0.0)
    reach = _PALM * float(np.ptp(outline[:, 0]))
    covers = _painted([points - corner for hand in hands for points in _flesh(hand)],
                      (width, height), reach)
    return float((face & covers).sum() / max(face.sum(), 1))


def _flesh(hand: Hand) -> list[np.ndarray]:
    """The palm and the five fingers of a hand as chains of points."""
    palm = hand.points[[0, 1, 5, 9, 13, 17]]
    return [palm, *(hand.points[start:start + 4] for start in (1, 5, 9, 13, 17))]


def _painted(shapes: Sequence[np.ndarray], size: tuple[int, int], reach: float) -> np.ndarray:
    """Where shapes lie, their lines drawn `reach` pixels to each side: (height, width) bool."""
    picture = Image.new("1", (int(size[0]), int(size[1])))
    draw = ImageDraw.Draw(picture)
    for shape in shapes:
        points = [(float(x), float(y)) for x, y in shape]
        draw.polygon(points, fill=1)
        if reach:
            draw.line(points, fill=1, width=max(round(2 * reach), 1), joint="curve")
    return np.asarray(picture)


def _middle(colours: np.ndarray, places: Sequence[int]) -> np.ndarray:
    return np.median(colours[list(places)], axis=0)


def _apart(a: np.ndarray, b: np.ndarray, shade: float) -> float:
    """CIELAB distance with the lightness weighed by `shade`."""
    return float(np.linalg.norm((a - b) * (shade, 1.0, 1.0)))


def _share(value: float) -> float:
    return float(np.clip(value, 0.0, 1.0))
