"""Files that are written whole or not at all, and names as the disk spells them."""

from __future__ import annotations

import contextlib
import glob
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from .errors import LikenessError


def write_whole(path: Path, write: Callable[[Path], object], durable: bool = False) -> None:
    """Let `write` fill a file under a temporary name, then move it into place.

    Args:
        write: gets the temporary path; its folder exists.
        durable: return only when a power loss can take neither the content nor the name; for
            results, since waiting for the disk costs too much for what can be made again.

    Raises:
        LikenessError: the disk is full or the folder cannot be written; what was at `path` stays
            and nothing partial is left.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        known = next(folder for folder in path.parents if folder.exists())
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        if durable:  # before the move: a name must not point at data that is not there
            _sync_file(partial)
        os.replace(partial, path)
        if durable:
            _sync_folders(path, known)
    except (OSError, SafetensorError) as err:  # safetensors reports a failed write in its own kind
        reason = getattr(err, "strerror", None) or err
        raise LikenessError(f"{path.name} could not be written to {path.parent} ({reason}); free "
                            "some disk space or choose another folder.") from err
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folders(path: Path, known: Path) -> None:
    """Make a file's name last, and those of its folders below one that was there before."""
    for folder in path.parents:
        with contextlib.suppress(OSError):  # Windows opens no folders; its journal holds names
            number = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)
        if folder == known:
            return


def composed(name: str) -> str:
    """A name in the one Unicode form in which names compare.

    Macs store `e` and an accent as two characters, which other systems take for another name.
    """
    return unicodedata.normalize("NFC", name)


def on_disk(path: Path) -> Path:
    """A path as the disk spells it, where its names differ in their Unicode form alone."""
    if str(path).isascii() or os.path.lexists(path):
        return path
    parent = on_disk(path.parent)
    there = parent.iterdir() if parent.is_dir() else ()
    return next((entry for entry in there if composed(entry.name) == composed(path.name)),
                parent / path.name)


def forget_partials(path: Path) -> None:
    """Delete what a killed process left of a file it was writing; no one else may be writing it."""
    for partial in path.parent.glob(f"{glob.escape(path.name)}.*.part*"):
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
