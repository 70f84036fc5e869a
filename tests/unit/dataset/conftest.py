"""Photo folders made from the sample photos at test time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from likeness.nodes.dataset.curate import curate
from likeness.nodes.dataset.load import list_photos, read_photos
from likeness.nodes.quality.rules import Rules
from likeness.nodes.sockets import Photo, PhotoSet
from PIL import Image, ImageOps

Judge = Callable[..., dict[str, Photo]]


@pytest.fixture(scope="session")
def load_folder() -> Callable[[Path], PhotoSet]:
    """Load a folder as the node does."""
    def load(folder: Path) -> PhotoSet:
        files = list_photos(folder, folder.name)
        return read_photos(files, [file.name for file in files], folder.name, lambda done: None)

    return load


@pytest.fixture
def portrait(assets: Path) -> Image.Image:
    with Image.open(assets / "obama.jpg") as picture:
        return picture.convert("RGB")


@pytest.fixture
def folder(assets: Path, tmp_path: Path) -> Path:
    """Three good photos of one person; a test adds the one it is about."""
    place = tmp_path / "photos"
    place.mkdir()
    for name in ("obama", "obama3"):
        (place / f"good_{name}.jpg").write_bytes((assets / f"{name}.jpg").read_bytes())
    with Image.open(assets / "obama3.jpg") as picture:
        ImageOps.mirror(picture).save(place / "good_mirrored.jpg", quality=95)
    return place


@pytest.fixture
def judge(folder: Path, load_folder: Callable[[Path], PhotoSet]) -> Judge:
    """Curate the folder; the good photos must come out as kept whatever the added one does."""
    def run(spoils_good: tuple[str, ...] = (), **rules: object) -> dict[str, Photo]:
        judged = curate(load_folder(folder), Rules(**rules), lambda done: None)
        photos = {photo.name: photo for photo in judged.photos}
        for name, photo in photos.items():
            if name.startswith("good_") and name not in spoils_good:
                assert photo.verdict == "keep", (name, photo.reasons)
        return photos

    return run
