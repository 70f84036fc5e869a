"""The user's photo folder: what is in it, and how it gets to a server."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

from ..problems import Problem
from .api import Client
from .refusals import Prompt

EXTENSIONS = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff",
                        ".heic", ".heif", ".avif", ".gif", ".jp2"))  # what the loader reads
LOADER = "LikenessLoadPhotos"
# Photos under another name or none begin so; the loader looks closer.
_HEAD = re.compile(rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP|....ftyp(hei|hev|mif1|msf1|avi[fs])",
                   re.DOTALL)
_LABELS = ("-masklabel", "-condlabel")  # OneTrainer's masks and conditioning pictures
_SIDE = (".txt", ".caption")  # captions, and verdicts.txt
_RECORD = "likeness.json"  # of a set that Save Photos wrote
_SIDE_FOLDER = re.compile(r"masks|left_out|\d+_.+")  # the last: kohya's <repeats>_<words>


def list_photos(folder: Path) -> list[Path]:
    """The photos in a folder, by name; those of a kohya training folder lie one deeper.

    Raises:
        Problem: there is no such folder, or no photo in it.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise Problem(f"The photo folder {folder} {what}; give a folder that holds photos.")
    try:
        found = [path for path in _files(folder) if _is_photo(path)]
        kohya = [path for place in _places(folder) if place.name[0].isdigit()
                 for path in _files(place) if _is_photo(path)]
        deeper = sorted({path.parent.name for path in folder.glob("*/*") if _is_photo(path)})
    except OSError as err:
        raise Problem(f"The photo folder {folder} cannot be read: {err.strerror}.") from err
    if found or kohya:
        return found or kohya
    kinds = ", ".join(sorted(extension[1:] for extension in EXTENSIONS))
    hint = f"give one of its sub-folders with photos: {', '.join(deeper)}" if deeper else (
        f"put some there ({kinds})")
    raise Problem(f"There is no photo in {folder}; {hint}.")


def require_loader(prompt: Prompt) -> list[str]:
    """The ids of the nodes that load photos.

    Raises:
        Problem: the workflow loads none.
    """
    found = [node for node, content in prompt.items() if content["class_type"] == LOADER]
    if not found:
        raise Problem(f"The workflow has no `{LOADER}` node to give the photos to; leave out "
                      "--photos or add that node.")
    return found


def upload_photos(client: Client, photos: list[Path], folder: Path) -> tuple[str, int]:
    """Put photos, and what belongs to them, into a fresh subfolder of the server's input folder.

    Args:
        photos: what `list_photos` found in `folder`.

    Returns:
        The subfolder's name, and how many captions, masks and other files went with the photos.
    """
    subfolder = f"likeness_{uuid.uuid4().hex[:10]}"
    beside = [path for path in _beside(folder) if path not in photos]
    for path in (*photos, *beside):
        place = path.parent.relative_to(folder).as_posix()
        client.upload(path, subfolder if place == "." else f"{subfolder}/{place}")
    return subfolder, len(beside)


def _beside(folder: Path) -> Iterator[Path]:
    """What the loader reads beside photos: captions, masks, verdicts, and a saved set's record."""
    for path in _files(folder):
        if path.suffix.lower() in _SIDE or path.stem.endswith(_LABELS) or path.name == _RECORD:
            yield path
    for place in _places(folder):
        yield from (path for path in _files(place)
                    if path.suffix.lower() in (*_SIDE, *EXTENSIONS) or _is_photo(path))
        yield from _files(place / "masks")


def _places(folder: Path) -> list[Path]:
    return sorted(place for place in folder.iterdir()
                  if place.is_dir() and _SIDE_FOLDER.fullmatch(place.name))


def _files(place: Path) -> list[Path]:
    if not place.is_dir():
        return []
    return sorted(path for path in place.iterdir() if path.is_file() and path.name[0] != ".")


def _is_photo(path: Path) -> bool:
    if not path.is_file() or path.name[0] == "." or path.stem.endswith(_LABELS):
        return False
    if path.suffix.lower() in EXTENSIONS:
        return True
    with path.open("rb") as file:
        return _HEAD.match(file.read(12)) is not None
