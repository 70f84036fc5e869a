"""All that learns in a run, and what turns its gradients into steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from ..adapters.group import LAYERS, Adapters
from ..recipes.base import Recipe
from ..samples.data import seeded
from .ema import MovingAverage
from .optimizers import make_optimizer

_MODEL, _TEXT = "model.", "text."  # of the names of learned tensors


class Learner:
    """Adapters of the diffusion model, words and adapters of the text encoders; their optimiser.

    Args:
        network: the diffusion model, loaded.
        text: text encoders that learn, or None.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, text: Any, seed: int,
                 device: torch.device) -> None:
        self.recipe, self.text = recipe, text
        self._evaluated = False
        with torch.inference_mode(False):
            self.adapters = None
            if recipe.method in LAYERS:
                self.adapters = Adapters(network, recipe, seeded(seed, "adapters"), device)
            self.groups = self._groups()
            self.optimizer = make_optimizer(recipe.optimizer, [
                {name: value for name, value in group.items() if name != "name"}
                for group in self.groups], recipe)
            named = {str(number): value for number, value in enumerate(self.parameters)}
            self.ema = MovingAverage(named, recipe.ema) if recipe.ema > 0 else None

    def _groups(self) -> list[dict[str, Any]]:
        groups = []
        if self.adapters is not None:
            for factor, parameters in self.adapters.parameter_groups().items():
                groups.append({"name": "model", "params": parameters,
                               "lr": factor * self.recipe.learning_rate})
        return groups + (self.text.parameter_groups() if self.text is not None else [])

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Every learned tensor, in a stable order."""
        return [parameter for group in self.groups for parameter in group["params"]]

    def start_step(self, step: int, generator: torch.Generator) -> None:
        """Forget the last gradients and draw what holds for a whole step."""
        self.optimizer.train_mode()
        self.optimizer.zero_grad()
        if self.adapters is not None:
            self.adapters.start_step(generator)
        if self.text is not None:
            self.text.start_step(step, generator)

    def clip(self, largest: float) -> torch.Tensor:
        """Scale the whole gradient to a norm at most; return the norm it had."""
        return nn.utils.clip_grad_norm_(self.parameters, largest or float("inf"))

    def update(self, step: int) -> None:
        """Make an optimiser step; what has no gradient, such as words that are done, stays."""
        factor = self.recipe.rate_factor(step)
        self.optimizer.step([factor * group["lr"] for group in self.groups])
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update()

    def keep_all(self) -> None:
        """Drop nothing of what is learned until the next step draws anew."""
        for part in (self.adapters, None if self.text is None else self.text.adapters):
            if part is not None:
                part.start_step(None)

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """While this lasts the learned values are those that count: averaged, nothing dropped."""
        if self._evaluated:
            yield
            return
        self.keep_all()
        with ExitStack() as stack:
            stack.enter_context(self.optimizer.evaluated())
            if self.ema is not None:
                stack.enter_context(self.ema.swapped())
            self._evaluated = True
            stack.callback(setattr, self, "_evaluated", False)
            yield

    def tensors(self) -> dict[str, torch.Tensor]:
        """The learned values by name, detached, on the CPU."""
        found = {}
        if self.adapters is not None:
            found |= {_MODEL + name: value for name, value in self.adapters.tensors().items()}
        if self.text is not None:
            found |= {_TEXT + name: value for name, value in self.text.tensors().items()}
        return found

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `tensors` gave, in place."""
        with torch.inference_mode(False):
            for part, prefix in ((self.adapters, _MODEL), (self.text, _TEXT)):
                if part is not None:
                    part.load_tensors({name.removeprefix(prefix): value
                                       for name, value in tensors.items()
                                       if name.startswith(prefix)})

    def settle(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Make these values the result: nothing is averaged over them, and nothing learns on."""
        self.ema = None
        self.optimizer = _Settled()
        self.load_tensors(tensors)

    def optimizer_state(self) -> dict[str, Any]:
        """The optimiser's and the average's state, as plain values and tensors."""
        average = {} if self.ema is None else self.ema.tensors()
        return {"optimizer": self.optimizer.state_dict(), "ema": average}

    def restore(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Go on from learned values and an optimiser's state."""
        self.load_tensors(tensors)
        with torch.inference_mode(False):
            self.optimizer.load_state_dict(state["optimizer"])
            if self.ema is not None:
                self.ema.load_tensors(state["ema"])


class _Settled:
    """Stands for an optimiser once the result is in place."""

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """The values are those that count already."""
        yield
