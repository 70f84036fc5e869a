"""Rotations of a layer's outputs, block by block: `R (W x) + bias`.

PEFT's layer rotates the inputs instead, which the host's loader cannot express; the rotation itself
is the same (the parity tests compare).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ...errors import LikenessError
from ..frozen import layers as frozen
from ..recipes.adapters import OFTRecipe
from .layer import AdapterLayer, take


class OFTLayer(AdapterLayer):
    """One adapter (https://arxiv.org/abs/2306.07280): a skew-symmetric matrix per block of outputs.

    Q = blocks - blocks^T, held at a norm of `constraint` if one is given, and R its Cayley
    transform (I + Q)(I - Q)^-1; the loader multiplies each block of rows of W by R^T. Blocks are
    as large as the output's divisors allow, at most `block_size`.

    Raises:
        LikenessError: the number of outputs has no divisor of that size.
    """

    additive = False

    def __init__(self, path: str, module: nn.Module, recipe: OFTRecipe,
                 generator: torch.Generator, device: torch.device) -> None:
        super().__init__(module)
        outputs = self.shape[0]
        size = max(size for size in range(1, min(recipe.block_size, outputs) + 1)
                   if outputs % size == 0)
        if size == 1:
            raise LikenessError(f"The {outputs} outputs of layer `{path}` cannot be cut into equal "
                                f"blocks of up to `block_size` {recipe.block_size}; raise it or "
                                "choose a smaller `target`.")
        self.constraint = recipe.constraint
        self.blocks = nn.Parameter(torch.zeros(outputs // size, size, size, device=device))

    def difference(self, weight: torch.Tensor,
                   rounded_to: torch.dtype = torch.float32) -> torch.Tensor:
        turn = self._turn(self.blocks.to(rounded_to).float()).to(weight.device)
        rows = weight.unflatten(0, turn.shape[:2])
        return torch.einsum("knm,kn...->km...", turn, rows).reshape(weight.shape)

    def to_file(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        return {"oft_blocks": self.blocks.detach().to("cpu", dtype).contiguous(),
                # Here it is the constraint and no scale; 0: none.
                "alpha": torch.tensor(self.constraint)}

    def from_file(self, tensors: Mapping[str, torch.Tensor]) -> None:
        take({"oft_blocks": self.blocks}, tensors)

    def forward(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y, bias = frozen.run(module, x), _bias(module, x)
        channel = y.ndim - 1 if frozen.is_linear(module) else 1
        turned = y
        if bias is not None:
            turned = y - bias.reshape(-1, *(1,) * (y.ndim - 1 - channel))
        turn = self._turn(self.blocks).to(y.dtype)
        rows = turned.movedim(channel, -1).unflatten(-1, turn.shape[:2])
        gained = torch.einsum("...kn,knm->...km", rows, turn).flatten(-2)
        return y + gained.movedim(-1, channel)

    def _turn(self, blocks: torch.Tensor) -> torch.Tensor:
        """R - I = 2 (I - Q)^-1 Q of each block, exactly zero at the start."""
        skew = blocks - blocks.transpose(1, 2)
        if self.constraint > 0:
            norm = torch.norm(skew) + 1e-8
            if norm > self.constraint:
                skew = skew * (self.constraint / norm)
        identity = torch.eye(skew.shape[-1], device=skew.device)
        return torch.linalg.solve(identity - skew, 2 * skew)


def _bias(module: nn.Module, like: torch.Tensor) -> torch.Tensor | None:
    """A layer's bias as it takes part in its output."""
    if module.bias is None:
        return None
    bias = module.bias.to(device=like.device, dtype=like.dtype)
    if frozen.QUANTISED not in vars(module):  # such a layer runs without the host's functions
        for function in getattr(module, "bias_function", ()):
            bias = function(bias)
    return bias
