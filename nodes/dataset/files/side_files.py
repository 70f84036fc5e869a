"""Captions and masks that lie beside photos as kohya's tools and OneTrainer lay them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ...errors import LikenessError
from ...files import on_disk
from ...media.photo_files import LABELS, captions_of, natural_key, photos_in
from ...media.texts import read_text
from ...sockets import Photo

MASK_FOLDER = "masks"
_KOHYA = re.compile(r"\d+_.+")  # <repeats>_<words>
_MASK_KINDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def kohya_photos(folder: Path) -> list[Path]:
    """The photos in a training folder's `<repeats>_<words>` folders; empty when it is none."""
    if not folder.is_dir():
        return []
    places = sorted((place for place in folder.iterdir()
                     if place.is_dir() and _KOHYA.fullmatch(place.name)),
                    key=lambda place: natural_key(place.name))
    return [path for place in places for path in photos_in(place)]


def side_files(photos: Iterable[Path]) -> list[Path]:
    """The caption and mask files that belong to photos."""
    found = []
    for path in photos:
        mask = mask_of(path)
        found += [*captions_of(path), *([mask] if mask else [])]
    return found


def mask_of(path: Path) -> Path | None:
    """The mask of a photo: the same stem in `masks`, or OneTrainer's with `-masklabel` behind it.

    `masks` lies beside the photo, or beside its kohya folder.
    """
    places = [path.parent / MASK_FOLDER]
    if _KOHYA.fullmatch(path.parent.name):
        places.append(path.parent.parent / MASK_FOLDER)
    stems = [*(place / path.stem for place in places), path.with_name(path.stem + LABELS[0])]
    candidates = (on_disk(stem.with_name(stem.name + kind)) for stem in stems
                  for kind in _MASK_KINDS)
    return next((mask for mask in candidates if mask.is_file()), None)


def with_side_files(photo: Photo) -> tuple[Photo, str]:
    """A photo with the caption and mask that lie beside it, and a note on what is of no use."""
    text, notes, captions = "", [], captions_of(photo.file)
    for side in captions[:1]:
        try:
            text = read_text(side).strip()
            notes += [] if text else [f"{side.name} is empty; the photo has no caption."]
        except LikenessError as err:
            notes.append(f"The caption was left out: {err}")
    notes += [f"{other.name} was left out, because {captions[0].name} is there, too."
              for other in captions[1:]]
    return replace(photo, caption=text, mask=mask_of(photo.file)), " ".join(notes)
