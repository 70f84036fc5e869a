"""New words in files: which encoders know one, and those that a LoRA file carries along."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...errors import LikenessError
from ...tensors import fingerprint, write_tensors
from ..export.embedding import findable
from ..text.host_clip import encoders

_BUNDLED = "bundle_emb."  # A1111's and OneTrainer's head of a word's rows in a LoRA file
_ROWS = {"string_to_param.*": "emb_params", "t5": "t5xxl"}

Words = dict[str, dict[str, torch.Tensor]]  # rows (vectors, width) by encoder, by word


def bundled(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], Words,
                                                          list[str]]:
    """A LoRA file's tensors without the words that it carries, and those words.

    The third value names the words of which OneTrainer learned rows for an encoder's outputs too
    (`..._out`): no host reads these.
    """
    rest: dict[str, torch.Tensor] = {}
    words: Words = {}
    outputs: set[str] = set()
    for key, value in tensors.items():
        if not key.startswith(_BUNDLED):
            rest[key] = value
            continue
        name = key.removeprefix(_BUNDLED)
        end = next((end for end in _ROWS if name.endswith(f".{end}")), name.rpartition(".")[2])
        word = name.removesuffix(f".{end}")
        rows = words.setdefault(word, {})
        if end.endswith("_out"):
            outputs.add(word)
        else:
            rows[_ROWS.get(end, end)] = value
    return rest, words, sorted(outputs)


def check_rows(rows: Mapping[str, torch.Tensor], clip: Any, name: str) -> dict[str, Any]:
    """Which encoders of a CLIP know a word.

    Raises:
        LikenessError: none does.
    """
    known, missing, vectors = [], [], 0
    for encoder in encoders(clip):
        # The host reads the first tensor where none is named after the encoder.
        found = rows.get(encoder.file_key, next(iter(rows.values()), torch.empty(0)))
        if found.shape[-1] == encoder.width:
            known.append(encoder.name)
            vectors = len(found)
        else:
            missing.append(encoder.name)
    if not known:
        raise LikenessError(f"{name} was trained for another text encoder than "
                            f"{', '.join(missing)} of this CLIP; load the checkpoint that it was "
                            "trained for.")
    return {"vectors": vectors, "encoders": known, "encoders_without_it": missing}


def with_words(clip: Any, words: Words, folder: Path) -> tuple[Any, dict[str, str], list[str]]:
    """A clone of a CLIP whose prompts find words that no embedding file holds.

    Args:
        folder: where their files may be written, one folder by content for each.

    Returns:
        The clone, what a prompt calls each word by, and the words that the CLIP cannot take.
    """
    called, lost = {}, []
    for word, rows in words.items():
        try:
            check_rows(rows, clip, word)
        except LikenessError:
            lost.append(word)
            continue
        content = fingerprint(rows)[:16]
        name = re.sub(r"[^\w.-]+", "", word).strip(".") or "word"
        try:
            clip, name = _found(clip, folder / content, name, rows)
        except LikenessError:  # the user has another word of this name
            clip, name = _found(clip, folder / content, f"{name}-{content[:8]}", rows)
        called[word] = f"embedding:{name}"
    return clip, called, lost


def _found(clip: Any, folder: Path, name: str,
           rows: Mapping[str, torch.Tensor]) -> tuple[Any, str]:
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        write_tensors(path, rows)
    return findable(clip, path), name
