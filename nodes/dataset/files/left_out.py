"""What lies among photos and is not read, named with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...media.photo_files import CAPTIONS, LABELS, natural_key
from .load import photos_below
from .side_files import MASK_FOLDER, side_files

_OTHERS = {"verdicts.txt", "likeness.json", "thumbs.db", "desktop.ini"}  # read, or no one's work
_RAW = {".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"}


def left_out(folder: Path, photos: Sequence[Path], side: bool) -> dict[str, str]:
    """The files and sub-folders of a photo folder that are not read: why, by path from the folder.

    Args:
        photos: the files that are read.
        side: whether captions and masks are.
    """
    read = {*photos, *side_files(photos)}
    places = dict.fromkeys([folder, *(photo.parent for photo in photos)])
    found = {}
    for place in places:
        for path in _files(place):
            why = _reason(path, side)
            if path not in read and why:
                found[path.relative_to(folder).as_posix()] = why
        if side and (place / MASK_FOLDER).is_dir():
            found |= {path.relative_to(folder).as_posix(): "It is the mask of no photo here."
                      for path in _files(place / MASK_FOLDER) if path not in read}
    known = {place.relative_to(folder).as_posix() for place in places}
    for name, count in photos_below(folder).items():
        if name not in known and Path(name).name != MASK_FOLDER:
            found[name] = f"Photos in this sub-folder are not read: {count}."
    return found


def _files(place: Path) -> Iterator[Path]:
    for path in sorted(place.iterdir(), key=lambda path: natural_key(path.name)):
        if path.is_file() and path.name[0] != "." and path.name.lower() not in _OTHERS:
            yield path


def _reason(path: Path, side: bool) -> str:
    suffix = path.suffix.lower()
    if path.stem.endswith(LABELS[1]):
        return "It is a conditioning picture, which is not used."
    if path.stem.endswith(LABELS[0]):
        return "It is the mask of no photo here." if side else ""
    if suffix in CAPTIONS:
        return "It is the caption of no photo here." if side else ""
    if suffix in _RAW:
        return "It is a camera's raw file; export it as JPEG."
    return "It is no photo."
