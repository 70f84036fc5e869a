"""Photo files become records: readable or not, how large, in a stable order."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ...errors import LikenessError
from ...media.decoding import RefusedError
from ...media.images import read_picture
from ...media.photo_files import natural_key, photos_in
from ...sockets import Photo, PhotoSet, Reason, Verdict


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
    photos = photos_in(folder)
    if photos:
        return photos
    deeper = photos_below(folder)
    if deeper:
        counted = ", ".join(f"{name}: {count}" for name, count in deeper.items())
        raise LikenessError(f"The photos in `{label}` lie in sub-folders ({counted}), which are "
                            f"not read; give one of them, such as `{label}/{next(iter(deeper))}`, "
                            f"or move the photos into {folder}.")
    if not files:
        raise LikenessError(f"The folder `{label}` is empty; put photos of one person into "
                            f"{folder}.")
    kinds = ", ".join(sorted({path.suffix.lower() or "no extension" for path in files}))
    raise LikenessError(f"The folder `{label}` holds no photo, only files of type {kinds}; put in "
                        "jpg, png, webp, bmp, tif, heic, avif or gif files.")


def photos_below(folder: Path) -> dict[str, int]:
    """How many photos there are in each sub-folder, at any depth, by its path from the folder."""
    found = {}
    for place, places, _ in os.walk(folder, followlinks=False):
        places[:] = sorted((name for name in places if name[0] != "."), key=natural_key)
        if Path(place) != folder:
            count = len(photos_in(Path(place)))
            found |= {Path(place).relative_to(folder).as_posix(): count} if count else {}
    return found


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
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        width, height = read_picture(file).size
    except RefusedError as err:
        return _unreadable(file, name, str(err))
    except (OSError, MemoryError) as err:
        detail = str(err).replace(str(file), file.name).rstrip(".")
        return _unreadable(file, name, f"The file cannot be read as a photo ({detail}); export it "
                                       "again as JPEG or PNG.")
    return Photo(file=file, name=name, sha256=digest, width=width, height=height)


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
