"""Reads what safetensors files say about themselves, without loading them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

# A part of a tensor's name that only models of the 1024-pixel generation have.
_LARGE = ("conditioner.embedders.1.", ".joint_blocks.", ".double_blocks.", ".label_emb.")
_LONGEST_HEADER = 100_000_000  # bytes; a longer one is no safetensors file


def header(file: Path) -> dict[str, Any]:
    """Names, shapes and metadata of a safetensors file; empty for other and absent files."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            return json.loads(opened.read(length)) if length <= _LONGEST_HEADER else {}
    except (OSError, ValueError, struct.error):
        return {}


def metadata(file: Path) -> dict[str, str]:
    """The free text fields of a safetensors file."""
    return header(file).get("__metadata__", {})


def native_side(file: Path) -> int | None:
    """Pixels of the square that a checkpoint was trained on; None when the file does not tell."""
    names = header(file)
    if not names:
        return None
    return 1024 if any(part in name for name in names for part in _LARGE) else 512
