"""What the launcher prints: plain lines, and how long each step took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def say(line: str = "") -> None:
    """Print one line at once, also when the output is a file or a pipe."""
    print(line, flush=True)


def complain(line: str) -> None:
    """Print one line on the error stream."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step and say how long it took when it succeeds."""
    say(f"{title} ...")
    start = time.perf_counter()
    yield
    say(f"  done in {time.perf_counter() - start:.1f} s")
