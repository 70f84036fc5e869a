"""When a run's loss says that it is lost, though it still is a number."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from ..errors import LikenessError

# One step's loss says little, since noise levels differ between steps. Means of so many steps
# differ by a factor of two or three by chance; a model that predicts nothing but noise is beyond
# eight. The first steps are few because what learns starts as the model itself and may be lost
# within twenty.
_FIRST, _LAST, _FACTOR = 8, 16, 8.0


class Diverged(LikenessError):
    """A run has made its model worse than it was; its present state is not worth keeping."""


class NotANumber(LikenessError):
    """A loss or gradient is no number; the state before that step may be lost already."""


class LossWatch:
    """Compares the photos' own loss of the last steps with that of the first.

    Args:
        first, last: of the run so far; see the attributes.

    Attributes:
        first: losses of the run's first steps.
        last: losses of its last steps.
    """

    def __init__(self, first: Sequence[float] = (), last: Sequence[float] = ()) -> None:
        self.first, self.last = list(first), list(last)

    def record(self, loss: float) -> None:
        """Take note of a step's loss."""
        if len(self.first) < _FIRST:
            self.first.append(loss)
        else:
            self.last = [*self.last, loss][-_LAST:]

    @property
    def growth(self) -> float:
        """The last steps' mean loss as a multiple of the first steps'; 1 before it can be told."""
        start = statistics.fmean(self.first or [0.0])
        return statistics.fmean(self.last) / start if len(self.last) == _LAST and start > 0 else 1.0

    @property
    def diverged(self) -> bool:
        """Whether training has made the model worse beyond chance."""
        return self.growth > _FACTOR
