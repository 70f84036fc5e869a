"""What the pixels of one photo show; slow, and depending on the file alone."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..faces.detect import find_faces
from ..faces.dlib_resnet import chip
from ..faces.embed import embed
from ..images import read_photo
from ..sockets import Face
from .measures import measure

RECOGNISER = "dlib"  # curation's own; the distances in `Rules` are dlib's


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


def face_pattern(pixels: np.ndarray, face: Face) -> np.ndarray:
    """64-bit perceptual hash of the aligned face with its surroundings: (64,) bool.

    Of the aligned face, because the hash of whole pictures does not survive a new crop.
    """
    import imagehash  # pulls in scipy and PyWavelets

    aligned = chip(pixels, face.landmarks, size=192, padding=0.45)
    return imagehash.phash(Image.fromarray(aligned)).hash.ravel()
