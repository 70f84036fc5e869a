"""Trained files back on a MODEL and a CLIP: the LoRA and the new word of one run together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ... import runtime
from ...errors import LikenessError, MissingModelError
from ..export.embedding import findable, read_embedding
from ..export.lora import read_lora
from .applied_file import with_lora_file
from .words import check_rows

_SUFFIXES = (".safetensors", ".sft", ".pt", ".ckpt", ".bin", ".pth")
# How the two kinds of files that torch writes begin.
_PICKLES = (b"PK", b"\x80")


@dataclass(frozen=True, eq=False)
class Applied:
    """A MODEL and a CLIP with trained files, and how a prompt calls who was learned."""

    model: Any
    clip: Any
    trigger: str
    report: Mapping[str, Any]


def find_file(given: str, folders: Sequence[Path], roots: Sequence[Path], kind: str) -> Path:
    """The file that a name or a path means.

    Args:
        folders: where names are looked up, in this order.
        roots: folders that a whole path may lead into.
        kind: what it is, for the error.

    Raises:
        MissingModelError: there is no such file.
        LikenessError: the path leads elsewhere.
    """
    name = given.strip().strip('"').removeprefix("embedding:")
    if Path(name).suffix.lower() not in _SUFFIXES:
        name += ".safetensors"
    if Path(name).is_absolute():
        path = Path(name)
        if not runtime.is_inside(path, roots):
            places = ", ".join(str(root) for root in roots)
            raise LikenessError(f"{path} lies outside ComfyUI's folders; move it into one of "
                                f"{places}.")
        candidates = [path]
    else:
        candidates = [runtime.contained(folder.resolve(), name) for folder in folders]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        places = " or ".join(str(folder) for folder in folders)
        raise MissingModelError(f"The {kind} `{name}` was not found; put it into {places}.")
    return found


def word_of(lora: Path, folders: Sequence[Path]) -> Path | None:
    """The embedding of the run that made a LoRA; None when the run taught no new word.

    Raises:
        MissingModelError: the run taught one, and its file is in none of the folders.
    """
    _, said = _read(lora, read_lora)
    run = said.get("likeness.run")
    if run:
        for path in (path for folder in folders for path in folder.rglob(lora.name)):
            if _read(path, read_embedding)[1].get("likeness.run") == run:
                return path
    if json.loads(said.get("likeness.recipe", "{}")).get("tokens"):
        places = " or ".join(str(folder) for folder in folders)
        raise MissingModelError(f"{lora.name} was trained together with a new word, whose file of "
                                f"the same name is missing; put it into {places}.")
    return None


def apply_trained(model: Any, clip: Any, lora: Path | None, word: Path | None,
                  strength_model: float, strength_clip: float) -> Applied:
    """Put a run's files on clones of a MODEL and a CLIP.

    Args:
        lora: LoRA file, or None.
        word: embedding file, wherever it lies, or None.

    Raises:
        LikenessError: neither is given, a file is damaged, or one was made for another model.
    """
    if lora is None and word is None:
        raise LikenessError("Nothing to apply: choose a `lora`, or give an `embedding`.")
    report: dict[str, Any] = {"lora": None, "embedding": None}
    said: dict[str, str] = {}
    if lora is not None:
        tensors, said = _read(lora, read_lora)
        model, clip, account = with_lora_file(model, clip, lora, tensors, said, strength_model,
                                              strength_clip)
        report |= {"lora": str(lora), **account, "strength_model": strength_model,
                   "strength_clip": strength_clip}
    trigger = (said.get("likeness.trigger") or said.get("modelspec.trigger_phrase")
               or next(iter(report.get("words", {}).values()), ""))
    if word is not None:
        rows, said = _read(word, read_embedding)
        report |= {"embedding": str(word), **check_rows(rows, clip, word.name)}
        clip, trigger = findable(clip, word), f"embedding:{word.stem}"
    noun = said.get("likeness.class", "")
    report |= {"trigger": trigger, "class": noun, "prompt": f"photo of {trigger} {noun}".strip()}
    return Applied(model, clip, trigger, report)


def _read(path: Path, read: Any) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """A file's tensors and what it says of itself, by what is in it and not by its suffix.

    Raises:
        LikenessError: it is damaged, or holds more than weights.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
        # A safetensors file begins with a number of eight bytes, which may look like either.
        if start.startswith(_PICKLES) and not start.endswith(b"{"):
            return _unpickled(path), {}
        return read(path)
    except (OSError, SafetensorError) as err:
        raise LikenessError(f"{path.name} cannot be read ({err}); it is damaged or no safetensors "
                            "file, so train or download it again.") from err


def _unpickled(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix.lower() in (".safetensors", ".sft"):
        raise LikenessError(f"{path.name} is a file of torch under a wrong name; rename it to "
                            f"{path.stem}.pt.")
    try:
        found = dict(runtime.load_weights(path))
    except (TypeError, KeyError, AttributeError, IndexError) as err:
        raise LikenessError(f"{path.name} holds no weights by name; get it as "
                            "safetensors.") from err
    rows = found.get("string_to_param")  # how embeddings were saved at first
    if isinstance(rows, Mapping):
        found = {"emb_params": next(iter(rows.values()), None)}
    return {name: value.detach() for name, value in found.items()
            if isinstance(value, torch.Tensor)}
