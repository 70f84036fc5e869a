"""Face embeddings and their similarity, whichever recogniser is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import LikenessError
from ...media.images import reread_photo
from ...sockets import Face, Photo, Spread, Subject
from . import backends, dlib_resnet, insight, opencv_zoo


def embed(pixels: np.ndarray, face: Face, backend: str = "dlib") -> np.ndarray:
    """Embed one face of an (H, W, 3) uint8 RGB picture: (D,) float32, as the network gives it.

    Raises:
        MissingModelError: the recogniser's files are absent.
        LikenessError: unknown recogniser, or its own detector cannot find the face.
    """
    library = backends.backend(backend).library
    if library == "insightface":
        return insight.embed(pixels, face, backend)
    if library == "opencv":
        return opencv_zoo.embed(pixels, face, backend)
    return dlib_resnet.embed_chip(dlib_resnet.chip(pixels, face.landmarks))


def similarity(a: np.ndarray, b: np.ndarray, backend: str = "dlib") -> float:
    """How alike two embeddings are, higher is more: 1 - L2 distance for dlib, else the cosine."""
    if backends.backend(backend).metric == "l2":
        return 1.0 - float(np.linalg.norm(a - b))
    return float(np.dot(_unit(a), _unit(b)))


def centre(embeddings: Sequence[np.ndarray] | np.ndarray, backend: str = "dlib") -> np.ndarray:
    """The middle of several embeddings (N, D): their mean, of unit vectors where cosine counts.

    Raises:
        LikenessError: no embeddings.
    """
    rows = np.asarray(embeddings, np.float32)
    if not len(rows):
        raise LikenessError("There is no face embedding to average; keep at least one photo.")
    if backends.backend(backend).metric == "l2":
        return rows.mean(0)
    return _unit(np.stack([_unit(row) for row in rows]).mean(0))


def leave_one_out(embeddings: np.ndarray, backend: str = "dlib") -> Spread:
    """Compare each of at least two embeddings (N, D) with the centre of the others."""
    if len(embeddings) < 2:
        raise LikenessError("A spread needs at least two photos of the person; keep more photos.")
    return Spread(tuple(
        similarity(row, centre(np.delete(embeddings, index, axis=0), backend), backend)
        for index, row in enumerate(embeddings)))


def embed_photo(photo: Photo, backend: str = "dlib") -> np.ndarray:
    """Embed the known face of a photo file.

    Raises:
        LikenessError: the file is gone or unreadable, or the photo has no face.
    """
    if photo.face is None:
        raise LikenessError(f"`{photo.name}` has no face to compare; leave it out.")
    return embed(reread_photo(photo.file, photo.name), photo.face, backend)


def subject_embeddings(subject: Subject, backend: str = "dlib") -> np.ndarray:
    """The subject's embeddings (N, D) float32 in the order of `subject.photos`.

    Taken from the subject, or computed from the photo files for a recogniser it does not hold.
    """
    held = subject.embeddings.get(backend)
    if held is not None:
        return held
    return np.stack([embed_photo(photo, backend) for photo in subject.photos])


def _unit(row: np.ndarray) -> np.ndarray:
    return row / max(float(np.linalg.norm(row)), 1e-12)
