"""Hadamard adapters: `W + scale * (w1_a w1_b) * (w2_a w2_b)`, the second product by element.

The arithmetic is LyCORIS' and PEFT's (the parity tests compare); their modules rename the layers
they wrap and keep the formed weight in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from ..recipes.adapters import LoHaRecipe
from .layer import AdapterLayer, rank_within, take
from .low_rank import low_rank
from .recomputed import changed

_NAMES = ("w1_a", "w1_b", "w2_a", "w2_b")


class LoHaLayer(AdapterLayer):
    """One adapter of four factors (https://arxiv.org/abs/2108.06098): rank up to `rank` squared.

    At small ranks it runs as a low-rank adapter of that rank, whose factors are the products of
    all pairs of columns and of rows; at others the change of the weight is formed.

    Raises:
        LikenessError: the rank exceeds what the layer can hold.
    """

    def __init__(self, path: str, module: nn.Module, recipe: LoHaRecipe,
                 generator: torch.Generator, device: torch.device) -> None:
        rank = rank_within(path, module, recipe)
        super().__init__(module, rank, recipe.rank_dropout)
        self.scale = recipe.scale
        outputs, inputs = self.shape[0], math.prod(self.shape[1:])

        def drawn(rows: int, columns: int, spread: float) -> nn.Parameter:
            values = torch.empty(rows, columns).normal_(0, spread, generator=generator)
            return nn.Parameter(values.to(device))

        # LyCORIS' spreads; the zeros make the start exactly the base.
        self.w1_a, self.w1_b = drawn(outputs, rank, 0.1), drawn(rank, inputs, 1.0)
        self.w2_a, self.w2_b = drawn(outputs, rank, 0.0), drawn(rank, inputs, 1.0)
        self.thin = rank ** 2 * (inputs + outputs), inputs * outputs

    def difference(self, weight: torch.Tensor,
                   rounded_to: torch.dtype = torch.float32) -> torch.Tensor:
        return self._product(*(getattr(self, name).to(rounded_to).float() for name in _NAMES))

    def to_file(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        factors = {f"hada_{name}": getattr(self, name).detach().to("cpu", dtype).contiguous()
                   for name in _NAMES}
        return {**factors, "alpha": torch.tensor(self.scale * len(self.w1_b))}

    def from_file(self, tensors: Mapping[str, torch.Tensor]) -> None:
        take({f"hada_{name}": getattr(self, name) for name in _NAMES}, tensors)

    def forward(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        w1_a = self.kept_of(self.w1_a, 1)
        if not self.runs_thin(x.dtype):
            return changed(module, x, self._product, w1_a, self.w1_b, self.w2_a, self.w2_b)
        # (a b) * (c d) = sum over r, s of the outer product of a_r * c_s and b_r * d_s.
        up = (w1_a[:, :, None] * self.w2_a[:, None, :]).flatten(1)
        down = (self.w1_b[:, None] * self.w2_b[None]).flatten(0, 1)
        return low_rank(module, x, down.reshape(len(down), *self.shape[1:]), up, self.scale)

    def runs_thin(self, dtype: torch.dtype) -> bool:
        """Whether the thin products of all pairs cost less than the formed weight's."""
        thin, dense = self.thin
        # A formed weight costs one product more in float32 and three more in half precision.
        return (3 * thin if dtype == torch.float32 else thin) < dense

    def _product(self, w1_a: torch.Tensor, w1_b: torch.Tensor, w2_a: torch.Tensor,
                 w2_b: torch.Tensor) -> torch.Tensor:
        return ((w1_a @ w1_b) * (w2_a @ w2_b) * self.scale).reshape(self.shape)
