"""New words of text encoders: rows that stand where the trigger stands in a caption.

Textual inversion (https://arxiv.org/abs/2208.01618). A caption is tokenised by the host itself,
with the trigger written as the `embedding:name` that a user will write, so that training sees the
very tokens that generation will see. The host then gives marker rows from a throw-away file, and
each time the caption is encoded the learned rows take their places.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...brackets import Tokens, literal_tokens
from ...errors import LikenessError
from ...tensors import write_tensors
from ..recipes.base import TokenSettings
from .host_clip import Encoder, encoders, with_embeddings, word_ids

# No vocabulary has such numbers: row i of the throw-away file is filled with this minus i.
_MARKER = -1e6
_CHUNK = 4096  # vocabulary rows measured at once


def mentions(text: str, trigger: str) -> bool:
    """Whether a text has the trigger as a word of its own, in small or capital letters."""
    return _word(trigger).search(text) is not None


def write_embedding_name(text: str, trigger: str, name: str) -> str:
    """A text with `embedding:name` in place of the trigger, set off by spaces as the host asks."""
    return _word(trigger).sub(lambda _: f" embedding:{name} ", text)


def _word(trigger: str) -> re.Pattern[str]:
    return re.compile(rf"\s*(?<!\w){re.escape(trigger)}(?!\w)\s*", re.IGNORECASE)


class TokenRows(nn.Module):
    """What a new word is in every encoder of a CLIP; float32 whatever the encoder is stored in.

    Args:
        clip: host CLIP, its weights loaded.
        class_noun: the word that the rows start from when the settings name none.
        start: rows to start from instead, by encoder name: (vectors, width).

    Attributes:
        rows: encoder name -> Parameter (vectors, width).
        usual: encoder name -> median length of the vocabulary's rows.

    Raises:
        LikenessError: no encoder takes embeddings, one does not know the initial word, or the
            given rows have another shape or are for none of the encoders.
    """

    def __init__(self, clip: Any, settings: TokenSettings, trigger: str, class_noun: str,
                 start: Mapping[str, torch.Tensor] | None, device: torch.device) -> None:
        super().__init__()
        if not trigger.strip():
            raise LikenessError("The subject has no trigger, so no new word can be trained; give "
                                "the Subject one.")
        self.settings, self.trigger = settings, trigger.strip()
        self.clip, self.encoders = clip, encoders(clip)
        self.encoders = self._that_take_rows()
        names = [encoder.name for encoder in self.encoders]
        if start is not None and not set(start) & set(names):
            raise LikenessError(f"The rows to start from are for {', '.join(start)}, this CLIP has "
                                f"{', '.join(names)}; make them with this CLIP.")
        word = settings.initial_word.strip() or class_noun
        first = {encoder.name: self._first_rows(encoder, word, start) for encoder in self.encoders}
        self.rows = nn.ParameterDict({name: nn.Parameter(rows.to(device).clone())
                                      for name, rows in first.items()})
        self.usual = {encoder.name: _median_length(encoder) for encoder in self.encoders}
        self._tokenised: dict[str, Tokens] = {}

    def _that_take_rows(self) -> tuple[Encoder, ...]:
        """The encoders whose tokenizer really puts an embedding where its name stands."""
        tokens = self._marked(self.trigger)
        found = tuple(encoder for encoder in self.encoders
                      if any(_is_marker(entry[0]) for section in tokens[encoder.key]
                             for entry in section))
        if not found:
            raise LikenessError("The tokenizer of this CLIP takes no embeddings, so no new word "
                                "can be trained for it; train adapters instead.")
        return found

    def _first_rows(self, encoder: Encoder, word: str,
                    start: Mapping[str, torch.Tensor] | None) -> torch.Tensor:
        vectors, given = self.settings.vectors, (start or {}).get(encoder.name)
        if given is None:
            return spread(encoder.rows(word_ids(self.clip, encoder, word)), vectors)
        if tuple(given.shape) != (vectors, encoder.width):
            raise LikenessError(f"The rows to start from are {tuple(given.shape)} for "
                                f"{encoder.name}, which needs {(vectors, encoder.width)}; make "
                                f"them with this CLIP and {vectors} vectors.")
        return given.detach().float()

    def tokens(self, text: str) -> Tokens:
        """A text's tokens for `encode_token_weights`, the trigger's replaced by the rows."""
        if text not in self._tokenised:
            self._tokenised[text] = self._tokenise(text)
        rows = {encoder.key: self.rows[encoder.name] for encoder in self.encoders}
        return {key: [[_filled(entry, rows.get(key)) for entry in section]
                      for section in sections]
                for key, sections in self._tokenised[text].items()}

    def _tokenise(self, text: str) -> Tokens:
        words = literal_tokens(self.clip, text)
        if not mentions(text, self.trigger):
            return words
        found = self._marked(text)
        # Encoders that take no embeddings read the trigger as it is written.
        return {**words, **{encoder.key: found[encoder.key] for encoder in self.encoders}}

    def _marked(self, text: str) -> Tokens:
        """A text's tokens with marker rows where the trigger stands."""
        with tempfile.TemporaryDirectory(prefix="likeness-word-") as folder:
            name = Path(folder).name  # unlike the name of any embedding in the host's folders
            column = _MARKER - torch.arange(self.settings.vectors, dtype=torch.float32)
            write_tensors(Path(folder) / f"{name}.safetensors",
                          {encoder.file_key: column[:, None].expand(-1, encoder.width)
                           for encoder in self.encoders})
            return literal_tokens(with_embeddings(self.clip, [Path(folder)]),
                                  write_embedding_name(text, self.trigger, name))

    def penalty(self) -> torch.Tensor:
        """How far the rows are from a usual word's length: mean of (|row| / usual - 1)^2.

        Rows much longer than a word's drown the rest of a prompt. The length, measured against
        the vocabulary's median, serves every encoder; trainers for single architectures hold
        rows by such numbers measured once (https://github.com/edenartlab/sd-lora-trainer).
        """
        parts = [(rows.norm(dim=-1) / self.usual[name] - 1).square().mean()
                 for name, rows in self.rows.items()]
        return torch.stack(parts).mean()

    def rate_factor(self, name: str) -> float:
        """What the learning rate of an encoder's rows is multiplied by.

        AdamW moves every number by about the rate, and T5's words are many times as long as
        CLIP's. The rate is meant for CLIP-L, or the first encoder where there is none; the rows
        of others move in proportion to the size of their words' numbers.
        """
        sizes = {encoder.name: self.usual[encoder.name] / encoder.width ** 0.5
                 for encoder in self.encoders}
        reference = next((size for known, size in sizes.items() if known == "clip_l"),
                         next(iter(sizes.values())))
        return sizes[name] / reference


def spread(words: torch.Tensor, vectors: int) -> torch.Tensor:
    """Rows (vectors, width) that start from a word's tokens (N, width).

    Too few tokens repeat in order; too many are averaged in groups, at the length of the tokens.
    """
    count = len(words)
    if vectors >= count:
        return words[torch.arange(vectors) % count]
    groups = torch.tensor_split(words, vectors)
    means = torch.stack([group.mean(dim=0) for group in groups])
    lengths = torch.stack([group.norm(dim=-1).mean() for group in groups])
    return means * (lengths / means.norm(dim=-1).clamp_min(1e-12))[:, None]


def _median_length(encoder: Encoder) -> float:
    count = encoder.table.weight.shape[0]
    lengths = [encoder.rows(range(first, min(first + _CHUNK, count))).norm(dim=-1)
               for first in range(0, count, _CHUNK)]
    return max(float(torch.cat(lengths).median()), 1e-6)


def _is_marker(token: Any) -> bool:
    return torch.is_tensor(token) and float(token[0]) <= _MARKER


def _filled(entry: tuple[Any, ...], rows: torch.Tensor | None) -> tuple[Any, ...]:
    if rows is None or not _is_marker(entry[0]):
        return entry
    return (rows[round(_MARKER - float(entry[0][0]))], *entry[1:])
