"""What one layer of a model learns, whatever the technique."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from ...errors import LikenessError
from ..frozen import layers as frozen
from ..recipes.adapters import AdapterRecipe


class AdapterLayer(nn.Module):
    """The learned part of one layer, float32 whatever the layer computes in.

    Attributes:
        shape: (out, in, ...) of the layer's weight, whose stored tensor may be packed otherwise.
        additive: whether what is learned adds to the weight whatever the weight is.
        ranks: how many parts rank dropout chooses from.
        dropout: share of them that a step leaves out.
    """

    additive = True

    def __init__(self, module: nn.Module, ranks: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = weight_shape(module)
        self.ranks, self.dropout = ranks, dropout
        self._kept: torch.Tensor | None = None

    def forward(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """The adapted layer's output for x (..., in), or (B, C, ...) of a convolution.

        Nothing of the frozen layer may stay in the graph.
        """
        raise NotImplementedError

    def difference(self, weight: torch.Tensor,
                   rounded_to: torch.dtype = torch.float32) -> torch.Tensor:
        """What the layer's weight gains when these values, rounded to a number format, are loaded.

        Args:
            weight: the frozen weight in `shape`, float32.
        """
        raise NotImplementedError

    def to_file(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """The values as ComfyUI's loader names them: suffix after the layer's key -> tensor."""
        raise NotImplementedError

    def from_file(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `to_file` gave, in place, so that an optimiser keeps its parameters.

        Raises:
            KeyError: a tensor is missing.
            RuntimeError: a tensor has another shape.
        """
        raise NotImplementedError

    def start_step(self, generator: torch.Generator | None) -> None:
        """Draw which ranks a whole step leaves out; None: none are, as after the last step.

        What is kept is scaled by 1 / (1 - dropout). A block that runs twice sees the same draw.
        """
        self._kept = None
        if generator is not None and self.dropout > 0:
            kept = torch.rand(self.ranks, generator=generator) >= self.dropout
            self._kept = (kept / (1 - self.dropout)).to(next(self.parameters()).device)

    def kept_of(self, factor: torch.Tensor, dim: int) -> torch.Tensor:
        """A factor without the ranks, counted along a dimension, that this step leaves out.

        Only where gradients are taken: a preview or a probe shows all that was learned.
        """
        if self._kept is None or not torch.is_grad_enabled():
            return factor
        sizes = [1] * factor.ndim
        sizes[dim] = -1
        return factor * self._kept.reshape(sizes)

    def rate_factor(self, name: str) -> float:
        """What the learning rate of a parameter of this layer is multiplied by."""
        return 1.0


def weight_shape(module: nn.Module) -> tuple[int, ...]:
    """(out, in) of a dense layer's weight, (out, in, ...) of a convolution's."""
    if frozen.is_linear(module):
        return module.out_features, module.in_features
    return module.out_channels, module.in_channels // module.groups, *module.kernel_size


def frozen_weight(module: nn.Module, device: torch.device) -> torch.Tensor:
    """A float32 copy of a layer's weight, dequantised and patched."""
    weight, bias, stream = frozen.read_weight(module, torch.empty(0, device=device))
    copy = weight.detach().reshape(weight_shape(module)).clone()
    frozen.release(module, weight, bias, stream)
    return copy


def rank_within(path: str, module: nn.Module, recipe: AdapterRecipe) -> int:
    """The rank of a layer's factors.

    Convolutions take at most what they can hold: a model's last one often has 4 outputs, and more
    would add nothing.

    Raises:
        LikenessError: the rank exceeds what a dense layer can hold.
    """
    outputs, inputs = weight_shape(module)[0], math.prod(weight_shape(module)[1:])
    rank, most = recipe.rank_of(path), min(inputs, outputs)
    if frozen.is_conv(module):
        return min(rank, most)
    if rank > most:
        raise LikenessError(f"`rank` {rank} is larger than layer `{path}` ({inputs} to {outputs}); "
                            f"lower it to {most} or less.")
    return rank


def take(parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy a file's tensors into parameters, in place.

    Raises:
        KeyError: a tensor is missing.
        RuntimeError: a tensor has another number of values.
    """
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name].reshape(parameter.shape))
