"""A cache folder kept within a size: what has not been used for longest goes first."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .sockets import TrainingSet

logger = logging.getLogger("likeness")

# What the caches write, and what a crash in the middle of a write left behind. Pictures count by
# the names that a cache gives them alone, since a user may lay others beside them.
_OWN = re.compile(r".*(\.latent\.safetensors|\.text\.safetensors|\.part)"
                  r"|[0-9a-f]{24}(-[0-9a-f]{8})?\.png")

# What each training set that is still somewhere in memory needs.
_held: weakref.WeakKeyDictionary[TrainingSet, frozenset[Path]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class CacheUse:
    """A cache folder after it was tidied."""

    files: int
    bytes: int
    removed: int  # files


def files_of(training_set: TrainingSet) -> set[Path]:
    """Every cached file that a training set needs."""
    return {item.latent_file for item in training_set.items} | set(
        training_set.conditionings.values())


def hold(training_set: TrainingSet, files: Iterable[Path]) -> None:
    """Keep files from every limit for as long as a training set is held, by ComfyUI above all."""
    _held[training_set] = frozenset(files)


def limit_cache(folder: Path, used: Iterable[Path], limit: int) -> CacheUse:
    """Delete cached files that are not in use, longest unused first, until `limit` bytes are kept.

    Files in use are never deleted, even when they alone take more, nor are those of training sets
    that are still held, nor is anything that the cache did not write. A file that cannot be
    deleted stays; the cache is then larger than asked.
    """
    used = set(used)
    for path in used:
        _mark_used(path)
    found = {path: path.stat() for path in folder.iterdir()
             if _OWN.fullmatch(path.name) and path.is_file()}
    kept, size, removed = len(found), sum(stat.st_size for stat in found.values()), 0
    spare = sorted(found.keys() - used.union(*_held.values()),
                   key=lambda path: (max(found[path].st_atime_ns, found[path].st_mtime_ns), path))
    for path in spare:
        if size <= limit:
            break
        try:
            path.unlink()
        except OSError as err:
            logger.warning("The unused cache file %s could not be deleted (%s).", path, err)
            continue
        size, kept, removed = size - found[path].st_size, kept - 1, removed + 1
    return CacheUse(kept, size, removed)


def _mark_used(path: Path) -> None:
    """Note the time of use; many file systems do not when a file is read."""
    with contextlib.suppress(OSError):  # a folder that may only be read needs no such mark
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
