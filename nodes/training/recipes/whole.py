"""Recipes that change the model itself, or only words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from .base import Recipe, TokenSettings
from .fields import Target, choice, require


@dataclass(frozen=True, kw_only=True)
class DreamBoothRecipe(Recipe):
    """Full fine-tuning of a part of the model (https://arxiv.org/abs/2208.12242)."""

    method: ClassVar[str] = "dreambooth"

    learning_rate: float = 2e-6
    target: Target = Target.ATTENTION_FEED_FORWARD

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "target", choice(Target, "target", self.target))


@dataclass(frozen=True, kw_only=True)
class TextualInversionRecipe(Recipe):
    """A new word of the text encoders, the model left as it is (arXiv 2208.01618)."""

    method: ClassVar[str] = "textual inversion"

    tokens: TokenSettings = field(default_factory=TokenSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.tokens is not None, "tokens", "settings of the new word", self.tokens)
        # Once the rows stop there would be nothing left to learn.
        require(self.tokens.share == 1, "token_share", "1 where only a word learns",
                self.tokens.share)
