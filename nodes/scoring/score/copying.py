"""Copy-paste: does a picture show the person, or one of the photos that it was made from?

A score that only rewards nearness is best for a copy. Three signs tell copies apart from likeness:
the formula of MultiID-Bench, being nearer to one reference than the real photos are to each other,
and showing the same pixels round the face.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...faces.recognise.copying import copy_paste
from ...faces.recognise.embed import similarity
from ...media.images import read_photo
from ...quality.look import face_pattern
from ...quality.rules import Rules
from ...sockets import Face, Photo
from ..calibration.calibration import PRIOR_PHOTOS, robust_sigma
from .score import Score, Yardstick

CHANCE = 0.01  # of real photos that may be taken for copies by their nearness alone
SAME_PICTURE = Rules().duplicate_bits  # of 64, as curation tells repeats of a shot


@dataclass(frozen=True)
class Copying:
    """How near one picture is to the photos it may have been made from."""

    nearest: str  # name of the most alike reference photo
    similarity: float  # to it
    copy_paste: float | None  # MultiID-Bench; > 0: nearer to the reference than to other real
    # photos; None: no photo was held out
    gap: float | None  # similarity to the nearest reference minus that to the nearest held-out
    closer_than_real: bool  # nearer to a reference than real photos come to each other
    pixel_bits: int | None  # differing bits of 64 to the most alike face; None: not to be read
    pixel_photo: str  # which photo that is; empty: none

    @property
    def same_picture(self) -> bool:
        """Whether the pixels round the face are those of a reference photo."""
        return self.pixel_bits is not None and self.pixel_bits <= SAME_PICTURE

    @property
    def copied(self) -> bool:
        """Whether this is a copy rather than a likeness."""
        return self.same_picture or self.closer_than_real

    @property
    def text(self) -> str:
        """One sentence; empty when nothing was copied."""
        if self.same_picture:
            return f"Shows the pixels of `{self.pixel_photo}`."
        if self.closer_than_real:
            return f"Is closer to `{self.nearest}` than the real photos are to each other."
        return ""


@dataclass(frozen=True, eq=False)
class Originals:
    """What a subject's reference photos look like, measured once for a batch."""

    measure: Yardstick
    closest: float | None  # the highest similarity of two real photos; None: there is one photo
    limit: float | None  # what another real photo would hardly reach; None: too few photos
    patterns: tuple[tuple[str, np.ndarray], ...]  # name, (64,) bool
    unread: tuple[str, ...]  # references whose file is gone or damaged


def originals(measure: Yardstick) -> Originals:
    """Look at the subject's photos; a file that cannot be read any more is listed, not an error."""
    rows = measure.photos
    closest = [similarity(rows[i], rows[j], measure.backend)
               for i in range(len(rows)) for j in range(i)]
    patterns, unread = [], []
    for photo in measure.subject.references:
        pattern = _pattern_of(photo)
        if pattern is None:
            unread.append(photo.name)
        else:
            patterns.append((photo.name, pattern))
    return Originals(measure, max(closest, default=None), closest_limit(closest, measure),
                     tuple(patterns), tuple(unread))


def closest_limit(pairs: Sequence[float], measure: Yardstick) -> float | None:
    """The similarity to a reference above which a picture is nearer than real photos come.

    The highest of a few pairs is beaten by the next real photo too often (by every second one
    where there are three), so the limit is at least what the nearest of the n references would be
    to 1 in 100 of them: for each reference the share CHANCE / n (Bonferroni) by Student's t, with
    the robust deviation of the pairs and the subject's own sigma as that of three photos more.

    Args:
        pairs: similarities of each two real photos.
    """
    from scipy.special import stdtrit  # heavy

    sigma, count = measure.calibration.sigma, len(measure.photos)
    if sigma is None or not pairs:
        return None
    freedom = count - 1 + PRIOR_PHOTOS
    variance = ((count - 1) * robust_sigma(pairs) ** 2 + PRIOR_PHOTOS * sigma ** 2) / freedom
    reach = float(stdtrit(freedom, 1 - CHANCE / count)) * math.sqrt((1 + 1 / count) * variance)
    return max(max(pairs), float(np.median(pairs)) + reach)


def copying(pixels: np.ndarray, score: Score, known: Originals) -> Copying | None:
    """Compare a scored picture with the reference photos; None without a score."""
    if score.embedding is None or score.face is None:
        return None
    measure = known.measure
    count = len(measure.subject.references)
    if not count:
        return None
    alike = [similarity(score.embedding, row, measure.backend) for row in measure.photos]
    nearest = int(np.argmax(alike[:count]))
    bits, photo = _nearest_pattern(pixels, score.face, known)
    held_out = alike[count:]
    return Copying(
        measure.subject.references[nearest].name, alike[nearest],
        copy_paste(score.embedding, measure.photos[count:], measure.photos[nearest],
                   measure.backend) if held_out else None,
        alike[nearest] - max(held_out) if held_out else None,
        known.limit is not None and alike[nearest] > known.limit, bits, photo)


def _nearest_pattern(pixels: np.ndarray, face: Face, known: Originals) -> tuple[int | None, str]:
    if not known.patterns:
        return None, ""
    own = face_pattern(pixels, face)
    bits = [(int(np.count_nonzero(own != pattern)), name) for name, pattern in known.patterns]
    return min(bits)


def _pattern_of(photo: Photo) -> np.ndarray | None:
    if photo.face is None or not photo.file.is_file():
        return None
    stat = photo.file.stat()
    return _read_pattern(photo.file, photo.face, (stat.st_size, stat.st_mtime_ns))


@functools.lru_cache(maxsize=512)
def _read_pattern(file: Path, face: Face, version: tuple[int, int]) -> np.ndarray | None:
    try:
        return face_pattern(read_photo(file), face)
    except OSError:
        return None
