"""Photo folders made from the sample photos at test time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from likeness.nodes.dataset.curate.curate import curate
from likeness.nodes.dataset.files.load import list_photos, read_photos, read_record
from likeness.nodes.media.images import read_photo
from likeness.nodes.quality.look import look
from likeness.nodes.quality.rules import Rules
from likeness.nodes.quality.scene import describe
from likeness.nodes.sockets import HeadPose, Photo, PhotoSet, Verdict
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
        turned(ImageOps.mirror(picture)).save(place / "good_turned.jpg", quality=95)
    return place


def turned(picture: Image.Image) -> Image.Image:
    """Look at a picture a little from the side and tilt it: like another shot of the person."""
    width, height = picture.size
    inset = 0.15 * height
    seen = picture.transform(picture.size, Image.Transform.QUAD,
                             (0, inset, 0, height - inset, width, height, width, 0),
                             Image.Resampling.BICUBIC)
    return seen.rotate(4, Image.Resampling.BICUBIC)


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


@pytest.fixture(scope="session")
def real(assets: Path) -> dict[str, Photo]:
    """The sample portraits as kept records, by file name."""
    names = ("obama.jpg", "obama3.jpg", "biden.jpg", "biden2.jpg", "astronaut.jpg")
    return {name: _kept(assets / name) for name in names}


def _kept(file: Path) -> Photo:
    record = read_record(file, file.name)
    seen = look(file, record.sha256)
    return replace(record, verdict=Verdict.KEEP, face=seen.face, measures=seen.measures,
                   embedding=seen.embedding, scene=describe(read_photo(file), seen.face))


@pytest.fixture
def posed(real: dict[str, Photo]) -> Callable[..., Photo]:
    """Makes records as if a portrait had been taken otherwise, with blendshapes by name."""
    def make(name: str, yaw: float = 0.0, pitch: float = 5.0, share: float = 0.3, side: float = 0.0,
             key: float = 0.6, warmth: float = 0.0, place: int = 0, sharpness: float = 200.0,
             face_width: float = 300.0, **shapes: float) -> Photo:
        photo = real["obama.jpg"]
        expression = {f"{shape}{end}": value for shape, value in shapes.items()
                      for end in ("", "Left", "Right")}
        face = replace(photo.face, pose=HeadPose(yaw, pitch, 0.0), expression=expression,
                       box=(0.0, 0.0, 200.0, share * photo.height))
        measures = {"light_side": side, "light_key": key, "light_contrast": 0.4,
                    "light_warmth": warmth, "light_top": 0.0, "sharpness": sharpness,
                    "face_width": face_width}
        scene = np.roll(photo.scene, 7 * place)
        return replace(photo, name=name, face=face, measures=measures, scene=scene)

    return make


@pytest.fixture
def different(posed: Callable[..., Photo]) -> list[Photo]:
    """Ten photos that lack nothing and differ in everything."""
    return [
        posed("0", share=0.5), posed("1", yaw=-35, side=-0.4, place=1, mouthSmile=0.6),
        posed("2", yaw=35, side=0.4, place=2, mouthSmile=0.9, mouthUpperUp=0.7),
        posed("3", yaw=5, warmth=0.5, place=3, share=0.14, jawOpen=0.4),
        posed("4", yaw=-55, key=0.5, place=4, share=0.25), posed("5", yaw=55, place=5, side=-0.4),
        posed("6", pitch=-22, place=6, warmth=-0.5, mouthSmile=0.6),
        posed("7", pitch=28, place=7, key=0.75), posed("8", yaw=-30, place=8, share=0.15,
                                                       mouthSmile=0.9, mouthUpperUp=0.7, side=0.3),
        posed("9", yaw=30, place=9, share=0.55, warmth=0.4, browDown=0.8),
    ]
