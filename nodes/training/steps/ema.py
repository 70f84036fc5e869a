"""A running average of what is learned, taken beside the run and never fed back into it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage:
    """Exponential moving average of named parameters.

    Early steps count less: the share kept is at most (1 + n) / (10 + n) after n steps and nothing
    of the first values stays, the rule of diffusers' `EMAModel`.

    Factors of a product are averaged one by one. Between runs that would be meaningless, since
    `up down = (up R) (R^-1 down)` for any R and each run ends with another R: there only the
    difference of the weight may be averaged. Within one run both factors stay in one basis, and
    mean(up) mean(down) departs from mean(up down) only by the covariance of the two over the
    average's window, which is of second order in how far they move in it. Rows of words and whole
    weights are linear, so there the average is exact.

    Args:
        parameters: what learns, by name; float32.
        decay: share of the average that a step keeps, below 1.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters, self.decay, self.updates = dict(parameters), decay, 0
        self._values = [parameter.detach().clone() for parameter in self.parameters.values()]
        self._swapped = False

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters' values after a step."""
        self._own_values()
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.updates else 0.0
        get_ema_multi_avg_fn(decay)(self._values, list(self.parameters.values()), self.updates)
        self.updates += 1

    def tensors(self) -> dict[str, torch.Tensor]:
        """The averages by name and the number of `updates`, copied to the CPU."""
        self._own_values()
        values = {name: value.to("cpu", copy=True)
                  for name, value in zip(self.parameters, self._values, strict=True)}
        return {**values, "updates": torch.tensor(self.updates)}

    @torch.no_grad()
    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `tensors` gave.

        Raises:
            KeyError: a tensor is missing.
        """
        self._own_values()
        for name, value in zip(self.parameters, self._values, strict=True):
            value.copy_(tensors[name])
        self.updates = int(tensors["updates"])

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """While this lasts the parameters hold the averages; their own values return bit for bit.

        Before the first update the average is the start itself.
        """
        self._swap()
        self._swapped = True
        try:
            yield
        finally:
            self._swapped = False
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        self._own_values()
        for parameter, value in zip(self.parameters.values(), self._values, strict=True):
            own = parameter.detach().clone()  # one at a time: a whole model may be learning
            parameter.copy_(value)
            value.copy_(own)

    def _own_values(self) -> None:
        if self._swapped:
            raise RuntimeError("The average is swapped in; leave `swapped` first.")
