"""What one photo shows: measures taken from its pixels, and the rules that judge them.

Taking the measures is slow and depends on the file alone; judging them is quick and pure.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import LikenessError
from ..faces.detect import crop_round, find_faces
from ..faces.dlib_resnet import chip
from ..faces.embed import embed
from ..faces.mesh import face_mask
from ..images import read_photo, resize
from ..sockets import Face, Reason, Verdict

RECOGNISER = "dlib"  # curation's own; the distances in `Rules` are dlib's
SEVERAL = ("reject", "unsure", "largest")
_DARK_LEVEL, _BRIGHT_LEVEL = 8, 247  # luma beyond which nothing is left to see
_SIDES = 234, 454  # landmarks where the oval meets the ears
_REJECT, _UNSURE = Verdict.REJECT, Verdict.UNSURE


@dataclass(frozen=True)
class Rules:
    """Limits of curation. Pairs are (unsure, reject).

    Measured on 268 official portraits of as many people and on photos of three people: the
    exposure limits lie outside of everything that the good ones show, whatever the skin tone.
    """

    min_face: int = 128  # pixels of width; reject below three quarters of it
    min_sharpness: float = 40.0  # reject: Gaussian blur of 2 px at 256 gives 7 to 54, median 17
    soft_sharpness: float = 100.0  # unsure: good portraits have 212 and more, small faces 110
    several_faces: str = "reject"  # what to do when another face is nearly as large
    second_face: float = 0.4  # its width as a share of the largest face's
    highlights: tuple[float, float] = (110.0, 85.0)  # 95th percentile of luma: good ones 138..250
    clipped: tuple[float, float] = (0.12, 0.3)  # share of burnt-out face: good ones to 0.07
    outside: tuple[float, float] = (0.02, 0.08)  # share of landmarks beyond the picture's edge
    turned: float = 55.0  # degrees of yaw; beyond, half of the landmarks are guessed
    duplicate_bits: int = 10  # of 64 in the face's pHash: re-crops 2 to 8, other shots 16 to 34
    duplicate_distance: float = 0.25  # of embeddings: re-crops 0.04 to 0.14, other shots from 0.27
    stranger: tuple[float, float] = (0.48, 0.55)  # to the others' centre: own photos 0.27 to
    # 0.49, the nearest of 268 other people 0.59
    majority: float = 1 / 3  # least share of the faces that must show the same person

    def __post_init__(self) -> None:
        if self.several_faces not in SEVERAL:
            raise LikenessError(f"`several_faces` must be one of {', '.join(SEVERAL)}, got "
                                f"`{self.several_faces}`.")
        if self.min_sharpness > self.soft_sharpness:
            raise LikenessError(f"`min_sharpness` ({self.min_sharpness:g}) must not be above "
                                f"`soft_sharpness` ({self.soft_sharpness:g}).")


@dataclass(frozen=True, eq=False)
class Seen:
    """What the pixels of a photo show."""

    face: Face | None
    measures: Mapping[str, float]
    embedding: np.ndarray | None = None  # (128,)
    pattern: np.ndarray | None = None  # (64,) bool, perceptual hash of the aligned face


@functools.lru_cache(maxsize=1024)
def look(file: Path, sha256: str) -> Seen:
    """Measure a photo file; kept by content, so that changing a rule costs nothing.

    Raises:
        OSError: the file cannot be read any more.
    """
    pixels = read_photo(file)
    faces = find_faces(pixels)
    if not faces:
        return Seen(None, {"faces": 0.0})
    face = faces[0]
    second = faces[1].size[0] / face.size[0] if len(faces) > 1 else 0.0
    return Seen(face, {"faces": float(len(faces)), "second_face": second,
                       **measure(pixels, face)},
                embed(pixels, face, RECOGNISER), face_pattern(pixels, face))


def measure(pixels: np.ndarray, face: Face) -> dict[str, float]:
    """Take the measures of a face: size, sharpness, light, completeness."""
    height, width = pixels.shape[:2]
    x, y = face.landmarks[:, 0], face.landmarks[:, 1]
    outside = (x < 0) | (y < 0) | (x > width) | (y > height)
    inner = luma(pixels[face_mask(face, height, width, grow=-0.1) > 0.5])
    return {
        "face_width": face_width(face),
        "face_share": face.size[0] * face.size[1] / (width * height),
        "sharpness": sharpness(pixels, face),
        "luma": float(inner.mean()) if inner.size else 0.0,
        "highlights": float(np.percentile(inner, 95)) if inner.size else 0.0,
        "clipped_dark": float((inner < _DARK_LEVEL).mean()) if inner.size else 1.0,
        "clipped_bright": float((inner > _BRIGHT_LEVEL).mean()) if inner.size else 0.0,
        "outside": float(outside.mean()),
    }


def face_width(face: Face) -> float:
    """Distance of the face's sides in pixels, in depth too: turning the head does not change it."""
    return float(np.linalg.norm(face.landmarks[_SIDES[0]] - face.landmarks[_SIDES[1]]))


def luma(pixels: np.ndarray) -> np.ndarray:
    """Rec. 601 luma (...) float32 of (..., 3) uint8 RGB."""
    return pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def sharpness(pixels: np.ndarray, face: Face) -> float:
    """Variance of the Laplacian on the face, cut 1.4 times as wide and scaled to 256 px.

    Scaling first makes photos of all sizes comparable (Pech-Pacheco et al. 2000 for the measure).
    """
    crop, _ = crop_round(pixels, face.box, margin=0.2)
    grey = luma(resize(crop, 256, 256))
    inner = grey[1:-1, 1:-1]
    laplacian = (grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner)
    return float(laplacian.var())


def face_pattern(pixels: np.ndarray, face: Face) -> np.ndarray:
    """64-bit perceptual hash of the aligned face with its surroundings: (64,) bool.

    Of the aligned face, because the hash of whole pictures does not survive a new crop.
    """
    import imagehash  # pulls in scipy and PyWavelets

    aligned = chip(pixels, face.landmarks, size=192, padding=0.45)
    return imagehash.phash(Image.fromarray(aligned)).hash.ravel()


def judge(seen: Seen, rules: Rules) -> tuple[Reason, ...]:
    """Say what is wrong with a photo on its own; an empty tuple means nothing is."""
    if seen.face is None:
        return (Reason("no_face", "No face can be found; use a photo that shows the face larger, "
                                  "upright and uncovered."),)
    found = (_several(seen.measures, rules), _too_small(seen.measures, rules),
             _outside(seen.measures, rules), _turned(seen.face, rules),
             _exposure(seen.measures, rules), _blurred(seen.measures, rules))
    return tuple(reason for reason in found if reason)


def _several(measures: Mapping[str, float], rules: Rules) -> Reason | None:
    if rules.several_faces == "largest" or measures["second_face"] < rules.second_face:
        return None
    return Reason("several_faces", f"{measures['faces']:.0f} faces, the second "
                  f"{measures['second_face']:.0%} as wide as the largest; crop the photo to one "
                  "person.", Verdict(rules.several_faces))


def _too_small(measures: Mapping[str, float], rules: Rules) -> Reason | None:
    width = measures["face_width"]
    if width >= rules.min_face:
        return None
    return Reason("too_small", f"The face is {width:.0f} pixels wide, {rules.min_face} are asked "
                  "for; come closer or use the original file.",
                  _REJECT if width < 0.75 * rules.min_face else _UNSURE)


def _outside(measures: Mapping[str, float], rules: Rules) -> Reason | None:
    unsure, reject = rules.outside
    if measures["outside"] <= unsure:
        return None
    return Reason("cut_off", f"{measures['outside']:.0%} of the face lies outside the picture; use "
                  "a photo that shows all of it.",
                  _REJECT if measures["outside"] > reject else _UNSURE)


def _turned(face: Face, rules: Rules) -> Reason | None:
    if abs(face.pose.yaw) <= rules.turned:
        return None
    return Reason("turned", f"The head is turned {abs(face.pose.yaw):.0f} degrees aside, so half "
                  "of the face is hidden.", _UNSURE)


def _exposure(measures: Mapping[str, float], rules: Rules) -> Reason | None:
    unsure, reject = rules.highlights
    if measures["highlights"] < unsure:
        much, verdict = (("too", _REJECT) if measures["highlights"] < reject
                         else ("rather", _UNSURE))
        return Reason("dark", f"The face is {much} dark (its brightest parts reach "
                      f"{measures['highlights']:.0f} of 255); use a photo with more light.",
                      verdict)
    unsure, reject = rules.clipped
    if measures["clipped_bright"] > unsure:
        return Reason("bright", f"{measures['clipped_bright']:.0%} of the face is burnt out to "
                      "white; use a photo with softer light.",
                      _REJECT if measures["clipped_bright"] > reject else _UNSURE)
    return None


def _blurred(measures: Mapping[str, float], rules: Rules) -> Reason | None:
    if measures["highlights"] < rules.highlights[1]:
        return None  # darkness takes the contrast that sharpness is measured by
    value = measures["sharpness"]
    if value >= rules.soft_sharpness:
        return None
    word = "blurred" if value < rules.min_sharpness else "soft"
    return Reason("blurred", f"The face is {word} (sharpness {value:.0f}, "
                  f"{rules.soft_sharpness:.0f} is asked for); use a sharper photo.",
                  _REJECT if value < rules.min_sharpness else _UNSURE)
