"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from .errors import LikenessError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file under a temporary name, then move it into place.

    Args:
        write: gets the temporary path; its folder exists.

    Raises:
        LikenessError: the disk is full or the folder cannot be written; what was at `path` stays
            and nothing partial is left.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        os.replace(partial, path)
    except (OSError, SafetensorError) as err:  # safetensors reports a failed write in its own kind
        reason = getattr(err, "strerror", None) or err
        raise LikenessError(f"{path.name} could not be written to {path.parent} ({reason}); free "
                            "some disk space or choose another folder.") from err
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def forget_partials(path: Path) -> None:
    """Delete what a killed process left of a file it was writing; no one else may be writing it."""
    for partial in path.parent.glob(f"{glob.escape(path.name)}.*.part*"):
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
