"""Photos of the same moment: the same shot but for crop, size, light, coding or a mirror."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..quality.look import Seen
from ..quality.rules import Rules
from ..sockets import Photo


def find_duplicates(seen: Sequence[Seen], ranked: Sequence[int],
                    rules: Rules) -> dict[int, tuple[int, bool]]:
    """Find the photos that repeat one earlier in the ranking.

    Args:
        seen: one per photo, of the face that stands for it.
        ranked: places in `seen`, the best first; others are left alone.

    Returns:
        By place of each repeat: the place of what it repeats, and whether it is its mirror image.
    """
    if not ranked or rules.duplicate_bits < 0:
        return {}
    # +1 and -1 per bit: the product of two rows then counts the bits that agree.
    signs = np.stack([seen[place].pattern for place in ranked]).astype(np.float32) * 2 - 1
    mirrored = np.stack([_mirror(seen[place]) for place in ranked]).astype(np.float32) * 2 - 1
    rows = np.stack([seen[place].embedding for place in ranked])
    turns = np.array([_turn(seen[place]) for place in ranked])
    kept: list[int] = []
    repeats: dict[int, tuple[int, bool]] = {}
    for place in range(len(ranked)):
        apart = np.linalg.norm(rows[kept] - rows[place], axis=1)
        plain = (_alike(signs[kept], signs[place], rules) & (apart < rules.duplicate_distance)
                 & _same_pose(turns[kept], turns[place], rules))
        flipped = (_alike(mirrored[kept], signs[place], rules) & (apart < rules.mirrored_distance)
                   & _same_pose(turns[kept], turns[place] * (-1, 1), rules))
        twins = np.flatnonzero(plain | flipped)
        if twins.size:
            first = int(twins[0])
            repeats[ranked[place]] = ranked[kept[first]], not plain[first]
        else:
            kept.append(place)
    return repeats


def quality(photo: Photo, seen: Seen) -> float:
    """Rank shots of one moment: a larger and sharper face, less compression, more of the scene."""
    measures = seen.measures
    sizes = (measures["face_width"], measures["sharpness"], photo.width * photo.height,
             measures.get("compression", 1.0))
    return float(np.log(np.maximum(sizes, 1.0)) @ (1.0, 0.25, 0.1, -0.2))


def _mirror(seen: Seen) -> np.ndarray:
    """The mirror image's pattern; without one, a pattern that nothing is near to."""
    return seen.mirrored if seen.mirrored is not None else ~seen.pattern


def _turn(seen: Seen) -> tuple[float, float]:
    """Yaw and pitch in degrees; roll differs between copies of one shot."""
    return (0.0, 0.0) if seen.face is None else (seen.face.pose.yaw, seen.face.pose.pitch)


def _alike(signs: np.ndarray, one: np.ndarray, rules: Rules) -> np.ndarray:
    return (signs.shape[1] - signs @ one) / 2 <= rules.duplicate_bits


def _same_pose(turns: np.ndarray, one: np.ndarray, rules: Rules) -> np.ndarray:
    return (np.abs(turns - one) <= rules.duplicate_turn).all(1)
