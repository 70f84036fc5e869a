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
from ..frozen.beside import parts_of
from ..text.host_clip import encoders
from .embedding import findable, read_embedding
from .lora import apply_lora, apply_text_lora, read_lora


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
    if not name.endswith(".safetensors"):
        name += ".safetensors"
    if Path(name).is_absolute():
        path = Path(name).resolve()
        if not any(root.resolve() in path.parents for root in roots):
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
        model, clip, layers = _with_lora(model, clip, tensors, strength_model, strength_clip,
                                         lora.name)
        report |= {"lora": str(lora), **layers, "strength_model": strength_model,
                   "strength_clip": strength_clip}
    trigger = said.get("likeness.trigger") or said.get("modelspec.trigger_phrase", "")
    if word is not None:
        rows, said = _read(word, read_embedding)
        report |= {"embedding": str(word), **_check_rows(rows, clip, word.name)}
        clip, trigger = findable(clip, word), f"embedding:{word.stem}"
    noun = said.get("likeness.class", "")
    report |= {"trigger": trigger, "class": noun, "prompt": f"photo of {trigger} {noun}".strip()}
    return Applied(model, clip, trigger, report)


def _read(path: Path, read: Any) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        return read(path)
    except (OSError, SafetensorError) as err:
        raise LikenessError(f"{path.name} cannot be read ({err}); it is damaged or no safetensors "
                            "file, so train or download it again.") from err


def _with_lora(model: Any, clip: Any, tensors: Mapping[str, torch.Tensor], strength_model: float,
               strength_clip: float, name: str) -> tuple[Any, Any, dict[str, int]]:
    before = _patched(model), _patched(clip.patcher)
    model = apply_lora(model, tensors, strength_model)
    clip = apply_text_lora(clip, tensors, strength_clip)
    gained = [now - then for now, then in
              zip((_patched(model), _patched(clip.patcher)), before, strict=True)]
    if not any(gained):
        raise LikenessError(f"No layer of this model and text encoder is in {name}; load the "
                            "checkpoint that it was trained for.")
    return model, clip, {"layers": gained[0], "text_layers": gained[1]}


def _patched(patcher: Any) -> int:
    beside = sum(len(parts) for parts in parts_of(patcher).values())
    return beside + sum(len(patches) for patches in patcher.patches.values())


def _check_rows(rows: Mapping[str, torch.Tensor], clip: Any, name: str) -> dict[str, Any]:
    """Which encoders of a CLIP know the word.

    Raises:
        LikenessError: none does.
    """
    known, missing, vectors = [], [], 0
    for encoder in encoders(clip):
        # The host reads the first tensor where none is named after the encoder.
        found = rows.get(encoder.file_key, next(iter(rows.values())))
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
