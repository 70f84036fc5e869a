"""Who is in a folder of people: one sub-folder each, with photos and what is special to them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from ..client.photos import list_photos
from ..problems import Problem

SETTINGS = "settings.txt"  # in a person's folder: lines such as Subject.class_noun=woman
BAD_NAME = re.compile(r"[\\/:*?\"<>|\x00-\x1f]|\.$")  # as the Subject node refuses it


@dataclass(frozen=True)
class Person:
    """One person of a batch."""

    name: str
    folder: Path
    photos: tuple[Path, ...]
    settings: tuple[str, ...]  # node.input=value, as --set takes it

    def key(self) -> str:
        """Changes with every photo's content and with the settings."""
        digest = hashlib.sha256(repr(self.settings).encode())
        for file in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            digest.update(file.relative_to(self.folder).as_posix().encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()[:16]


def list_people(folder: Path) -> list[Person]:
    """Everybody who has a sub-folder, by name; hidden folders are left out.

    Raises:
        Problem: there is nobody, somebody has no photos, or a name cannot be a subject's.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise Problem(f"The folder of people {folder} {what}; give a folder that holds one "
                      "sub-folder of photos for each person.")
    places = sorted(place for place in folder.iterdir()
                    if place.is_dir() and not place.name.startswith((".", "_")))
    if not places:
        raise Problem(f"There is no sub-folder in {folder}; make one for each person and put their "
                      "photos into it.")
    seen: dict[str, str] = {}
    for place in places:
        if BAD_NAME.search(place.name):
            raise Problem(f"`{place.name}` in {folder} cannot be a person's name; rename the "
                          "folder, without special characters and a dot at the end.")
        other = seen.setdefault(place.name.casefold(), place.name)
        if other != place.name:
            raise Problem(f"`{other}` and `{place.name}` in {folder} differ in upper and lower "
                          "case alone, which is one folder on some systems; rename one.")
    return [Person(place.name, place, tuple(list_photos(place)), _settings(place / SETTINGS))
            for place in places]


def _settings(file: Path) -> tuple[str, ...]:
    if not file.is_file():
        return ()
    try:
        lines = [line.strip() for line in file.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError as err:
        raise Problem(f"{file} is not a text file in UTF-8; save it anew.") from err
    return tuple(line for line in lines if line and not line.startswith("#"))
