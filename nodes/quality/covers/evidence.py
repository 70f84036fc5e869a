"""How measures of a face together tell that it is covered: weights as data, a share as the answer.

Each measure is brought to 0..1 between two values beyond which it says no more; a logistic
regression weighs them. `launcher/makers/covers` fits the weights to covers drawn on portraits.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_FILE = Path(__file__).resolve().parent / "weights.json"


@dataclass(frozen=True)
class Weighing:
    """The weights of the measures that tell of one kind of cover."""

    base: float
    terms: Mapping[str, tuple[float, float, float]]  # from, to, weight

    def inputs(self, measures: Mapping[str, float]) -> np.ndarray:
        """Bring measures to 0..1: (K,) in the order of the terms."""
        return np.array([np.clip((measures[name] - low) / (high - low), 0.0, 1.0)
                         for name, (low, high, _) in self.terms.items()])

    def share(self, measures: Mapping[str, float]) -> float:
        """How likely the cover is, 0..1."""
        total = self.base + self.inputs(measures) @ [term[2] for term in self.terms.values()]
        return float(1 / (1 + np.exp(-total)))


@functools.cache
def weighing(kind: str) -> Weighing:
    """The weights for `eyes` or `mouth`."""
    held = json.loads(_FILE.read_text(encoding="utf-8"))[kind]
    return Weighing(held["base"], {name: tuple(term) for name, term in held["terms"].items()})


def middle(colours: np.ndarray, places: Sequence[int]) -> np.ndarray:
    """The middle colour (3,) at some landmarks."""
    return np.median(colours[list(places)], axis=0)


def apart(first: np.ndarray, second: np.ndarray, shade: float) -> float:
    """CIELAB distance with the lightness weighed by `shade`: shadows are not covers."""
    return float(np.linalg.norm((first - second) * (shade, 1.0, 1.0)))
