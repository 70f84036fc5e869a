"""Photos of the same moment: the same shot but for crop, size, light, coding or a mirror."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...faces.turned import rotation_of
from ...quality.look import Seen
from ...quality.rules import Rules

_ROWS_PER_CHECK = 64  # between two looks whether the user has cancelled


def find_duplicates(seen: Sequence[Seen], ranked: Sequence[int], rules: Rules,
                    check: Callable[[], None] = lambda: None) -> dict[int, tuple[int, bool]]:
    """Find the photos that repeat one earlier in the ranking.

    Args:
        seen: one per photo, of the face that stands for it.
        ranked: places in `seen`, the best first; others are left alone.
        check: called now and then; may raise to cancel.

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
    # Those kept so far lie side by side at the top, so that no photo copies them.
    top_signs, top_mirrored = np.empty_like(signs), np.empty_like(mirrored)
    kept: list[int] = []
    repeats: dict[int, tuple[int, bool]] = {}
    for place, sign in enumerate(signs):
        if place % _ROWS_PER_CHECK == 0:
            check()
        count = len(kept)
        alike = _alike(top_signs[:count], sign, rules)
        reverse = _alike(top_mirrored[:count], sign, rules)
        near = np.flatnonzero(alike | reverse)
        if near.size:
            others = np.array(kept)[near]
            apart = np.linalg.norm(rows[others] - rows[place], axis=1)
            close = apart < rules.duplicate_distance
            plain = alike[near] & close & _same_pose(turns[others], turns[place], rules)
            flipped = (reverse[near] & close
                       & _same_pose(turns[others], turns[place] * (-1, 1), rules))
            twins = np.flatnonzero(plain | flipped)
            if twins.size:
                first = int(twins[0])
                repeats[ranked[place]] = ranked[others[first]], not plain[first]
                continue
        top_signs[count], top_mirrored[count] = sign, mirrored[place]
        kept.append(place)
    return repeats


def _mirror(seen: Seen) -> np.ndarray:
    """The mirror image's pattern; without one, a pattern that nothing is near to."""
    return seen.mirrored if seen.mirrored is not None else ~seen.pattern


def _turn(seen: Seen) -> tuple[float, float]:
    """Yaw and pitch in degrees, whichever way the picture is turned or tilted.

    Of the rotation taken as roll, pitch, yaw from the outside in (Z X Y): turning the picture then
    changes the roll alone.
    """
    if seen.face is None:
        return 0.0, 0.0
    x, y, z = rotation_of(seen.face.pose)[2]
    return float(np.degrees(np.arctan2(-x, z))), float(np.degrees(np.arcsin(np.clip(y, -1, 1))))


def _alike(signs: np.ndarray, one: np.ndarray, rules: Rules) -> np.ndarray:
    return (signs.shape[1] - signs @ one) / 2 <= rules.duplicate_bits


def _same_pose(turns: np.ndarray, one: np.ndarray, rules: Rules) -> np.ndarray:
    return (np.abs(turns - one) <= rules.duplicate_turn).all(1)
