"""Photo files become records: readable or not, how large, in a stable order."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from ...errors import LikenessError
from ...images import to_rgb
from ...sockets import Photo, PhotoSet, Reason, Verdict

HEIF = frozenset({".heic", ".heif"})
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}) | HEIF

# What Pillow's readers raise on damaged files, beside OSError.
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError,
           MemoryError, Image.DecompressionBombError)


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key under which IMG_9 comes before IMG_10."""
    parts = re.split(r"(\d+)", name.casefold())
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in parts if part)


def list_photos(folder: Path, label: str) -> list[Path]:
    """The photo files right inside a folder, in natural order.

    Args:
        label: the folder as the user named it, for messages.

    Raises:
        LikenessError: the folder is missing, empty, or holds no photo.
    """
    if not folder.is_dir():
        raise LikenessError(f"The folder `{label}` does not exist in {folder.parent}; put the "
                            "photos there or correct the name.")
    files = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    if not files:
        raise LikenessError(f"The folder `{label}` is empty; put photos of one person into "
                            f"{folder}.")
    photos = [path for path in files if path.suffix.lower() in EXTENSIONS]
    if not photos:
        kinds = ", ".join(sorted({path.suffix.lower() or "no extension" for path in files}))
        raise LikenessError(f"The folder `{label}` holds no photo, only files of type {kinds}; put "
                            "in jpg, png, webp, bmp, tif or heic files.")
    return sorted(photos, key=lambda path: (natural_key(path.stem), path.name))


def read_photos(files: Sequence[Path], names: Sequence[str], folder: str,
                on_photo: Callable[[int], None]) -> PhotoSet:
    """Check every file and record it; a broken one gets a verdict, never an exception.

    Args:
        on_photo: called with the number of finished photos; may raise to cancel.
    """
    photos = []
    for done, (file, name) in enumerate(zip(files, names, strict=True), start=1):
        photos.append(read_record(file, name))
        on_photo(done)
    return PhotoSet(tuple(photos), folder)


def read_record(file: Path, name: str) -> Photo:
    """Decode one photo far enough to know that it can be used."""
    if file.suffix.lower() in HEIF and not heif_is_readable():
        return _unreadable(file, name, "HEIC photos need the Python package pillow-heif; install "
                                       "it or save the photo as JPEG.")
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        with Image.open(file) as picture:
            width, height = to_rgb(picture).size
    except DAMAGED as err:
        detail = str(err).replace(str(file), file.name).rstrip(".")
        return _unreadable(file, name, f"The file cannot be read as a photo ({detail}); export it "
                                       "again as JPEG or PNG.")
    return Photo(file=file, name=name, sha256=digest, width=width, height=height)


@functools.cache
def heif_is_readable() -> bool:
    """Whether the optional HEIC reader is there; teaches Pillow to use it."""
    try:
        from pillow_heif import register_heif_opener  # optional package
    except ImportError:
        return False
    register_heif_opener()
    return True


def fingerprint(files: Sequence[Path]) -> str:
    """A key that changes whenever one of the files is added, removed or written."""
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat() if file.is_file() else None
        known = (stat.st_size, stat.st_mtime_ns) if stat else None
        digest.update(f"{file}\0{known}\n".encode())
    return digest.hexdigest()


def _unreadable(file: Path, name: str, text: str) -> Photo:
    return Photo(file=file, name=name, verdict=Verdict.REJECT,
                 reasons=(Reason("unreadable", text),))
