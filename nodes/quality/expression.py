"""What a face does, by name, from MediaPipe's blendshapes and the shape of its mouth.

One source for what a set shows, what a caption says, and how far a face may lie from itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..sockets import Face

EXPRESSIONS = ("neutral", "serious", "smile", "laugh", "talking", "scowl", "pout")
# Of 535 portraits; smiles are those that MediaPipe gives more than 0.45.
_SMILE = 0.45
_TEETH, _PARTED = 0.25, 0.1  # upper lip raised, or jaw lowered: teeth show
_OPEN = 0.25  # jaw; 99 of 100 portraits have up to 0.31
_GAP = 0.2  # of the lips, over the eyes' distance; smiles have up to 0.29, 95 of 100 0.11
_WIDE = 0.65  # mouth over the eyes' distance: open smiles have 0.68 and more, other mouths to 0.62
_BROWS = 0.65  # calm faces have a median of 0.45; with a smile lowered brows mean nothing
_KNIT = 0.87  # 117 portraits without a smile have up to 0.86
_FROWN, _PRESS, _SHRUG = 0.14, 0.7, 0.55  # these portraits have up to 0.13, 0.67 and 0.52
_PUCKER = 0.45  # portraits have up to 0.42, twice their funnel up to 0.26
_EYES_SHUT = 0.6  # mean of both eyes
_MOUTH_CORNERS, _INNER_LIPS, _OUTER_CORNERS = (61, 291), (13, 14), (33, 263)  # landmarks


@dataclass(frozen=True)
class Shapes:
    """The blendshapes that expressions are told by, 0..1 (means of both sides)."""

    smile: float
    teeth: float  # raised upper lip
    jaw: float  # opened
    brows: float  # lowered
    pucker: float  # lips pushed forward


def shapes_of(face: Face) -> Shapes:
    """What the mouth and the brows do; a mouth that is open but not wide does not smile."""
    smile = _both(face, "mouthSmile")
    if smile > _SMILE and _is_open(face) and _across(face, _MOUTH_CORNERS) < _WIDE:
        smile = 0.0  # a tongue put out or a shout lifts the corners, too
    return Shapes(smile, _both(face, "mouthUpperUp"), _one(face, "jawOpen"),
                  _both(face, "browDown"), max(_one(face, "mouthPucker"),
                                               2 * _one(face, "mouthFunnel")))


def expression_of(face: Face) -> str:
    """One of `EXPRESSIONS`."""
    shapes = shapes_of(face)
    if shapes.smile > _SMILE:
        return "laugh" if shapes.teeth > _TEETH or shapes.jaw > _PARTED else "smile"
    if shapes.pucker > _PUCKER:
        return "pout"
    if _is_open(face):
        return "talking"
    if shapes.brows > _KNIT or shapes.brows > _BROWS and _frowns(face):
        return "scowl"
    return "serious" if shapes.brows > _BROWS else "neutral"


def eyes_shut(face: Face) -> bool:
    """Whether both eyes are clearly shut, as a caption says it."""
    return _both(face, "eyeBlink") > _EYES_SHUT


def _frowns(face: Face) -> bool:
    return (_both(face, "mouthFrown") > _FROWN or _both(face, "mouthPress") > _PRESS
            or _one(face, "mouthShrugLower") > _SHRUG)


def _is_open(face: Face) -> bool:
    return _one(face, "jawOpen") > _OPEN or _across(face, _INNER_LIPS) > _GAP


def _across(face: Face, ends: tuple[int, int]) -> float:
    """The distance of two landmarks over that of the outer corners of the eyes, pose removed."""
    def apart(a: int, b: int) -> float:
        return float(np.linalg.norm(face.mesh[a] - face.mesh[b]))

    return apart(*ends) / max(apart(*_OUTER_CORNERS), 1e-6)


def _one(face: Face, name: str) -> float:
    return face.expression.get(name, 0.0)


def _both(face: Face, name: str) -> float:
    return (_one(face, f"{name}Left") + _one(face, f"{name}Right")) / 2
