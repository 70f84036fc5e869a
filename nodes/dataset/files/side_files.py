"""Captions and masks that lie beside photos as kohya's tools lay them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ...sockets import Photo
from .load import EXTENSIONS, natural_key

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
    return [path for place in places
            for path in sorted((path for path in place.iterdir() if path.is_file()
                                and path.suffix.lower() in EXTENSIONS and path.name[0] != "."),
                               key=lambda path: (natural_key(path.stem), path.name))]


def side_files(photos: Iterable[Path]) -> list[Path]:
    """The caption and mask files that belong to photos."""
    found = []
    for path in photos:
        text, mask = path.with_suffix(".txt"), mask_of(path)
        found += [text] if text.is_file() else []
        found += [mask] if mask else []
    return found


def mask_of(path: Path) -> Path | None:
    """The mask of a photo: the same stem in `masks` beside it, or beside its kohya folder."""
    places = [path.parent / MASK_FOLDER]
    if _KOHYA.fullmatch(path.parent.name):
        places.append(path.parent.parent / MASK_FOLDER)
    candidates = (place / (path.stem + kind) for place in places for kind in _MASK_KINDS)
    return next((mask for mask in candidates if mask.is_file()), None)


def with_side_files(photo: Photo) -> tuple[Photo, str]:
    """A photo with the caption and mask that lie beside it, and a note on what is of no use."""
    note = ""
    side = photo.file.with_suffix(".txt")
    try:
        text = side.read_text(encoding="utf-8-sig").strip() if side.is_file() else ""
        if side.is_file() and not text:
            note = f"{side.name} is empty; the photo has no caption."
    except (OSError, UnicodeDecodeError) as err:
        text, note = "", f"{side.name} is no UTF-8 text and was left out ({err})."
    return replace(photo, caption=text, mask=mask_of(photo.file)), note
