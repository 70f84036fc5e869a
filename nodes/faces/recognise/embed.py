"""Face embeddings and their similarity, whichever recogniser is asked for.

Of several that judge together the embeddings lie one behind the other, and the similarity is the
sum of theirs, each scaled by its strangers: with mean m and deviation d of strangers

    sum (s - m) / d  over  sum (1 - m) / d,

so that 0 is as alike as two strangers are and 1 the same picture. Sums of scores that were brought
to one scale beat either (Jain, Nandakumar and Ross 2005, doi 10.1016/j.patcog.2005.01.012).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import LikenessError
from ...media.images import reread_photo
from ...sockets import Face, Photo, Spread, Subject
from . import backends, dlib_resnet, insight, mobilefacenet, opencv_zoo


def embed(pixels: np.ndarray, face: Face, backend: str = "dlib") -> np.ndarray:
    """Embed one face of an (H, W, 3) uint8 RGB picture: (D,) float32, as the network gives it.

    Raises:
        MissingModelError: the recogniser's files are absent.
        LikenessError: unknown recogniser, or its own detector cannot find the face.
    """
    known = backends.backend(backend)
    if known.parts:
        return np.concatenate([embed(pixels, face, part.id) for part in known.parts])
    library = known.library
    if library == "insightface":
        return insight.embed(pixels, face, backend)
    if library == "opencv":
        return opencv_zoo.embed(pixels, face, backend)
    if library == "mobilefacenet":
        return mobilefacenet.embed(pixels, face)
    return dlib_resnet.embed_chip(dlib_resnet.chip(pixels, face.landmarks))


def similarity(a: np.ndarray, b: np.ndarray, backend: str = "dlib") -> float:
    """How alike two embeddings are, higher is more: 1 - L2 distance for dlib, else the cosine, or
    what several recognisers say together.
    """
    known = backends.backend(backend)
    if known.parts:
        rows = zip(known.parts, split_parts(a, backend), split_parts(b, backend), strict=True)
        return joint_similarity([similarity(one, other, part.id) for part, one, other in rows],
                                backend)
    if known.metric == "l2":
        return 1.0 - float(np.linalg.norm(a - b))
    return float(np.dot(_unit(a), _unit(b)))


def joint_similarity(alike: Sequence[float], backend: str) -> float:
    """What the similarities of the parts of a joint recogniser, in their order, come to."""
    parts = backends.backend(backend).parts
    found = sum((one - part.stranger_mean) / part.stranger_deviation
                for one, part in zip(alike, parts, strict=True))
    most = sum((1 - part.stranger_mean) / part.stranger_deviation for part in parts)
    return float(found / most)


def split_parts(rows: np.ndarray, backend: str) -> list[np.ndarray]:
    """The parts of embeddings (..., D), one per recogniser that judges under this name."""
    if not backends.backend(backend).parts:
        return [rows]
    sizes = [backends.backend(part).dimension for part in backends.parts_of(backend)]
    return np.split(rows, np.cumsum(sizes)[:-1], axis=-1)


def centre(embeddings: Sequence[np.ndarray] | np.ndarray, backend: str = "dlib") -> np.ndarray:
    """The middle of several embeddings (N, D): their mean, of unit vectors where cosine counts.

    Raises:
        LikenessError: no embeddings.
    """
    rows = np.asarray(embeddings, np.float32)
    if not len(rows):
        raise LikenessError("There is no face embedding to average; keep at least one photo.")
    known = backends.backend(backend)
    if known.parts:
        return np.concatenate([centre(own, part.id) for own, part
                               in zip(split_parts(rows, backend), known.parts, strict=True)])
    if known.metric == "l2":
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
    parts = backends.parts_of(backend)
    held = [subject.embeddings.get(part) for part in parts]
    if all(rows is not None for rows in held):
        return held[0] if len(held) == 1 else np.concatenate(held, axis=1)
    return np.stack([embed_photo(photo, backend) for photo in subject.photos])


def _unit(row: np.ndarray) -> np.ndarray:
    return row / max(float(np.linalg.norm(row)), 1e-12)
