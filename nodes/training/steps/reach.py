"""Which layers the loss reaches: one that never gets a gradient only makes a file larger."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

# A layer that learns has a gradient in its first step; a few more, for steps that leave ranks out
# or ask a recogniser now and then.
_STEPS = 8


class Reach:
    """Looks at the gradients of a run's first steps.

    Args:
        layers: what learns, by path.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        self._waiting, self._looked = dict(layers), 0

    def look(self) -> None:
        """Take note of the layers that have a gradient; between backward and the optimiser."""
        if self._looked >= _STEPS:
            return
        self._looked += 1
        self._waiting = {path: layer for path, layer in self._waiting.items() if not any(
            parameter.grad is not None and bool(parameter.grad.any())
            for parameter in layer.parameters())}

    @property
    def missed(self) -> tuple[str, ...]:
        """Layers that had no gradient in any step that was looked at; none before the first."""
        return tuple(self._waiting) if self._looked else ()
