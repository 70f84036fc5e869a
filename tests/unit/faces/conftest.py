"""Photos with their faces, found once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from likeness.nodes.faces.detect import find_faces, forget_faces
from likeness.nodes.media.images import read_photo
from likeness.nodes.sockets import Face

Seen = tuple[np.ndarray, Face]


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    """Each test looks at its pictures itself."""
    forget_faces()


@pytest.fixture(scope="session")
def seen(assets: Path) -> Callable[[str], Seen]:
    """Read a sample photo and find its only face."""
    known: dict[str, Seen] = {}

    def look(name: str) -> Seen:
        if name not in known:
            pixels = read_photo(assets / f"{name}.jpg")
            (face,) = find_faces(pixels)
            known[name] = pixels, face
        return known[name]

    return look
