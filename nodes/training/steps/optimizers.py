"""The optimisers that recipes offer, behind one small interface.

Each takes a rate per group and step from outside (`Recipe.rate_factor` makes schedules and warm-up)
and goes on bit for bit from its saved state. The packages are imported when a recipe asks for them.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ...errors import LikenessError
from ..recipes.base import Recipe
from ..recipes.fields import Optimizer, Schedule
from ..recipes.rates import check_rates

# Tensors below this size keep 32-bit states (bitsandbytes' `min_8bit_size`); larger ones have one
# pair of float32 scales per block.
_8BIT_SIZE, _8BIT_BLOCK = 4096, 256
Groups = Sequence[Mapping[str, Any]]


class OptimizerHandle:
    """An optimiser over groups of parameters, each with a rate of its own.

    Args:
        optimizer: a torch optimiser.
        averages: the values to sample, probe and save differ from those that are trained
            (schedule-free); see `evaluated`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, averages: bool = False) -> None:
        self.optimizer, self.averages = optimizer, averages
        self._trained: list[torch.Tensor] | None = None  # while the averaged values are in place
        if averages:
            optimizer.train()

    def step(self, rates: Sequence[float]) -> None:
        """Change the parameters by their gradients, with one learning rate per group.

        A group whose rate is 0 stays as it is, its states too.
        """
        if self._trained is not None:
            raise RuntimeError("The parameters are in their evaluated form; train_mode() first.")
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
            if rate == 0:
                # Prodigy moves every parameter that has a gradient by the first group's step.
                for parameter in group["params"]:
                    parameter.grad = None
        self.optimizer.step()

    def zero_grad(self) -> None:
        """Free the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """A copy of all states on the CPU; `torch.load(weights_only=True)` reads it.

        It belongs to the parameters' trained values, so it is not to be had while `evaluated`.
        """
        if self._trained is not None:
            raise RuntimeError("The states belong to the trained values; train_mode() first.")
        return _on_cpu(self.optimizer.state_dict(), {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, the parameters having been restored.

        Raises:
            ValueError: the state is of other groups.
        """
        # Some implementations keep the tensors that they are given and write into them.
        self.optimizer.load_state_dict(_on_cpu(state, {}))

    def eval_mode(self) -> None:
        """Put the values that the model is judged and saved with in the parameters."""
        if not self.averages or self._trained is not None:
            return
        # The way back by arithmetic would be off by a rounding, so that a run with previews would
        # differ from one without.
        self._trained = [parameter.detach().to("cpu", copy=True) for parameter in self._all()]
        self.optimizer.eval()

    def train_mode(self) -> None:
        """Put the values that are trained back, bit for bit."""
        if self._trained is None:
            return
        self.optimizer.train()
        with torch.no_grad():
            for parameter, value in zip(self._all(), self._trained, strict=True):
                parameter.copy_(value)
        self._trained = None

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """While this lasts the parameters are what is sampled, probed and saved."""
        inside = self._trained is not None
        self.eval_mode()
        try:
            yield
        finally:
            if not inside:
                self.train_mode()

    def _all(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups
                for parameter in group["params"]]


def make_optimizer(kind: Optimizer, groups: Groups, recipe: Recipe) -> OptimizerHandle:
    """An optimiser over groups `{"params": [...], "lr": highest rate of the run}`.

    A group may have a `weight_decay` of its own in the place of the recipe's.

    Raises:
        LikenessError: its package is missing, or the recipe's rates or schedule are not for it.
    """
    own = [{"params": list(group["params"]), "lr": float(group["lr"]),
            "weight_decay": group.get("weight_decay", recipe.weight_decay)} for group in groups]
    return OptimizerHandle(_MAKERS[kind](own, recipe), averages=kind is Optimizer.SCHEDULE_FREE)


def state_bytes(kind: Optimizer, shapes: Iterable[Sequence[int]]) -> int:
    """Bytes of the states of float32 parameters of these shapes, small scalars left out."""
    return sum(_STATE_BYTES[kind](tuple(shape)) for shape in shapes)


def bytes_per_parameter(kind: Optimizer) -> float:
    """State bytes per learned number of a large matrix (1280 x 1280)."""
    return state_bytes(kind, [(1280, 1280)]) / 1280 ** 2


def _on_cpu(value: Any, seen: dict[int, torch.Tensor]) -> Any:
    """A nested state with its tensors copied to the CPU; shared ones stay shared."""
    if isinstance(value, torch.Tensor):
        if id(value) not in seen:
            seen[id(value)] = value.detach().to("cpu", copy=True)
        return seen[id(value)]
    if isinstance(value, Mapping):
        return {name: _on_cpu(item, seen) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_on_cpu(item, seen) for item in value)
    return value


def _package(kind: Optimizer, module: str, project: str) -> Any:
    """Import an optional package.

    Raises:
        LikenessError: it is not installed, or cannot run here.
    """
    try:
        return importlib.import_module(module)
    except ImportError as err:
        if err.name != module.split(".")[0]:
            raise LikenessError(f"The package {project} of the optimiser `{kind.value}` cannot be "
                                f"loaded ({err}); choose another optimiser or run `pip install "
                                f"--upgrade {project}`.") from err
        raise LikenessError(f"The optimiser `{kind.value}` needs the package {project}; run `pip "
                            f"install {project}` in ComfyUI's Python, or choose another "
                            "optimiser.") from err


def _adamw(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    """Decoupled weight decay (https://arxiv.org/abs/1711.05101)."""
    # Unfused, a step takes three times as long and on a GPU holds a second copy of what it changes.
    known = all(parameter.device.type in ("cpu", "cuda")
                for group in groups for parameter in group["params"])
    return torch.optim.AdamW(groups, fused=True if known else None)


def _adamw_8bit(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW with block-wise quantised states (https://arxiv.org/abs/2110.02861)."""
    bitsandbytes = _package(Optimizer.ADAMW_8BIT, "bitsandbytes", "bitsandbytes")
    return bitsandbytes.optim.AdamW8bit(groups, min_8bit_size=_8BIT_SIZE)


def _adafactor(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    """Factored second moments (https://arxiv.org/abs/1804.04235) at the given rate.

    Torch's version scales each step by max(eps2, RMS of the parameter). At its default of 1e-3 an
    adapter's factor that starts at zero would hardly ever move; at 1 the step is the rate itself,
    as trainers of diffusion models use it (`scale_parameter=False`), unless a parameter's RMS is
    above 1. The default eps1 of 1e-7 is above the squared gradients met here; its own square must
    still be a float32.
    """
    return torch.optim.Adafactor(groups, eps=(1e-15, 1.0))


def _prodigy(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    """Adam that estimates its own rate (https://arxiv.org/abs/2306.06101).

    Betas, bias correction and safeguarded warm-up as its authors advise for diffusion models.
    """
    check_rates(Optimizer.PRODIGY, [group["lr"] for group in groups])
    prodigyopt = _package(Optimizer.PRODIGY, "prodigyopt", "prodigyopt")
    return prodigyopt.Prodigy(groups, betas=(0.9, 0.99), use_bias_correction=True,
                              safeguard_warmup=True)


def _lion(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    """The sign of a momentum (https://arxiv.org/abs/2302.06675), with the paper's betas.

    The paper takes 3 to 10 times lower rates and as much higher weight decay than AdamW; both come
    from the recipe.
    """
    lion = _package(Optimizer.LION, "lion_pytorch", "lion-pytorch")
    return lion.Lion(groups, betas=(0.9, 0.99))


def _schedule_free(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW with an average in the place of a schedule (https://arxiv.org/abs/2405.15682)."""
    if recipe.schedule is not Schedule.CONSTANT:
        raise LikenessError("The optimiser `adamw schedule-free` takes the place of a schedule; "
                            f"set `schedule` to constant (`warmup` may stay), got "
                            f"{recipe.schedule.value}.")
    if recipe.ema:
        raise LikenessError("The optimiser `adamw schedule-free` averages by itself; set `ema` to "
                            "0.")
    schedulefree = _package(Optimizer.SCHEDULE_FREE, "schedulefree", "schedulefree")
    return schedulefree.AdamWScheduleFree(groups)


_MAKERS: Mapping[Optimizer, Callable[[list[dict[str, Any]], Recipe], torch.optim.Optimizer]] = {
    Optimizer.ADAMW: _adamw,
    Optimizer.ADAMW_8BIT: _adamw_8bit,
    Optimizer.ADAFACTOR: _adafactor,
    Optimizer.PRODIGY: _prodigy,
    Optimizer.LION: _lion,
    Optimizer.SCHEDULE_FREE: _schedule_free,
}


def _adamw_8bit_bytes(shape: tuple[int, ...]) -> int:
    size = math.prod(shape)
    return 8 * size if size < _8BIT_SIZE else 2 * size + 8 * math.ceil(size / _8BIT_BLOCK)


def _adafactor_bytes(shape: tuple[int, ...]) -> int:
    if len(shape) < 2:
        return 4 * math.prod(shape)
    *outer, rows, columns = shape
    return 4 * math.prod(outer) * (rows + columns)


_STATE_BYTES: Mapping[Optimizer, Callable[[tuple[int, ...]], int]] = {
    Optimizer.ADAMW: lambda shape: 8 * math.prod(shape),
    Optimizer.ADAMW_8BIT: _adamw_8bit_bytes,
    Optimizer.ADAFACTOR: _adafactor_bytes,
    Optimizer.PRODIGY: lambda shape: 16 * math.prod(shape),
    Optimizer.LION: lambda shape: 4 * math.prod(shape),
    Optimizer.SCHEDULE_FREE: lambda shape: 8 * math.prod(shape),
}
