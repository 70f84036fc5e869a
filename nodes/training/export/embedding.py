"""Embedding files: the rows of a new word, which a prompt calls by `embedding:name`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ...errors import LikenessError, NotSavedError
from ...tensors import write_tensors
from ..frozen.formats import coarsest_format
from ..frozen.scope import Scope
from ..text.encoders import TextEncoders
from ..text.host_clip import plain, with_embeddings
from ..text.tokens import TokenRows, write_embedding_name

# What files of a CLIP-L alone have been named since the first textual inversion.
_ALONE = "emb_params"
_SUFFIXES = (".safetensors", ".pt", ".bin")
# Largest error of an encoding, relative to its size: plain float32 rounding, or that of weights
# that an adapter was added to, in roundings of the coarsest weights.
_TOLERANCE = 1e-4
_ROUNDINGS = 4.0


def check_name(name: str) -> None:
    """Refuse a file's name, without its suffix, that a prompt cannot call.

    Raises:
        LikenessError: a space, comma or bracket is in it, where the host would end the name.
    """
    if re.fullmatch(r"[\w.-]+", name) is None:
        raise LikenessError(f"An embedding cannot be called `{name}`: a prompt ends its name at "
                            "spaces, commas and brackets. Use letters, digits, - and _ alone.")


def embedding_tensors(tokens: TokenRows) -> dict[str, torch.Tensor]:
    """The rows as ComfyUI's loader names them: one tensor (vectors, width) for each encoder."""
    rows = {encoder.file_key: tokens.rows[encoder.name].detach().float().cpu()
            for encoder in tokens.encoders}
    return {_ALONE: rows["clip_l"]} if list(rows) == ["clip_l"] else rows


def save_embedding(path: Path, text: TextEncoders, fields: Mapping[str, str]) -> None:
    """Write a new word's file, whole or not at all.

    Args:
        fields: what the file says of itself; the number of vectors is added.

    Raises:
        LikenessError: no prompt could call the name.
        NotSavedError: the disk is full or the folder cannot be written.
    """
    check_name(path.stem)
    vectors = str(text.tokens.settings.vectors)
    try:
        write_tensors(path, embedding_tensors(text.tokens),
                      {**fields, "likeness.vectors": vectors}, durable=True)
    except LikenessError as err:
        raise NotSavedError(f"The new word was trained but not saved: {err}") from err


def read_embedding(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read an embedding file's tensors and what it says of itself.

    Raises:
        OSError, SafetensorError: there is none, or it is damaged.
    """
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        return tensors, file.metadata() or {}


def take_over(path: Path, text: TextEncoders) -> None:
    """Give the rows the values of a file, in place.

    Raises:
        KeyError: an encoder is missing.
        ValueError: its rows have another shape.
        OSError, SafetensorError: the file is missing or damaged.
    """
    stored, _ = read_embedding(path)
    wanted = embedding_tensors(text.tokens)
    for name, rows in wanted.items():
        if stored[name].shape != rows.shape:
            raise ValueError(f"{name} has the shape {tuple(stored[name].shape)}")
    values = {encoder.name: stored[_ALONE if _ALONE in wanted else encoder.file_key]
              for encoder in text.tokens.encoders}
    text.load_tensors({**text.tensors(), **{f"tokens.{name}": rows
                                            for name, rows in values.items()}})


def findable(clip: Any, path: Path) -> Any:
    """A clone of a CLIP whose prompts find an embedding file by its name, wherever it lies.

    Raises:
        LikenessError: no prompt could call its name, or another file has it.
    """
    check_name(path.stem)
    folder = path.resolve().parent
    for other in _namesakes(path.stem, _folders(clip)):
        if other.resolve() != path.resolve() and other.read_bytes() != path.read_bytes():
            raise LikenessError(f"{other} has the same name as {path}, and ComfyUI takes either of "
                                "them; rename one.")
    return with_embeddings(clip, [folder])


def _folders(clip: Any) -> set[Path]:
    """Where a CLIP's tokenizers look for embeddings."""
    found = set()
    for tokenizer in vars(clip.tokenizer).values():
        known = getattr(tokenizer, "embedding_directory", None) or []
        found |= {Path(folder) for folder in ([known] if isinstance(known, str) else known)}
    return found


def _namesakes(name: str, folders: set[Path]) -> list[Path]:
    names = {name, *(name + suffix for suffix in _SUFFIXES)}
    return [Path(root) / file for folder in folders
            for root, _, files in os.walk(folder, followlinks=True)
            for file in files if file in names]


def check_embedding(path: Path, clip: Any, text: TextEncoders,
                    caption: str) -> tuple[Any, float]:
    """Load a saved embedding by its name through the host and compare it with what was trained.

    Args:
        clip: the CLIP, with the adapters that were trained together with the word as patches.
        caption: a text with the trigger.

    Returns:
        A clone of the CLIP whose prompts find the file, and its encoding's error relative to the
        encoding's size.

    Raises:
        LikenessError: the host reads other rows, or encodes the caption otherwise.
    """
    found = findable(clip, path)
    prompt = plain(write_embedding_name(caption, text.trigger, path.stem))
    tokens = found.tokenize(prompt)
    for encoder in text.tokens.encoders:
        read = [entry[0] for section in tokens[encoder.key] for entry in section
                if torch.is_tensor(entry[0])]
        rows = text.tokens.rows[encoder.name].detach().float().cpu()
        first = torch.stack(read[:len(rows)]).float().cpu() if read else torch.empty(0)
        if not torch.equal(first, rows):
            raise LikenessError(f"{path.name} does not load as it was trained: `embedding:"
                                f"{path.stem}` gives {encoder.name} other rows. Please report "
                                "this text encoder.")
    live = live_encoding(text, caption)
    reloaded = flat(found.encode_from_tokens_scheduled(tokens))
    error = float((reloaded - live).norm() / live.norm())
    allowed = _TOLERANCE
    if text.adapters is not None:
        allowed += _ROUNDINGS * coarsest(text)
    if not error <= allowed:
        raise LikenessError(f"{path.name} encodes a prompt otherwise than in training (error "
                            f"{error:.3g}). Please report this text encoder.")
    return found, error


def live_encoding(text: TextEncoders, caption: str) -> torch.Tensor:
    """What the encoders make of a caption as they have been trained, as one row on the CPU."""
    text.prepare()
    with torch.inference_mode(False), torch.no_grad(), Scope() as scope:
        text.attach(scope)
        return flat(text.encode(caption, with_trigger=False))


def flat(conditioning: Any) -> torch.Tensor:
    """A conditioning's tensors as one row, float32 on the CPU."""
    (cond, options), = conditioning
    pooled = options.get("pooled_output")
    return torch.cat([part.detach().flatten().float().cpu()
                      for part in (cond, pooled) if part is not None])


def coarsest(text: TextEncoders) -> float:
    """The rounding of the encoders' stored weights, relative; patches are added to these."""
    return torch.finfo(coarsest_format(text.network.parameters())).eps
