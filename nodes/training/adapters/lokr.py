"""Kronecker adapters: `W + scale * kron(w1, w2)`, w2 a low-rank product where that is smaller.

The arithmetic is LyCORIS' and PEFT's (the parity tests compare); their modules rename the layers
they wrap, form the whole product in every forward and keep it in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from ..frozen import layers as frozen
from ..recipes.adapters import LoKrRecipe
from .layer import AdapterLayer, take
from .operation import CONVOLVE
from .recomputed import beside


class LoKrLayer(AdapterLayer):
    """One adapter (https://arxiv.org/abs/2309.14859): w1 (a, b) and w2 (c, d, ...), out = a c and
    in = b d.

    w2 is w2_a (c, rank) w2_b (rank, d ...) where the rank is below half of its longer side, and
    whole otherwise. The loader scales by alpha / rank in the first case alone, so a whole w2 has
    scale 1 whatever alpha is. Rank dropout leaves out rows of a whole w2.
    """

    def __init__(self, path: str, module: nn.Module, recipe: LoKrRecipe,
                 generator: torch.Generator, device: torch.device) -> None:
        super().__init__(module, dropout=recipe.rank_dropout)
        self.rank = recipe.rank_of(path)
        outer, rows = factorise(self.shape[0], recipe.factor)
        across, columns = factorise(self.shape[1], recipe.factor)
        inputs = columns * math.prod(self.shape[2:])
        self.whole = 2 * self.rank >= max(rows, columns)
        self.ranks = rows if self.whole else self.rank
        self.scale = 1.0 if self.whole else recipe.scale

        def kaiming(count: int, inputs: int) -> nn.Parameter:
            bound = inputs ** -0.5  # a = sqrt(5), as LyCORIS does
            values = torch.empty(count, inputs).uniform_(-bound, bound, generator=generator)
            return nn.Parameter(values.to(device))

        self.w1 = kaiming(outer, across)
        if self.whole:
            self.w2 = nn.Parameter(torch.zeros(rows, inputs, device=device))
        else:
            self.w2_a = kaiming(rows, self.rank)
            self.w2_b = nn.Parameter(torch.zeros(self.rank, inputs, device=device))
        self._columns = columns

    def difference(self, weight: torch.Tensor,
                   rounded_to: torch.dtype = torch.float32) -> torch.Tensor:
        w1, *second = (factor.to(rounded_to).float() for factor in self.parameters())
        w2 = second[0] if self.whole else second[0] @ second[1]
        return (self.scale * torch.kron(w1, w2)).reshape(self.shape)

    def to_file(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        tensors = {f"lokr_{name}": factor.detach().to("cpu", dtype).contiguous()
                   for name, factor in self.named_parameters()}
        if self.whole and len(self.shape) == 4:
            # LyCORIS' shape; the loader reads no others with more than two dimensions.
            tensors["lokr_w2"] = tensors["lokr_w2"].reshape(-1, self._columns, *self.shape[2:])
        return {**tensors, "alpha": torch.tensor(self.scale * self.rank)}

    def from_file(self, tensors: Mapping[str, torch.Tensor]) -> None:
        take({f"lokr_{name}": factor for name, factor in self.named_parameters()}, tensors)

    def forward(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        w1, *second = self.parameters()
        second[0] = self.kept_of(second[0], 0 if self.whole else 1)
        if frozen.is_linear(module):
            return beside(module, x, self._dense, w1, *second)
        return beside(module, x, lambda x, *factors: self._convolved(module, x, *factors),
                      w1, *second)

    def _dense(self, x: torch.Tensor, w1: torch.Tensor, *second: torch.Tensor) -> torch.Tensor:
        """kron(w1, w2) x without the product: w2 on each of b parts of x, w1 across them."""
        hidden = x.reshape(-1, w1.shape[1], self._columns)
        hidden = hidden @ second[-1].to(x.dtype).t()
        mixed = torch.einsum("ab,nbr->nar", (self.scale * w1).to(x.dtype), hidden)
        if not self.whole:
            mixed = mixed @ second[0].to(x.dtype).t()
        return mixed.reshape(*x.shape[:-1], self.shape[0])

    def _convolved(self, module: nn.Module, x: torch.Tensor, w1: torch.Tensor,
                   *second: torch.Tensor) -> torch.Tensor:
        batch, convolve = len(x), CONVOLVE[x.ndim - 2]
        x, padding = frozen.pad_input(module, x)
        kernel = second[-1].to(x.dtype).reshape(-1, self._columns, *self.shape[2:])
        hidden = convolve(x.reshape(-1, self._columns, *x.shape[2:]), kernel, None, module.stride,
                          padding, module.dilation)
        hidden = hidden.unflatten(0, (batch, -1))
        mixed = torch.einsum("ab,nbr...->nar...", (self.scale * w1).to(x.dtype), hidden)
        if not self.whole:
            mixed = torch.einsum("cr,nar...->nac...", second[0].to(x.dtype), mixed)
        return mixed.flatten(1, 2)


def factorise(size: int, factor: int) -> tuple[int, int]:
    """Two numbers whose product is a size, the first as near to `factor` as its divisors allow.

    Neither the factor nor the second number is exceeded, as in LyCORIS.
    """
    first = max(divisor for divisor in range(1, min(factor, math.isqrt(size)) + 1)
                if size % divisor == 0)
    return first, size // first
