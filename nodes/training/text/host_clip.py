"""What training needs to know of a host CLIP, and copies of it that find other embeddings.

A CLIP in the executor's cache is shared by every graph that uses it. Its tokenizers are copied
before anything about them changes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...brackets import plain
from ...errors import LikenessError


@dataclass(frozen=True, eq=False)
class Encoder:
    """One text encoder of a CLIP that can take an embedding in place of a word."""

    key: str  # of its tokens: l, g, t5xxl, ...
    name: str  # attribute of model and tokenizer: clip_l, clip_g, t5xxl, ...
    file_key: str  # of its rows in an embedding file
    model: nn.Module

    @property
    def table(self) -> nn.Module:
        """The embeddings of the vocabulary."""
        return self.model.transformer.get_input_embeddings()

    @property
    def width(self) -> int:
        """How many numbers a word's row has."""
        return self.table.weight.shape[-1]

    def rows(self, ids: Sequence[int]) -> torch.Tensor:
        """Rows of the vocabulary (N, width) as the encoder reads them, float32."""
        places = torch.tensor(ids, device=self.table.weight.device)
        return self.table(places, out_dtype=torch.float32).float()


def encoders(clip: Any) -> tuple[Encoder, ...]:
    """The encoders of a CLIP that can take an embedding, in the tokenizer's order.

    Raises:
        LikenessError: there is no text encoder, or none can.
    """
    if clip is None:
        raise LikenessError("This checkpoint has no text encoder; connect a CLIP loader.")
    found = []
    for key in clip.tokenize(""):
        name = next((name for name in (f"clip_{key}", key)
                     if getattr(clip.cond_stage_model, name, None) is not None), None)
        tokenizer = getattr(clip.tokenizer, name or "", None)
        model = getattr(clip.cond_stage_model, name or "", None)
        if hasattr(model, "process_tokens") and hasattr(tokenizer, "embedding_directory"):
            found.append(Encoder(key, name, tokenizer.embedding_key, model))
    if not found:
        raise LikenessError("No text encoder of this CLIP takes embeddings, so no new word can be "
                            "trained for it; train adapters instead.")
    return tuple(found)


def with_embeddings(clip: Any, folders: Sequence[Path]) -> Any:
    """A clone of a CLIP whose tokenizers look for `embedding:name` in further folders."""
    clone = clip.clone()
    clone.tokenizer = copy.copy(clip.tokenizer)
    for name, tokenizer in vars(clip.tokenizer).items():
        if hasattr(tokenizer, "embedding_directory"):
            known = tokenizer.embedding_directory or []
            own = copy.copy(tokenizer)
            own.embedding_directory = [*([known] if isinstance(known, str) else known),
                                       *(str(folder) for folder in folders)]
            setattr(clone.tokenizer, name, own)
    return clone


def word_ids(clip: Any, encoder: Encoder, word: str) -> list[int]:
    """A word's places in an encoder's vocabulary, without start, end and padding.

    Raises:
        LikenessError: the encoder does not know the word.
    """
    empty, filled = (clip.tokenize(text)[encoder.key][0] for text in ("", plain(word)))
    ids, without = [entry[0] for entry in filled], [entry[0] for entry in empty]
    start = next((at for at, pair in enumerate(zip(ids, without, strict=False))
                  if pair[0] != pair[1]), len(ids))
    end = next((at for at in range(start, len(ids)) if ids[at] == without[start]), len(ids))
    found = ids[start:end]
    inner = getattr(getattr(clip.tokenizer, encoder.name), "tokenizer", None)
    unknown = getattr(inner, "unk_token_id", None)
    if not found or unknown in found or not all(isinstance(token, Integral) for token in found):
        raise LikenessError(f"The text encoder {encoder.name} does not know the word `{word}`; "
                            "choose another `initial_word`, such as man, woman or person.")
    return found
