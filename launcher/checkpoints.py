"""Tells from a checkpoint file, without loading it, which picture size suits it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

# A part of a tensor's name that only models of the 1024-pixel generation have.
_LARGE = ("conditioner.embedders.1.", ".joint_blocks.", ".double_blocks.", ".label_emb.")
_LONGEST_HEADER = 100_000_000  # bytes; a longer one is no safetensors file


def tensor_names(file: Path) -> list[str]:
    """The names in a safetensors file; empty for other files and absent ones."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > _LONGEST_HEADER:
                return []
            return list(json.loads(opened.read(length)))
    except (OSError, ValueError, struct.error):
        return []


def native_side(file: Path) -> int | None:
    """Pixels of the square that a checkpoint was trained on; None when the file does not tell."""
    names = tensor_names(file)
    if not names:
        return None
    return 1024 if any(part in name for name in names for part in _LARGE) else 512
