"""`run.py forget`: finds and removes everything that the pack has written of one person.

What belongs to a person is told by their name, which is a folder of its own and stands in every
trained file, and by the hashes of their photos, which the reports in that folder name.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..client.writing import write_whole
from ..console import say
from ..problems import Problem
from .batch import STATE, read_state

OURS = "comfyui-likeness"  # modelspec.implementation of what Train saves
UPLOADED = re.compile(r"likeness_[0-9a-f]{10}")  # folders that `queue` and `people` upload to
_HASH = re.compile(r"\b[0-9a-f]{64}\b")
_TRAINED = ("loras", "embeddings", "checkpoints", "diffusion_models")
_PAGES = ("curation-*.json", "coach-*.json")  # each with a picture of that name
_SET = "likeness.json"  # the record of a set that Save Photos wrote
_HEADER = 64_000_000  # bytes; what claims a longer header is no safetensors file
_LARGEST_PHOTO = 500_000_000  # bytes


@dataclass(frozen=True)
class Places:
    """A host's folders."""

    input: Path
    output: Path
    temp: tuple[Path, ...]  # more than one where servers were started in several ways
    models: Path

    @property
    def reports(self) -> Path:
        """Where the pack writes."""
        return self.output / "likeness"


@dataclass(frozen=True)
class Found:
    """What there is of a person."""

    hashes: frozenset[str]  # of their photos
    folders: tuple[Path, ...]
    files: tuple[Path, ...]
    own: tuple[Path, ...]  # the user's own copies of the photos, which stay


def find(name: str, places: Places) -> Found:
    """Look for everything of a person."""
    folder = places.reports / re.sub(r"[^\w.-]+", "_", name)  # as the Subject names it
    abouts = {path: _about(path) for path in _trained(places)}
    hashes = _hashes(folder).union(*(_photos(about) for about in abouts.values()
                                     if name in _names(about)))
    trained = [path for path, about in abouts.items()
               if name in _names(about) or _photos(about) & hashes]  # also under another name
    of_person = [path for path in _files(places.input) if hashes and _may_be_photo(path)
                 and _digest(path) in hashes]
    uploads = {places.input / path.relative_to(places.input).parts[0] for path in of_person
               if UPLOADED.fullmatch(path.relative_to(places.input).parts[0])}
    own = [path for path in of_person if not uploads & set(path.parents)]
    sets = [record.parent for record in places.reports.rglob(_SET)
            if folder not in record.parents and _hashes_of(record) & hashes]
    known = {str(path) for path in of_person}
    pages = [page for pattern in _PAGES for page in places.reports.glob(pattern)
             if _texts(page) & known or _hashes_of(page) & hashes]
    pictures = [page.with_suffix(".png") for page in pages if page.with_suffix(".png").is_file()]
    # Previews do not tell whose they are; ComfyUI empties this folder at every start.
    previews = [path for temp in places.temp for path in _files(temp)]
    folders = (path for path in (folder, *sorted(uploads), *sets) if path.is_dir())
    return Found(frozenset(hashes), tuple(folders), (*trained, *pages, *pictures, *previews),
                 tuple(own))


def remove(found: Found) -> None:
    """Remove what was found.

    Raises:
        Problem: something cannot be removed; everything else is.
    """
    left = []
    for path in (*found.files, *found.folders):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as err:
            left.append(f"{path} ({err.strerror})")
    if left:
        raise Problem(f"{len(left)} could not be removed: {', '.join(left[:3])}; close what holds "
                      "them and run this again.")


def traces(found: Found, places: Places) -> list[Path]:
    """Files that still are one of the photos, or name one by its hash; the user's own left out."""
    hashes = found.hashes
    rooms = (places.input, places.output, *places.temp,
             *(places.models / kind for kind in _TRAINED))
    return [path for room in rooms for path in _files(room) if path not in found.own
            and (_named_in(path) & hashes or _may_be_photo(path) and _digest(path) in hashes)]


def forget_results(name: str, out: Path) -> None:
    """Remove a person from the results of `run.py people` or from a folder of fetched ones."""
    entries = read_state(out)
    if entries.pop(name, None) is not None:
        plain = json.loads((out / STATE).read_text("utf-8"))
        write_whole(out / STATE, json.dumps({one: entry for one, entry in plain.items()
                                             if one != name}, indent=1).encode())
    if (out / name).is_dir():
        shutil.rmtree(out / name)


def run_forget(name: str, places: Places, out: Path | None, sure: bool) -> None:
    """Say what there is of a person and, where that is wanted, remove it.

    Raises:
        Problem: there is nothing, or something cannot be removed.
    """
    found = find(name, places)
    result = None if out is None or not (out / name).is_dir() else out / name
    removed = [*found.folders, *found.files, *([result] if result else [])]
    if not found.hashes and not found.folders and result is None:
        raise Problem(f"Nothing of `{name}` is in {places.reports}; give the name that the Subject "
                      "has, and the host with --comfyui.")
    for path in removed:
        say(f"  {path}")
    for path in found.own:
        say(f"  your own photo, which stays: {path}")
    if not sure:
        say(f"Nothing was removed; add --yes to remove these {len(removed)}.")
        return
    remove(found)
    if out is not None:
        forget_results(name, out)
    left = traces(found, places)
    if left:
        raise Problem(f"{len(left)} files still name a photo of `{name}`: "
                      f"{', '.join(map(str, left[:3]))}; look at them and remove them by hand.")
    say(f"Removed {len(removed)}; no file in the host's folders is one of the "
        f"{len(found.hashes)} photos or names one any more. Restart ComfyUI if it is running: its "
        "memory may hold pictures.")


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.rglob("*") if path.is_file())


def _may_be_photo(path: Path) -> bool:
    return path.stat().st_size <= _LARGEST_PHOTO


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _trained(places: Places) -> Iterator[Path]:
    for base in (places.output, places.models):
        for kind in _TRAINED:
            yield from (path for path in _files(base / kind) if path.suffix == ".safetensors"
                        and _about(path).get("modelspec.implementation") == OURS)


def _about(path: Path) -> dict[str, Any]:
    """A safetensors file's own words; empty where it has none."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) if size <= _HEADER else {}
    except (OSError, ValueError):
        return {}
    told = header.get("__metadata__") if isinstance(header, dict) else None
    return told if isinstance(told, dict) else {}


def _names(about: dict[str, Any]) -> set[str]:
    """The subjects that a trained file names."""
    try:
        return set(json.loads(about.get("ss_tag_frequency", "{}")))
    except ValueError:
        return set()


def _photos(about: dict[str, Any]) -> set[str]:
    return set(_HASH.findall(str(about.get("likeness.photos", ""))))


def _hashes(folder: Path) -> set[str]:
    """Every hash that the reports in a folder name."""
    return {digest for path in _files(folder) if path.suffix == ".json"
            for digest in _hashes_of(path)}


def _hashes_of(path: Path) -> set[str]:
    return set(_HASH.findall(path.read_text("utf-8", errors="replace")))


def _named_in(path: Path) -> set[str]:
    """Hashes in what a file says, where it says anything."""
    if path.suffix == ".safetensors":
        return set(_HASH.findall(json.dumps(_about(path))))
    return _hashes_of(path) if path.suffix in (".json", ".txt", ".toml", ".md") else set()


def _texts(page: Path) -> set[str]:
    """The photos' paths that a page of the curation or the coach names."""
    try:
        photos = json.loads(page.read_text("utf-8")).get("photos", ())
        return {str(photo.get("file")) for photo in photos}
    except (ValueError, AttributeError, TypeError):
        return set()
