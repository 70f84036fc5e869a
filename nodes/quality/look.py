"""What the pixels of one photo show; slow, and depending on the file alone."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..faces.detect import find_faces
from ..faces.recognise.dlib_resnet import chip
from ..faces.recognise.embed import embed
from ..media.images import read_picture
from ..sockets import Face
from .measures import face_width, measure, outside, sharpness
from .scene import describe

RECOGNISER = "dlib"  # curation's own; the distances in `Rules` are dlib's
MAX_FACES = 6  # that are measured in one photo
_SIZEABLE = 0.25  # of the largest face's width; smaller ones are passers-by
_IN_FOCUS = 0.25  # of the chosen face's sharpness, at the same size; blurred ones are passers-by
_CUT_OFF = 0.1  # share of the landmarks outside the picture
_KEPT_BYTES = 256 * 2 ** 20  # of measured photos; one takes about 20 kB


@dataclass(frozen=True, eq=False)
class Seen:
    """What the pixels of a photo show: of the largest face, and of the others that are sizeable."""

    face: Face | None
    measures: Mapping[str, float]
    embedding: np.ndarray | None = None  # (128,)
    pattern: np.ndarray | None = None  # (64,) bool, perceptual hash of the aligned face
    scene: np.ndarray | None = None  # (K,) what lies round the person
    mirrored: np.ndarray | None = None  # (64,) bool, the pattern of the photo's mirror image
    others: tuple[Seen, ...] = ()

    @property
    def faces(self) -> tuple[Seen, ...]:
        """One entry per sizeable face, largest first; none where the photo has no face."""
        return () if self.face is None else (replace(self, others=()), *self.others)


def look(file: Path, sha256: str) -> Seen:
    """Measure a photo file; kept by content, so that changing a rule costs nothing.

    Raises:
        OSError: the file cannot be read any more, or holds something else by now.
    """
    return _kept.get(sha256) or _kept.put(sha256, look_at(_read(file, sha256)))


def forget_photos() -> None:
    """Measure every photo anew from here on."""
    _kept.clear()


class _Kept:
    """What photos show by their content; the least recently asked for are forgotten first."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self._bytes = most_bytes, 0
        self._held: OrderedDict[str, Seen] = OrderedDict()
        self._lock = threading.Lock()  # curation looks at several photos at once

    def get(self, sha256: str) -> Seen | None:
        with self._lock:
            if sha256 in self._held:
                self._held.move_to_end(sha256)
            return self._held.get(sha256)

    def put(self, sha256: str, seen: Seen) -> Seen:
        with self._lock:
            if sha256 not in self._held:  # another thread may have been quicker
                self._held[sha256] = seen
                self._bytes += _size_of(seen)
            while self._bytes > self._most and len(self._held) > 1:
                self._bytes -= _size_of(self._held.popitem(last=False)[1])
        return seen

    def clear(self) -> None:
        with self._lock:
            self._held.clear()
            self._bytes = 0


_kept = _Kept(_KEPT_BYTES)


def _size_of(seen: Seen) -> int:
    """Bytes that a record takes, its arrays and about a hundred floats by name."""
    face = (seen.face.landmarks, seen.face.mesh) if seen.face else ()
    arrays = (*face, seen.embedding, seen.pattern, seen.scene, seen.mirrored)
    return 8192 + sum(array.nbytes for array in arrays if array is not None) \
        + sum(map(_size_of, seen.others))


def look_at(pixels: np.ndarray) -> Seen:
    """Measure the faces of an (H, W, 3) uint8 RGB picture."""
    faces = find_faces(pixels)
    if not faces:
        return Seen(None, {"faces": 0.0})
    widths = [face_width(face) for face in faces]
    sizeable = [place for place, width in enumerate(widths)
                if width >= _SIZEABLE * max(widths)][:MAX_FACES]
    first, *others = (_seen(pixels, faces, widths, place) for place in sizeable)
    return replace(first, others=tuple(others))


def _seen(pixels: np.ndarray, faces: list[Face], widths: list[float], place: int) -> Seen:
    """Measure one of the faces; `second_face` is how wide the widest other one is beside it.

    Of those that are whole and in focus: behind a person others walk by.
    """
    face = faces[place]
    rival = max((width for index, width in enumerate(widths) if index != place
                 and _rivals(pixels, face, faces[index], widths[place] / width)), default=0.0)
    measures = {"faces": float(len(faces)), "face_rank": float(place + 1),
                "second_face": rival / widths[place], **measure(pixels, face)}
    aligned = _aligned(pixels, face)
    return Seen(face, measures, embed(pixels, face, RECOGNISER), _pattern(aligned),
                describe(pixels, face), _pattern(aligned[:, ::-1]))


def _rivals(pixels: np.ndarray, face: Face, other: Face, wider: float) -> bool:
    """Whether another face, `wider` times narrower, draws the eye as this one does."""
    if outside(other, *pixels.shape[:2]) > _CUT_OFF:
        return False
    return (sharpness(pixels, other, 1 / wider)
            >= _IN_FOCUS * sharpness(pixels, face, wider))


def _read(file: Path, sha256: str) -> np.ndarray:
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise OSError("it was changed since it was loaded")
    return np.ascontiguousarray(np.asarray(read_picture(data)))


def face_pattern(pixels: np.ndarray, face: Face) -> np.ndarray:
    """64-bit perceptual hash of the aligned face with its surroundings: (64,) bool.

    Of the aligned face, because the hash of whole pictures does not survive a new crop.
    """
    return _pattern(_aligned(pixels, face))


def _aligned(pixels: np.ndarray, face: Face) -> np.ndarray:
    return chip(pixels, face.landmarks, size=192, padding=0.45)


def _pattern(aligned: np.ndarray) -> np.ndarray:
    import imagehash  # pulls in scipy and PyWavelets

    return imagehash.phash(Image.fromarray(np.ascontiguousarray(aligned))).hash.ravel()
