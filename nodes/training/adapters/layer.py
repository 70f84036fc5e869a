"""What one layer of a model learns, whatever the technique."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


class AdapterLayer(nn.Module):
    """The learned part of one layer, float32 whatever the layer computes in.

    Attributes:
        shape: of the layer's weight, whose stored tensor may be packed otherwise.
        additive: whether what is learned adds to the weight whatever the weight is.
    """

    shape: tuple[int, ...]
    additive = True

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

    def start_step(self, generator: torch.Generator) -> None:
        """Draw what holds for a whole step, so that a block that runs twice sees the same."""

    def rate_factor(self, name: str) -> float:
        """What the learning rate of a parameter of this layer is multiplied by."""
        return 1.0
