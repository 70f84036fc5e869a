"""Results held by what a picture contains."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

Result = TypeVar("Result")


class Remembered(Generic[Result]):
    """The latest results of a function of pixels, least recently used ones forgotten first.

    Args:
        most: results held.
        most_bytes: what they may take together; the latest one is held whatever it takes.
        size_of: what one result takes, in bytes.
    """

    def __init__(self, most: int, most_bytes: int, size_of: Callable[[Result], int]) -> None:
        self._most, self._most_bytes, self._size_of = most, most_bytes, size_of
        self._bytes = 0
        self._held: OrderedDict[tuple[tuple[int, ...], str, bytes], Result] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, pixels: np.ndarray, make: Callable[[np.ndarray], Result]) -> Result:
        """The result for these pixels, made on first sight; errors are not remembered.

        SHA-256 of every byte: 1.8 ms for a megapixel, a sixth of the detection it may save.
        """
        pixels = np.ascontiguousarray(pixels)
        key = pixels.shape, pixels.dtype.str, hashlib.sha256(pixels).digest()
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        made = make(pixels)
        with self._lock:
            if key not in self._held:  # another thread may have been quicker
                self._held[key] = made
                self._bytes += self._size_of(made)
            while len(self._held) > 1 and (len(self._held) > self._most
                                           or self._bytes > self._most_bytes):
                self._bytes -= self._size_of(self._held.popitem(last=False)[1])
        return made

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._held.clear()
            self._bytes = 0
