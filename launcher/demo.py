"""`run.py demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .host import Host


@dataclass(frozen=True)
class DemoRequest:
    """What the user asked for."""

    checkpoint: str | None  # None: the small one with random weights
    photos: Path | None  # None: the sample photos
    json: Path | None


def run_demo(request: DemoRequest, host: Host) -> None:
    """Run it."""
