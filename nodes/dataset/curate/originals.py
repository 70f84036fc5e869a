"""Which of the copies of a shot is the original: the one that edits took least from."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...faces.turned import rotation_of
from ...media.decoding import DAMAGED, opened
from ...quality.compression import LARGEST
from ...quality.look import Seen
from ...sockets import Photo

# Weights were fitted to pairs of an original and a copy of it: 30 portraits and 45 edits of each
# (saved again, scaled, cut, framed, sharpened, softened, filtered), in units of log odds.
_USUAL: Mapping[str, tuple[float, float, float]] = {
    # What originals measure (mean and spread of those 30), and the weight of being unlike them.
    "skin_chroma": (28.0, 7.0, 0.22), "skin_hue": (0.8, 0.16, 0.32),
    "chroma_spread": (9.0, 1.8, 0.25), "deepest": (11.0, 8.0, 0.12),
    "lightest": (80.0, 7.0, 0.14), "detail_fine": (0.1, 0.2, 0.2),
    "detail_middle": (-0.25, 0.08, 0.2), "detail_level": (2.35, 0.2, 0.2)}
_MOST_UNLIKE = 3.0  # spreads; further off says nothing more
# Sharpening lifts the middle and coarse octaves, softening takes the fine ones.
_WEIGHTS: Mapping[str, float] = {
    "detail_fine": 2.5, "detail_middle": -8.0, "detail_coarse": -2.0, "framed": -2.0}
_UNEVEN = 1.3  # of `detail_uneven`; originals have 1.1 +- 0.2, smoothed copies 1.7 to 2
_NO_GRID = 0.3  # of `compression`: less is no grid of blocks
_STEP = 0.9  # for each doubling of JPEG's quantisation
_SAME_PLACE = 0.03  # of the face's width; landmarks of the same pixels lie no further apart
_CAMERA = 2.0  # for a file that names its camera: messengers, screenshots and many editors do not
_MAKE, _MODEL = 0x010F, 0x0110  # Exif tags (CIPA DC-008)


def original_of(places: Sequence[int], photos: Sequence[Photo], seen: Sequence[Seen]) -> int:
    """The place of the original among copies of one shot; a tie goes to the first.

    Traces of JPEG count only between copies of which each pixel lies at the same place: scaling,
    cutting and turning take them away, so that such a copy would pass for one that was never
    compressed.
    """
    score = {place: originality(photos[place], seen[place]) for place in places}
    best: list[int] = []
    for place in sorted(places, key=lambda place: (
            _STEP * seen[place].measures.get("jpeg_step", 0.0) - score[place], place)):
        if not any(_same_grid(photos, seen, place, other) for other in best):
            best.append(place)
    return min(best, key=lambda place: (-score[place], place))


def _same_grid(photos: Sequence[Photo], seen: Sequence[Seen], one: int, other: int) -> bool:
    if ((photos[one].width, photos[one].height) != (photos[other].width, photos[other].height)
            or seen[one].face is None or seen[other].face is None):
        return False
    apart = np.abs(seen[one].face.landmarks[:, :2] - seen[other].face.landmarks[:, :2]).mean()
    return float(apart) < _SAME_PLACE * seen[one].measures["face_width"]


def originality(photo: Photo, seen: Seen) -> float:
    """How likely a photo is to be the original among copies of one shot, in log odds.

    Of the pixels count the detail that the face truly has, blocks, colour, tones, and how much of
    the scene there is; of the file whether it names a camera. See `original_of` for JPEG.
    """
    measures = seen.measures
    score = _size(measures) + _file(photo)
    score += sum(weight * measures.get(name, 0.0) for name, weight in _WEIGHTS.items())
    for name, (mean, spread, weight) in _USUAL.items():
        off = min(abs(measures.get(name, mean) - mean) / spread, _MOST_UNLIKE)
        score -= weight * off ** 2
    score -= 4.0 * max(measures.get("detail_uneven", 0.0) - _UNEVEN, 0.0)
    score -= 0.8 * max(measures.get("compression", 0.0) - _NO_GRID, 0.0)
    score -= 0.6 * np.log(measures.get("lost_channels", 0.0) + 0.02)
    score -= 2 * sum(measures.get(name, 0.0) for name in ("clipped_bright", "clipped_dark"))
    return float(score - _tilt(seen) / 30 - 10 * measures.get("outside", 0.0))


def _size(measures: Mapping[str, float]) -> float:
    """The face's own pixels, and how much there is round it."""
    width = max(measures["face_width"], 1.0)
    shown = measures.get("photo_side", width) / width * np.sqrt(measures.get("content", 1.0))
    return float(1.6 * np.log(min(width, LARGEST)) + 0.4 * np.log(width)
                 - 3.3 * np.log(measures.get("enlargement", 1.0)) + 3 * np.log(max(shown, 0.1)))


def _file(photo: Photo) -> float:
    return _CAMERA if names_camera(photo.file, photo.sha256) else 0.0


@functools.lru_cache(maxsize=20_000)
def names_camera(file: Path, sha256: str) -> bool:
    """Whether a file's Exif data name the camera; False where the file cannot be read."""
    try:
        with opened(file) as picture:
            exif = picture.getexif()
    except DAMAGED:
        return False
    return bool(exif.get(_MAKE) or exif.get(_MODEL))


def _tilt(seen: Seen) -> float:
    """Degrees from the nearest quarter turn; whole ones cost a picture nothing."""
    if seen.face is None:
        return 0.0
    x, y, _ = rotation_of(seen.face.pose)[:, 1]
    roll = float(np.degrees(np.arctan2(-x, y)))
    return abs(roll - 90 * round(roll / 90))
