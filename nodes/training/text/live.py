"""Conditionings of a batch from text encoders that learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..samples import conds
from ..samples.data import Sample
from .encoders import TextEncoders
from .tokens import mentions


class LiveText:
    """Learning text encoders and the captions they encode, by the captions' keys."""

    def __init__(self, encoders: TextEncoders, texts: Mapping[str, str]) -> None:
        self.encoders, self.texts = encoders, texts

    def learns_from(self, keys: Sequence[str]) -> bool:
        """Whether the encoding of any of these captions depends on what is learned."""
        if self.encoders.adapters is not None:
            return True
        return self.encoders.tokens is not None and any(
            mentions(self.texts[key], self.encoders.trigger) for key in keys)

    def conds(self, base: Any, samples: Sequence[Sample], keys: Sequence[str], guidance: float,
              device: torch.device) -> Mapping[str, Any]:
        """Conditionings (one row per sample) that carry gradients; inside the encoders' scope."""
        rows = [conds.model_conds(base, self.encoders.encode(self.texts[key], with_trigger=False),
                                  sample.item, sample.latent[None], guidance, device)
                for sample, key in zip(samples, keys, strict=True)]
        return conds.batch(rows, device)
