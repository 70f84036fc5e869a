"""Pictures to score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from likeness.nodes.media.images import read_photo, resize


@pytest.fixture(scope="session")
def pictures(assets: Path) -> dict[str, np.ndarray]:
    """Real photos by name, all 600 x 600: the subject, two others, two together, nobody."""
    read = {name: read_photo(assets / f"{name}.jpg")
            for name in ("obama", "obama3", "biden", "biden2", "astronaut")}
    read["two"] = np.concatenate([read["biden"], read["obama3"]], 1)
    square = {name: _square(pixels) for name, pixels in read.items()}
    square["nobody"] = np.full((600, 600, 3), 120, np.uint8)
    return square


def _square(pixels: np.ndarray) -> np.ndarray:
    """The top of the picture, 600 x 600, padded with grey where it is too small."""
    side = max(pixels.shape[1], pixels.shape[0] // 2)
    canvas = np.full((side, side, 3), 120, np.uint8)
    canvas[:pixels.shape[0], :pixels.shape[1]] = pixels[:side]
    return resize(canvas, 600, 600)
