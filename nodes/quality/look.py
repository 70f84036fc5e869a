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

from ..faces.detect import find_faces, look_closer
from ..faces.recognise.backends import BOTH
from ..faces.recognise.dlib_resnet import chip
from ..faces.recognise.embed import embed
from ..faces.recognise.points import as_points
from ..media.views import PhotoPixels
from ..sockets import Face
from .measures import face_width, measure_near, outside, sharpness
from .near import DETAIL, FEATURES, LANDMARKS, Near, in_photo, near, within
from .scene import describe

RECOGNISER = BOTH  # curation's own; the distances in `Rules` are between its points
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
    embedding: np.ndarray | None = None  # (D,) point of `RECOGNISER`, see `faces.recognise.points`
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
    return _kept.get(sha256) or _kept.put(sha256, _look(_read(file, sha256)))


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
    return _look(PhotoPixels(pixels))


def _look(photo: PhotoPixels) -> Seen:
    faces = [in_photo(photo.whole, face) for face in find_faces(photo.whole.pixels)]
    if not faces:
        return Seen(None, {"faces": 0.0})
    widths = [face_width(face) for face in faces]
    sizeable = [place for place, width in enumerate(widths)
                if width >= _SIZEABLE * max(widths)][:MAX_FACES]
    for place in sizeable:
        faces[place] = _closely(photo, faces[place])
        widths[place] = face_width(faces[place])
    first, *others = (_seen(photo, faces, widths, place) for place in sizeable)
    return replace(first, others=tuple(others))


def _closely(photo: PhotoPixels, face: Face) -> Face:
    """The same face, its landmarks taken from the photo's own pixels where the whole shows few."""
    if photo.whole.shrunk == 1 or max(face.size) >= LANDMARKS.least * photo.whole.shrunk:
        return face
    around = near(photo, face, LANDMARKS)
    return in_photo(around.view, look_closer(around.face, around.pixels))


def _seen(photo: PhotoPixels, faces: list[Face], widths: list[float], place: int) -> Seen:
    """Measure one of the faces; `second_face` is how wide the widest other one is beside it.

    Of those that are whole and in focus: behind a person others walk by.
    """
    face = faces[place]
    detail, features = near(photo, face, DETAIL), near(photo, face, FEATURES)
    rival = max((width for index, width in enumerate(widths) if index != place
                 and _rivals(photo, detail, faces[index], widths[place] / width)), default=0.0)
    measures = {"faces": float(len(faces)), "face_rank": float(place + 1),
                "second_face": rival / widths[place],
                **measure_near(face, photo.height, photo.width, detail, features,
                               photo.whole.pixels)}
    aligned = _aligned(features.pixels, features.face)
    embedding = as_points(embed(features.pixels, features.face, RECOGNISER), RECOGNISER)
    return Seen(face, measures, embedding, _pattern(aligned),
                describe(photo.whole.pixels, within(photo.whole, face)),
                _pattern(aligned[:, ::-1]))


def _rivals(photo: PhotoPixels, chosen: Near, face: Face, wider: float) -> bool:
    """Whether another face, `wider` times narrower, draws the eye as the chosen one does."""
    if outside(face, photo.height, photo.width) > _CUT_OFF:
        return False
    other = near(photo, face, DETAIL)
    return (sharpness(other, 1 / wider / other.view.shrunk)
            >= _IN_FOCUS * sharpness(chosen, wider / chosen.view.shrunk))


def _read(file: Path, sha256: str) -> PhotoPixels:
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise OSError("it was changed since it was loaded")
    return PhotoPixels(data)


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
