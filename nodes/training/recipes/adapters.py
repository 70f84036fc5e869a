"""Recipes that teach small matrices beside the model's own: LoRA and its relatives."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from ...errors import LikenessError
from .base import Recipe
from .fields import BaseWeights, Initialisation, Target, choice, require


def parse_block_ranks(text: str) -> Mapping[str, int]:
    """Ranks by part of a layer's path, from lines such as `middle_block = 32`.

    Raises:
        LikenessError: a line that is not `words = number`.
    """
    ranks = {}
    for line in filter(None, (line.strip() for line in re.split(r"[\n,;]", text))):
        name, _, number = (part.strip() for part in line.partition("="))
        if not name or not number.isdigit():
            raise LikenessError(f"`block_ranks` has the line `{line}`; write `part of a layer's "
                                "path = rank`, 0 to leave those layers out.")
        ranks[name] = int(number)
    return MappingProxyType(ranks)


@dataclass(frozen=True, kw_only=True)
class AdapterRecipe(Recipe):
    """What every technique with adapters shares."""

    rank: int = 8
    alpha: float = 8.0  # the adapter's output is scaled by alpha / rank
    rank_stabilised: bool = False  # by alpha / sqrt(rank) instead (arXiv 2312.03732)
    target: Target = Target.ATTENTION_FEED_FORWARD
    block_ranks: str = ""  # other ranks for some layers; the last line that fits a path counts
    rank_dropout: float = 0.0  # share of the ranks that each step leaves out
    text_encoder: bool = False  # adapters in the text encoders too
    text_rate: float = 0.5  # their learning rate as a share of `learning_rate`

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "target", choice(Target, "target", self.target))
        require(self.rank >= 1, "rank", "at least 1", self.rank)
        require(self.alpha > 0, "alpha", "above 0", self.alpha)
        require(0 <= self.rank_dropout < 1, "rank_dropout", "0 to below 1", self.rank_dropout)
        require(0 < self.text_rate <= 10, "text_rate", "above 0 and at most 10", self.text_rate)
        parse_block_ranks(self.block_ranks)

    def rank_of(self, path: str) -> int:
        """The rank of a layer's adapter; 0: the layer has none."""
        found = [rank for part, rank in parse_block_ranks(self.block_ranks).items()
                 if part in path]
        return found[-1] if found else self.rank

    @property
    def scale(self) -> float:
        """What the output of every adapter is multiplied by.

        `alpha` belongs to `rank`; layers of another rank keep the same scale.
        """
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


@dataclass(frozen=True, kw_only=True)
class LoRARecipe(AdapterRecipe):
    """Low-rank adapters beside the frozen layers (https://arxiv.org/abs/2106.09685)."""

    method: ClassVar[str] = "lora"

    initialisation: Initialisation = Initialisation.KAIMING
    plus_ratio: float = 1.0  # learning rate of `up` over that of `down` (LoRA+, arXiv 2402.12354)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "initialisation",
                           choice(Initialisation, "initialisation", self.initialisation))
        require(1 <= self.plus_ratio <= 64, "plus_ratio", "1 to 64", self.plus_ratio)


@dataclass(frozen=True, kw_only=True)
class QLoRARecipe(LoRARecipe):
    """LoRA over weights that lie in memory with few bits (https://arxiv.org/abs/2305.14314)."""

    method: ClassVar[str] = "qlora"

    base_weights: BaseWeights = BaseWeights.NF4


@dataclass(frozen=True, kw_only=True)
class DoRARecipe(LoRARecipe):
    """LoRA whose columns learn their length apart from their direction (arXiv 2402.09353)."""

    method: ClassVar[str] = "dora"


@dataclass(frozen=True, kw_only=True)
class LoHaRecipe(AdapterRecipe):
    """Element-wise product of two low-rank matrices (https://arxiv.org/abs/2108.06098)."""

    method: ClassVar[str] = "loha"


@dataclass(frozen=True, kw_only=True)
class LoKrRecipe(AdapterRecipe):
    """Kronecker product of a small matrix and a low-rank one (https://arxiv.org/abs/2309.14859)."""

    method: ClassVar[str] = "lokr"

    factor: int = 8  # largest side of the small matrix

    def __post_init__(self) -> None:
        super().__post_init__()
        require(2 <= self.factor <= 64, "factor", "2 to 64", self.factor)


@dataclass(frozen=True, kw_only=True)
class OFTRecipe(AdapterRecipe):
    """Rotations of a layer's outputs, block by block (https://arxiv.org/abs/2306.07280).

    `rank` and `alpha` have no part in it: `block_size` alone decides how much it can learn.
    """

    method: ClassVar[str] = "oft"

    block_size: int = 16  # most outputs that one rotation mixes
    constraint: float = 0.0  # largest norm of a layer's rotations (COFT); 0: none

    def __post_init__(self) -> None:
        super().__post_init__()
        require(2 <= self.block_size <= 512, "block_size", "2 to 512", self.block_size)
        require(self.constraint >= 0, "constraint", "0 or more", self.constraint)
        require(self.rank_dropout == 0, "rank_dropout", "0 with OFT, which has no ranks",
                self.rank_dropout)
