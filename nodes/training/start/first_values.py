"""First values of a new word, and what is shared by the ways to find them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..recipes.base import TokenSettings
from ..recipes.whole import TextualInversionRecipe
from ..samples.data import seeded
from ..text.encoders import TextEncoders
from ..text.host_clip import Encoder

_NEAREST = 3  # words of the vocabulary that the report names for a row


@dataclass(frozen=True, eq=False)
class TokenStart:
    """What the rows of a new word start from in place of a class word."""

    rows: Mapping[str, torch.Tensor]  # encoder name -> (vectors, width), float32 on the CPU
    key: str  # hash of the rows
    how: Mapping[str, Any]  # where they come from, for JSON


def token_start(rows: Mapping[str, torch.Tensor], how: Mapping[str, Any]) -> TokenStart:
    """Freeze rows (vectors, width) by encoder name as a start."""
    digest = hashlib.sha256()
    # Clones made here are no inference tensors, whatever mode the caller is in.
    with torch.inference_mode(False):
        plain = {name: rows[name].detach().to("cpu", torch.float32).clone()
                 for name in sorted(rows)}
    for name, value in plain.items():
        digest.update(json.dumps([name, list(value.shape)]).encode())
        digest.update(value.numpy().tobytes())
    return TokenStart(plain, digest.hexdigest(), dict(how))


def initial_text(clip: Any, trigger: str, class_noun: str, vectors: int,
                 initial_word: str) -> TextEncoders:
    """A CLIP's encoders with a new word whose rows are still the initial word's.

    Raises:
        LikenessError: no encoder takes a new word, or one does not know the initial word.
    """
    recipe = TextualInversionRecipe(gradient_checkpointing=False, tokens=TokenSettings(
        vectors=vectors, initial_word=initial_word))
    return TextEncoders(clip, recipe, trigger, class_noun, generator=seeded(0, "token start"))


def nearest_words(clip: Any, encoder: Encoder, rows: torch.Tensor) -> list[dict[str, float]]:
    """The vocabulary's words nearest to each row (vectors, width), with their cosines."""
    table = encoder.rows(range(encoder.table.weight.shape[0])).cpu()
    table = torch.nn.functional.normalize(table, dim=-1)
    found = torch.nn.functional.normalize(rows.detach().float().cpu(), dim=-1) @ table.T
    words = getattr(getattr(clip.tokenizer, encoder.name), "inv_vocab", {})
    return [{str(words.get(index, index)): round(value, 3)
             for value, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)}
            for top in (row.topk(min(_NEAREST, len(row))) for row in found)]
