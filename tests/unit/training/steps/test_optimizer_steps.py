"""Steps of the optimisers against their formulas, with rates and decays that differ by group."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.recipes.fields import Optimizer
from likeness.nodes.training.steps.optimizers import make_optimizer
from torch import nn

STEPS = 6
# By step and group: as a warm-up and a schedule give them.
RATES = [(1e-2 * share, 3e-3 * share) for share in (0.2, 0.6, 1.0, 0.8, 0.5, 0.1)]
DECAYS = (0.3, 0.05)
Update = Callable[[torch.Tensor, torch.Tensor, dict, float, float, int], torch.Tensor]


def _starts() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in ((4, 6), (7,), (3, 5))]


def _gradient(value: torch.Tensor, step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    return value - 1.0 + 0.1 * torch.randn(value.shape, generator=generator)


def _groups(parameters: list[nn.Parameter], rates: tuple[float, float]) -> list[dict]:
    return [{"params": parameters[:1], "lr": rates[0], "weight_decay": DECAYS[0]},
            {"params": parameters[1:], "lr": rates[1]}]


def _trained(kind: Optimizer, rates: list[tuple[float, float]]) -> list[torch.Tensor]:
    """What our optimiser makes of the quadratic; the second group has the recipe's decay."""
    parameters = [nn.Parameter(value) for value in _starts()]
    recipe = LoRARecipe(optimizer=kind, weight_decay=DECAYS[1])
    handle = make_optimizer(kind, _groups(parameters, rates[0]), recipe)
    _run(handle.step, parameters, rates)
    return [parameter.detach() for parameter in parameters]


def _run(step: Callable, parameters: list[nn.Parameter], rates: list[tuple[float, float]]) -> None:
    for number, given in enumerate(rates):
        for parameter in parameters:
            parameter.grad = _gradient(parameter.detach(), number)
        step(given)


def _written(update: Update) -> list[torch.Tensor]:
    """What a formula makes of it, in float64."""
    values = [value.double() for value in _starts()]
    states: list[dict] = [{} for _ in values]
    for number, rates in enumerate(RATES):
        for place, value in enumerate(values):
            group = min(place, 1)
            gradient = _gradient(value.float(), number).double()
            values[place] = update(value, gradient, states[place], rates[group], DECAYS[group],
                                   number + 1)
    return [value.float() for value in values]


def _adamw(value, gradient, state, rate, decay, number):
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * gradient
    state["v"] = 0.999 * state.get("v", 0) + 0.001 * gradient ** 2
    first, second = state["m"] / (1 - 0.9 ** number), state["v"] / (1 - 0.999 ** number)
    return value * (1 - rate * decay) - rate * first / (second.sqrt() + 1e-8)


def _lion(value, gradient, state, rate, decay, number):
    mean = state.get("m", torch.zeros_like(gradient))
    state["m"] = 0.99 * mean + 0.01 * gradient
    return value * (1 - rate * decay) - rate * (0.9 * mean + 0.1 * gradient).sign()


def _assert_same(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    for one, other, start in zip(found, wanted, _starts(), strict=True):
        change = (other - start).norm()
        assert change > 1e-3 and (one - other).norm() < 1e-4 * change


@pytest.mark.parametrize(("kind", "update"), [(Optimizer.ADAMW, _adamw), (Optimizer.LION, _lion)])
def test_steps_are_the_papers_with_each_groups_rate_and_decay(kind, update):
    _assert_same(_trained(kind, RATES), _written(update))


def test_prodigy_steps_as_its_authors_advise_for_diffusion_models():
    prodigyopt = pytest.importorskip("prodigyopt")
    rates = [(share, share) for share in (0.3, 0.7, 1.0, 1.0, 1.0, 1.0)] + [(1.0, 1.0)] * 60
    parameters = [nn.Parameter(value) for value in _starts()]
    groups = [{"weight_decay": DECAYS[1], **group} for group in _groups(parameters, rates[0])]
    # https://github.com/konstmish/prodigy, "How to use".
    plain = prodigyopt.Prodigy(groups, betas=(0.9, 0.99), use_bias_correction=True,
                               safeguard_warmup=True)

    def step(given: tuple[float, float]) -> None:
        for group, rate in zip(plain.param_groups, given, strict=True):
            group["lr"] = rate
        plain.step()

    _run(step, parameters, rates)
    _assert_same(_trained(Optimizer.PRODIGY, rates), [value.detach() for value in parameters])


def test_8_bit_states_are_those_of_adamw_up_to_their_coding():
    value, rate = torch.randn(64, 96, generator=torch.Generator().manual_seed(0)), 1e-2
    ends = []
    for kind in (Optimizer.ADAMW, Optimizer.ADAMW_8BIT):
        parameter = nn.Parameter(value.clone())
        handle = make_optimizer(kind, [{"params": [parameter], "lr": rate}],
                                LoRARecipe(optimizer=kind, weight_decay=0.3))
        for number in range(STEPS):
            parameter.grad = _gradient(parameter.detach(), number)
            handle.step([rate])
        ends.append(parameter.detach())
    change = (ends[0] - value).norm()
    assert (ends[1] - ends[0]).norm() < 0.05 * change


def test_schedule_free_evaluates_the_mean_of_the_steps_that_it_took():
    value = torch.tensor([3.0, -2.0])
    parameter = nn.Parameter(value.clone())
    kind = Optimizer.SCHEDULE_FREE
    handle = make_optimizer(kind, [{"params": [parameter], "lr": 0.1}],
                            LoRARecipe(optimizer=kind, weight_decay=0.0))
    # x = mean of the iterates z, y = 0.1 z + 0.9 x (arXiv 2405.15682, with Adam's denominator).
    z = x = value.double()
    second, taken = 0.0, []
    for number in range(1, STEPS + 1):
        y = 0.1 * z + 0.9 * x
        assert torch.allclose(parameter.detach().double(), y, rtol=1e-5)
        gradient = _gradient(y.float(), number).double()
        parameter.grad = gradient.float()
        handle.step([0.1])
        second = 0.999 * second + 0.001 * gradient ** 2
        z = z - 0.1 * gradient / ((second / (1 - 0.999 ** number)).sqrt() + 1e-8)
        taken.append(z)
        x = torch.stack(taken).mean(0)
    with handle.evaluated():
        assert torch.allclose(parameter.detach().double(), x, rtol=1e-4)
