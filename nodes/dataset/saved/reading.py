"""Reading a saved photo set: what it was when it was saved, and what was changed since."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import LikenessError
from ...files import on_disk
from ...media.photo_files import captions_of, natural_key, photos_in
from ...media.texts import read_text
from ...sockets import Photo, PhotoSet
from ..files.load import read_record
from ..files.record import from_entry
from .save import FORMAT, RECORD, REST_FOLDER


@dataclass(frozen=True, eq=False)
class LoadedSet:
    """Photos, and per photo name what the user should know about reading them."""

    photos: PhotoSet
    notes: Mapping[str, str] = field(default_factory=dict)


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by `save`."""
    return (folder / RECORD).is_file()


def set_files(folder: Path) -> list[Path]:
    """Every file that reading a saved set depends on."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read_saved(folder: Path, label: str, on_photo: Callable[[int], None]) -> LoadedSet:
    """Read a set back. A picture that changed since comes unjudged; captions follow their files.

    Args:
        label: the folder as the user named it.
        on_photo: called with the number of finished photos; may raise to cancel.

    Raises:
        LikenessError: the record is damaged or of a later format, or no picture is left.
    """
    record = _record(folder, label)
    photos: list[Photo] = []
    notes: dict[str, str] = {}
    known: set[Path] = set()
    for done, entry in enumerate(record["photos"], start=1):
        try:
            photo, note = _photo(folder, entry, known)
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise _damaged(label, f"photo {done}: {err!r}") from err
        if photo is not None:
            photos.append(photo)
        if note:
            notes[str(entry["name"])] = note
        on_photo(done)
    for path in _additions(folder, str(record["training_folder"]), known):
        photo = read_record(path, path.relative_to(folder).as_posix())
        photos.append(replace(photo, caption=_side_text(path) or ""))
        notes[photo.name] = "It was added since the set was saved and is not judged yet."
    if not photos:
        raise LikenessError(f"None of the pictures that {RECORD} in `{label}` names is there any "
                            "more; put them back or save the photos again.")
    return LoadedSet(PhotoSet(tuple(photos), label), notes)


def _record(folder: Path, label: str) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        form = record["format"]
        if not isinstance(record["photos"], list) or not record["training_folder"]:
            raise TypeError("no list of photos")
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise _damaged(label, str(err)) from err
    if form != FORMAT:
        raise LikenessError(f"`{label}` was saved in format {form}, this version reads {FORMAT}; "
                            "update Likeness or save the photos again.")
    return record


def _damaged(label: str, detail: str) -> LikenessError:
    return LikenessError(f"{RECORD} in `{label}` cannot be read ({detail}); put the file back, or "
                         "delete it to load the pictures without what was known of them.")


def _inside(folder: Path, relative: str) -> Path:
    path = on_disk(Path(os.path.abspath(folder / relative)))
    if Path(os.path.abspath(folder)) not in path.parents:
        raise ValueError(f"{relative} lies outside the set")
    return path


def _photo(folder: Path, entry: Mapping[str, Any],
           known: set[Path]) -> tuple[Photo | None, str]:
    """One photo of the record with a note; None when its picture is gone."""
    if entry["file"] is None:  # it could not be read when the set was saved
        return from_entry(entry, Path(entry["source"]["file"]), None), ""
    path = _inside(folder, entry["file"])
    known.add(path)
    if not path.is_file():
        return None, f"{path.name} is gone from the set and left out."
    mask = _mask(folder, entry["mask"])
    photo = from_entry(entry, path, mask)
    caption, note = _caption(path, photo)
    if photo.sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != photo.sha256:
        fresh = read_record(path, photo.name)
        note = "The picture changed since the set was saved, so it is not judged yet."
        return replace(fresh, caption=caption, mask=mask), note
    return replace(photo, caption=caption), note


def _mask(folder: Path, entry: Mapping[str, Any] | None) -> Path | None:
    """The user's own mask: one that was theirs when saved, or was painted over since."""
    if entry is None:
        return None
    path = _inside(folder, entry["file"])
    if not path.is_file():
        return None
    if entry["own"] or hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
        return path
    return None  # drawn from the face, which Prepare Training does anew


def _caption(path: Path, photo: Photo) -> tuple[str, str]:
    """The text file beside a picture, which people edit; else what was saved."""
    text = _side_text(path)
    if text is None or text.strip() == photo.caption.strip():
        return photo.caption, ""
    return text, "Its caption file was edited since the set was saved; the file holds."


def _side_text(path: Path) -> str | None:
    side = next(iter(captions_of(path)), None)
    return None if side is None else read_text(side).strip()


def _additions(folder: Path, training: str, known: set[Path]) -> list[Path]:
    found = [path for place in (training, REST_FOLDER) if (folder / place).is_dir()
             for path in photos_in(_inside(folder, place)) if path not in known]
    return sorted(found, key=lambda path: natural_key(path.stem))
