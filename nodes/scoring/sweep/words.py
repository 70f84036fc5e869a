"""Embedding files that a sweep's prompts call: a picture depends on them as on the weights."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_CALL = re.compile(r"embedding:(\S+)")
_SUFFIXES = (".safetensors", ".pt", ".bin")  # that the host tries behind a name


def folders_of(clip: Any) -> set[Path]:
    """Where a CLIP's tokenizers look for embeddings."""
    found = set()
    for tokenizer in vars(getattr(clip, "tokenizer", None) or object).values():
        known = getattr(tokenizer, "embedding_directory", None) or []
        found |= {Path(folder) for folder in ([known] if isinstance(known, str) else known)}
    return found


def words_digest(text: str, folders: Iterable[Path]) -> str:
    """Tells a prompt by the embeddings it calls; empty where it calls none that is there.

    Every file of a called name counts, because the host takes any one of them.
    """
    names = _called(text)
    if not names:
        return ""
    found = sorted((file.name, hashlib.sha256(file.read_bytes()).hexdigest())
                   for folder in set(folders) for file in _files(folder)
                   if file.name in names or str(file.relative_to(folder)) in names)
    return hashlib.sha256(json.dumps(found).encode()).hexdigest() if found else ""


def stamps(folders: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Path, size and time of every embedding file, to notice a change without reading them."""
    return sorted({(str(file), stat.st_size, stat.st_mtime_ns)
                   for folder in set(folders) for file in _files(folder)
                   for stat in (file.stat(),)})


def _called(text: str) -> set[str]:
    """File names that the words of a prompt may mean, with weights and brackets cut off."""
    names = set()
    for word in _CALL.findall(text):
        for name in {word, word.strip(","), re.split(r"[,:()\\]", word)[0]} - {""}:
            names |= {name, Path(name).name, *(name + suffix for suffix in _SUFFIXES),
                      *(Path(name).name + suffix for suffix in _SUFFIXES)}
    return names


def _files(folder: Path) -> Iterator[Path]:
    for root, _, files in os.walk(folder, followlinks=True):
        for name in files:
            file = Path(root) / name
            if file.suffix in _SUFFIXES and file.is_file():
                yield file
