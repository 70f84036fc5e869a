"""Reads what safetensors files say about themselves, without loading them."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LONGEST_HEADER = 100_000_000  # bytes; a longer one is no safetensors file


@dataclass(frozen=True)
class Family:
    """A kind of model: how large its pictures are, and how it wants to be sampled."""

    title: str
    mark: str  # a part of a tensor's name that only this kind has
    side: int  # pixels of the square that it was trained on
    cfg: float | None = None  # None, as for the two below: what the workflow has fits
    sampler: str | None = None
    scheduler: str | None = None


# FLUX is distilled: its guidance is an input of the model, 3.5 where no node sets it.
_FAMILIES = (
    Family("FLUX", ".double_blocks.", 1024, 1.0, "euler", "simple"),
    Family("Stable Diffusion 3", ".joint_blocks.", 1024, 4.5, "euler", "sgm_uniform"),
    Family("SDXL", ".label_emb.", 1024),
    Family("Stable Diffusion 1.5 or 2", ".input_blocks.", 512),
)


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


def read_family(file: Path) -> Family | None:
    """The family of a checkpoint by its tensors' names; None when the file does not tell."""
    names = header(file)
    return next((family for family in _FAMILIES if any(family.mark in name for name in names)),
                None)
