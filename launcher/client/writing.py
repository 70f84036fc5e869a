"""Writes the user's files whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from ..problems import Problem


def write_whole(target: Path, data: bytes) -> Path:
    """Write a file, and the folders it needs, so that it appears only when it is complete.

    Raises:
        Problem: it cannot be written; nothing is left of it.
    """
    partial = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(data)
            return partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as err:
        raise Problem(f"{target} could not be written: {err.strerror}; make room or choose another "
                      "place.") from err


def require_file_place(file: Path, option: str) -> None:
    """Check that a file can be written into a folder that is there.

    Args:
        option: what the user named it with, for the message.

    Raises:
        Problem: its folder is missing, or it is a folder itself.
    """
    if not file.absolute().parent.is_dir():
        raise Problem(f"The folder of {file} does not exist; make it or choose another file with "
                      f"{option}.")
    if file.is_dir():
        raise Problem(f"{file} is a folder; name a file in it with {option}.")


def require_folder(folder: Path, option: str) -> None:
    """Check that a folder can hold files, or be made.

    Args:
        option: what the user named it with, for the message.

    Raises:
        Problem: a file is in its place or above it, or it must not be written to.
    """
    standing = folder.absolute()
    while not os.path.lexists(standing):
        standing = standing.parent
    if not standing.is_dir():
        raise Problem(f"{standing} is a file; give a folder with {option}.")
    if not os.access(standing, os.W_OK):
        raise Problem(f"{standing} cannot be written to; choose another folder with {option}.")
