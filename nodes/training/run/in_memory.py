"""Files of a run that were removed while ComfyUI still holds the result, written from memory.

Training again would give the same files after hours.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ...files import write_whole
from ..export.lora import read_lora, write_lora

logger = logging.getLogger("likeness")

_SMALL = 2 ** 20  # bytes of a file that is held as it is, such as a new word's


class Learned(dict):
    """A LoRA's tensors by name; how long ComfyUI holds them can be seen, as a dict's cannot."""


@dataclass(frozen=True, eq=False)
class _Copies:
    learned: weakref.ref[Learned]
    lora: tuple[Path, dict[str, str]] | None  # the file and its fields
    small: Mapping[Path, bytes]


_results: dict[str, _Copies] = {}  # by node


def hold(node: str, files: Mapping[str, Path], tensors: Mapping[str, torch.Tensor]) -> Learned:
    """A result's tensors as its node gives them out; while they last, its files can be written.

    Args:
        node: its id; empty outside a prompt.
        files: kind -> file, whole as they lie there.
        tensors: what the LoRA file holds; empty without one.
    """
    learned = Learned(tensors)
    if node:
        lora = (files["lora"], read_lora(files["lora"])[1]) if "lora" in files else None
        small = {path: path.read_bytes() for kind, path in files.items()
                 if kind != "lora" and path.stat().st_size <= _SMALL}
        _results[node] = _Copies(weakref.ref(learned), lora, small)
    return learned


def write_missing(node: str) -> None:
    """Write the files of a node's result that have gone, if ComfyUI still holds it.

    Raises:
        LikenessError: the disk is full or a folder cannot be written.
    """
    copies = _results.get(node)
    learned = copies and copies.learned()
    if learned is None:
        _results.pop(node, None)
        return
    if copies.lora is not None and not copies.lora[0].exists():
        write_lora(copies.lora[0], learned, copies.lora[1])
        logger.warning("%s had been removed and was written again.", copies.lora[0])
    for path, data in copies.small.items():
        if not path.exists():
            write_whole(path, lambda partial, data=data: partial.write_bytes(data), durable=True)
            logger.warning("%s had been removed and was written again.", path)
