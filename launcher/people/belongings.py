"""Finds what the pack has written of a person, by their name and by the hashes of their photos.

The name is a folder of its own and stands in every trained file and in the workflow of every
picture; the hashes stand in trained files and in the reports of that folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .folders import BAD_NAME

OURS = "comfyui-likeness"  # modelspec.implementation of what Train saves
UPLOADED = re.compile(r"likeness_[0-9a-f]{10}")  # folders that `queue` and `people` upload to
_HASH = re.compile(r"\b[0-9a-f]{64}\b")
_TRAINED = ("loras", "embeddings", "checkpoints", "diffusion_models")
_PAGES = ("curation-*.json", "coach-*.json")  # each with a picture of that name
_SET = "likeness.json"  # the record of a set that Save Photos wrote
_PHOTOS = {"photos", "subject's photos"}  # under these a report names photos; other hashes are
# those of models, which everybody's reports name
_HEADER = 64_000_000  # bytes; what claims a longer header is no safetensors file
_LARGEST_PHOTO = 500_000_000  # bytes
_PNG = b"\x89PNG\r\n\x1a\n"


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
    other_names: tuple[tuple[Path, str], ...]  # files of these that another subject was made for
    own: tuple[Path, ...]  # the user's own copies of the photos, which stay


def is_name(name: str) -> bool:
    """Whether a text can be a subject's name, and so a folder of its own."""
    return bool(name.strip(" .")) and BAD_NAME.search(name) is None


def find(name: str, places: Places) -> Found:
    """Look for everything of a person.

    Args:
        name: one that `is_name`.
    """
    folder = places.reports / re.sub(r"[^\w.-]+", "_", name)  # as the Subject names it
    abouts = {path: _about(path) for path in _trained(places)}
    hashes = frozenset(_hashes(folder).union(*(_photos(about) for about in abouts.values()
                                               if name in _names(about))))
    trained = [path for path, about in abouts.items()
               if name in _names(about) or _photos(about) & hashes]
    others = [(path, other) for path in trained for other in sorted(_names(abouts[path]) - {name})]
    copies = [path for path in _files(places.input) if hashes and _is_one_of(path, hashes)]
    uploads = {top for path in copies if UPLOADED.fullmatch((top := _top(path, places)).name)}
    sets = [record.parent for record in places.reports.rglob(_SET)
            if folder not in record.parents and _named_in(record) & hashes]
    known = {path.resolve() for top in uploads for path in _files(top)} | {
        path.resolve() for path in copies}
    pages = [page for pattern in _PAGES for page in places.reports.glob(pattern)
             if _listed(page) & known]
    sheets = [page.with_suffix(".png") for page in pages if page.with_suffix(".png").is_file()]
    drawn = [path for path in _files(places.output)
             if folder not in path.parents and name in _drawn_for(path)]
    folders = (path for path in (folder, *sorted(uploads), *sets) if path.is_dir())
    return Found(hashes, tuple(folders), tuple(dict.fromkeys((*trained, *pages, *sheets, *drawn))),
                 tuple(others), tuple(path for path in copies if _top(path, places) not in uploads))


def previews(places: Places) -> list[Path]:
    """Everything in the folders that ComfyUI empties at every start; whose it is cannot be told."""
    return [path for temp in places.temp for path in _files(temp)]


def traces(found: Found, places: Places) -> list[Path]:
    """Files that still are one of the photos, or name one by its hash; the user's own left out."""
    rooms = (places.input, places.output, *places.temp,
             *(places.models / kind for kind in _TRAINED))
    return [path for room in rooms for path in _files(room) if path not in found.own
            and (_mentions(path) & found.hashes or _is_one_of(path, found.hashes))]


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.rglob("*") if path.is_file())


def _top(path: Path, places: Places) -> Path:
    """What lies directly in the input folder: the file itself, or the folder that it is in."""
    return places.input / path.relative_to(places.input).parts[0]


def _is_one_of(path: Path, hashes: frozenset[str]) -> bool:
    return (path.stat().st_size <= _LARGEST_PHOTO
            and hashlib.sha256(path.read_bytes()).hexdigest() in hashes)


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
    """Every photo that the reports in a folder name."""
    return {digest for path in _files(folder) if path.suffix == ".json"
            for digest in _named_in(path)}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError:
        return None


def _named_in(path: Path) -> set[str]:
    """The photos that a report names."""
    return set(_walk(_json(path), False))


def _walk(value: Any, of_photos: bool) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _walk(inner, of_photos or name in _PHOTOS)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, of_photos)
    elif of_photos and isinstance(value, str) and _HASH.fullmatch(value):
        yield value


def _listed(page: Path) -> set[Path]:
    """The photos that a page of the curation or the coach lists, by their paths."""
    told = _json(page)
    photos = told.get("photos") if isinstance(told, dict) else None
    return {Path(photo["file"]).resolve() for photo in photos or ()
            if isinstance(photo, dict) and isinstance(photo.get("file"), str)}


def _drawn_for(path: Path) -> set[str]:
    """The subjects in the workflow that a picture was saved with."""
    if path.suffix != ".png":
        return set()
    try:
        nodes = json.loads(_prompt(path)).values()
        return {node["inputs"]["name"] for node in nodes
                if node["class_type"] == "LikenessSubject"}
    except (ValueError, AttributeError, KeyError, TypeError):
        return set()


def _prompt(path: Path) -> str:
    """What ComfyUI wrote into a PNG as `prompt`; empty where there is none."""
    with path.open("rb") as file:
        if file.read(8) != _PNG:
            return ""
        while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
            data = file.read(int.from_bytes(head[:4], "big"))
            file.read(4)  # the checksum
            if head[4:] == b"tEXt" and data.startswith(b"prompt\0"):
                return data[7:].decode("latin-1")
    return ""


def _mentions(path: Path) -> set[str]:
    """Every hash in what a file says, where it says anything."""
    if path.suffix == ".safetensors":
        return set(_HASH.findall(json.dumps(_about(path))))
    if path.suffix in (".json", ".txt", ".toml", ".md"):
        return set(_HASH.findall(path.read_text("utf-8", errors="replace")))
    return set()
