"""Whom the likeness bench trains, on which pictures, and by which photos it judges.

People of several photos train on some of them and are judged by the others. Of people in two
sittings the first one trains, with variations of it that are made here (crops, light, small turns
and expressions over the face mesh), and the second sitting judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from likeness.nodes.dataset.prepare.crop import choose_crop, cut
from likeness.nodes.faces import mesh
from likeness.nodes.faces.detect import find_face
from likeness.nodes.media.images import read_photo
from likeness.nodes.sockets import Photo
from PIL import Image
from warps import warp_to

VARIATIONS = 7  # of a single photo, beside itself
_SIDE = 512  # pixels of a variation
_TURN, _NOD = 9.0, 5.0  # degrees
_SMILE, _OPEN = 0.05, 0.03  # of the face's height
_MOUTH_CORNERS, _LOWER_LIP = (61, 291), (14, 17, 84, 314, 87, 317)


@dataclass(frozen=True)
class Person:
    """One person: who they are in prompts, what trains and what judges."""

    name: str
    noun: str
    trained: tuple[Path, ...]
    judged_by: tuple[Path, ...]
    varied: bool = False  # whether what trains is one photo and variations of it


def people(photos: Path, pairs: Path | None, folder: Path, nouns: dict[str, str]) -> list[Person]:
    """Everybody that there are pictures of.

    Args:
        photos: has obama*.jpg and biden*.jpg.
        pairs: has 0a.jpg, 0b.jpg and so on; None: only the people of `photos`.
        folder: where variations are written.
        nouns: man or woman by the number of a pair.
    """
    found = [Person("obama", "man", _there(photos, "obama.jpg", "obama1.jpg", "obama2.jpg"),
                    _there(photos, "obama3.jpg")),
             Person("biden", "man", _there(photos, "biden2.jpg"), _there(photos, "biden.jpg"))]
    if pairs is not None:
        found += [Person(f"pair {file.stem[:-1]}", nouns.get(file.stem[:-1], "person"), (file,),
                         (file.with_name(f"{file.stem[:-1]}b.jpg"),))
                  for file in sorted(pairs.glob("*a.jpg"))]
    return [person if len(person.trained) > 1 else _with_variations(person, folder)
            for person in found]


def _there(folder: Path, *names: str) -> tuple[Path, ...]:
    return tuple(folder / name for name in names if (folder / name).is_file())


def _with_variations(person: Person, folder: Path) -> Person:
    place = folder / person.name.replace(" ", "_")
    place.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(sum(person.name.encode()))
    files = []
    for number, pixels in enumerate(variations(read_photo(person.trained[0]), random)):
        files.append(place / f"{number}.png")
        Image.fromarray(pixels).save(files[-1])
    return Person(person.name, person.noun, tuple(files), person.judged_by, True)


def variations(pixels: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
    """A photo cut round the face, and variations of it: (512, 512, 3) uint8 each."""
    canvas, marks = _square(pixels, find_face(pixels))
    control = _control_points()
    made = [canvas]
    for number in range(VARIATIONS):
        moved = _posed(marks, random.uniform(-_TURN, _TURN), random.uniform(-_NOD, _NOD))
        moved = _expressed(moved, random.uniform(-0.4, 1) * _SMILE, random.uniform(0, 1) * _OPEN)
        seen = warp_to(canvas, marks[control, :2], moved[control, :2])
        made.append(_reframed(_lit(seen, random), random, mirrored=number % 2 == 1))
    return made


def near_identical(person: Person, folder: Path) -> Person:
    """As many photos as the person has, all nearly the first one: what a burst would give."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(sum(person.name.encode()) + 1)
    pixels = read_photo(person.trained[0])
    canvas, _ = _square(pixels, find_face(pixels))
    files = []
    for number in range(len(person.trained)):
        files.append(folder / f"{number}.png")
        Image.fromarray(_reframed(canvas, random, False, 0.1)).save(files[-1])
    return Person(person.name, person.noun, tuple(files), person.judged_by, True)


def _square(pixels: np.ndarray, face: Any) -> tuple[np.ndarray, np.ndarray]:
    """The region that Prepare would cut, and the landmarks (478, 3) in it."""
    photo = Photo(file=Path("x"), name="x", width=pixels.shape[1], height=pixels.shape[0],
                  face=face)
    crop = choose_crop(photo, "head and shoulders", [(_SIDE, _SIDE)])
    marks = np.column_stack([crop.place(face.landmarks[:, :2]),
                             face.landmarks[:, 2] * crop.enlargement])
    return cut(pixels, crop), marks


def _control_points() -> np.ndarray:
    chosen = {point for edge in mesh.CONTOURS for point in edge}
    return np.array(sorted(chosen | {1, 2, 4, 5, 6, 9, 50, 98, 151, 168, 195, 205, 280, 327, 425,
                                     mesh.LEFT_IRIS, mesh.RIGHT_IRIS}))


def _posed(marks: np.ndarray, turn: float, nod: float) -> np.ndarray:
    """Landmarks (478, 3) of the head turned and nodded by some degrees."""
    middle = marks[:468].mean(0)
    yaw, pitch = np.radians([turn, nod])
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)],
                        [0, np.sin(pitch), np.cos(pitch)]])
    return (marks - middle) @ (about_y @ about_x).T + middle


def _expressed(marks: np.ndarray, smile: float, opened: float) -> np.ndarray:
    height = np.ptp(marks[:468, 1])
    moved = marks.copy()
    for corner, away in zip(_MOUTH_CORNERS, (-1, 1), strict=True):
        moved[corner, :2] += np.array([away * 0.6, -1.0]) * smile * height
    moved[list(_LOWER_LIP), 1] += opened * height
    return moved


def _lit(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Light that falls off to one side, of a slightly other colour."""
    side = pixels.shape[0]
    along = np.linspace(-1, 1, side)[None, :, None] * random.choice([-1, 1])
    light = np.exp(random.uniform(0, 0.35) * along + random.normal(0, 0.06)
                   + random.normal(0, 0.03, 3))
    linear = (pixels / 255.0) ** 2.2 * light
    return np.uint8(np.rint(255 * np.clip(linear, 0, 1) ** (1 / 2.2)))


def _reframed(pixels: np.ndarray, random: np.random.Generator, mirrored: bool,
              far: float = 1.0) -> np.ndarray:
    """Turned, scaled and shifted a little, `far` as much as variations are."""
    side = pixels.shape[0]
    scale = 1 + far * random.uniform(-0.05, 0.15)
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), far * random.uniform(-5, 5), scale)
    matrix[:, 2] += far * random.uniform(-0.03, 0.03, 2) * side
    turned = cv2.warpAffine(pixels, matrix, (side, side), flags=cv2.INTER_CUBIC,
                            borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(turned[:, ::-1]) if mirrored else turned
