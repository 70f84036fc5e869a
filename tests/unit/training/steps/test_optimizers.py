"""Optimisers: exact resume, the states' size, and what each one asks of a recipe."""

from __future__ import annotations

import importlib
import io

import pytest
import torch
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.recipes.fields import Optimizer
from likeness.nodes.training.steps.optimizers import (
    OptimizerHandle,
    bytes_per_parameter,
    make_optimizer,
    state_bytes,
)
from torch import nn

KINDS = list(Optimizer)
# The last one is large enough for 8-bit states; the first has no dimensions.
SHAPES = ((), (7,), (4, 6), (3, 2, 3, 3), (96, 64))
PACKAGES = {Optimizer.ADAMW_8BIT: ("bitsandbytes", "bitsandbytes"),
            Optimizer.PRODIGY: ("prodigyopt", "prodigyopt"),
            Optimizer.LION: ("lion_pytorch", "lion-pytorch"),
            Optimizer.SCHEDULE_FREE: ("schedulefree", "schedulefree")}


def _parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    made = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    made[2].data.zero_()  # as the second factor of an adapter starts
    return made


def _recipe(kind: Optimizer, **fields) -> LoRARecipe:
    rate = 1.0 if kind is Optimizer.PRODIGY else 1e-2
    return LoRARecipe(**{"learning_rate": rate, "optimizer": kind, **fields})


def _make(kind: Optimizer, parameters: list[nn.Parameter], **fields) -> OptimizerHandle:
    recipe = _recipe(kind, **fields)
    second = recipe.learning_rate * (1.0 if kind is Optimizer.PRODIGY else 0.5)
    return make_optimizer(kind, [{"params": parameters[:3], "lr": recipe.learning_rate},
                                 {"params": parameters[3:], "lr": second}], recipe)


def _train(handle: OptimizerHandle, parameters: list[nn.Parameter], steps: range) -> None:
    """Steps on a quadratic with noise that is the same for the same step."""
    rates = [group["lr"] for group in handle.optimizer.param_groups]
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.grad = (parameter.detach() - 1.0) + 0.1 * noise
        handle.step(rates)
        handle.zero_grad()


def _through_file(value):
    stored = io.BytesIO()
    torch.save(value, stored)
    stored.seek(0)
    return torch.load(stored, map_location="cpu", weights_only=True)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_a_run_that_goes_on_from_its_state_equals_one_that_never_stopped(kind):
    straight = _parameters()
    _train(_make(kind, straight), straight, range(9))

    first = _parameters()
    handle = _make(kind, first)
    _train(handle, first, range(5))
    stored = _through_file({"values": [value.detach() for value in first],
                            "optimizer": handle.state_dict()})
    resumed = _parameters()
    handle = _make(kind, resumed)
    with torch.no_grad():
        for parameter, value in zip(resumed, stored["values"], strict=True):
            parameter.copy_(value)
    handle.load_state_dict(stored["optimizer"])
    _train(handle, resumed, range(5, 9))

    for ours, truth, before in zip(resumed, straight, _parameters(), strict=True):
        assert torch.equal(ours, truth), ours.shape
        assert not torch.equal(ours, before), ours.shape


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_a_state_that_was_taken_does_not_change_with_later_steps(kind):
    parameters = _parameters()
    handle = _make(kind, parameters)
    _train(handle, parameters, range(2))
    state = handle.state_dict()
    before = _through_file(state)
    _train(handle, parameters, range(2, 4))
    handle.load_state_dict(state)
    _train(handle, parameters, range(4, 6))
    for number, values in before["state"].items():
        assert _same(values, state["state"][number])


def _same(one, other) -> bool:
    if isinstance(one, dict):
        return all(_same(value, other[name]) for name, value in one.items())
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_every_optimiser_approaches_the_minimum(kind):
    parameters = _parameters()
    handle = _make(kind, parameters, weight_decay=0.0)
    _train(handle, parameters, range(400))
    with handle.evaluated():
        for parameter, start in zip(parameters, _parameters(), strict=True):
            assert (parameter - 1.0).norm() < 0.6 * (start - 1.0).norm(), parameter.shape


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_a_group_whose_rate_is_zero_stays_as_it_is(kind):
    parameters = _parameters()
    handle = _make(kind, parameters)
    _train(handle, parameters, range(3))
    still = [parameter.detach().clone() for parameter in parameters]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    handle.step([handle.optimizer.param_groups[0]["lr"], 0.0])
    moved = [not torch.equal(value, before)
             for value, before in zip(parameters, still, strict=True)]
    assert moved == [True, True, True, False, False]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_the_memory_plan_knows_the_states_size(kind):
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((320, 640), (16, 100), (50,))]
    with torch.no_grad():
        for parameter in parameters:
            parameter.fill_(0.5)  # Prodigy keeps no first values of zeros
    recipe = _recipe(kind)
    handle = make_optimizer(kind, [{"params": parameters, "lr": recipe.learning_rate}], recipe)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    handle.step([recipe.learning_rate])
    held = {id(tensor): tensor.nbytes for state in handle.optimizer.state.values()
            for name, tensor in state.items()
            if isinstance(tensor, torch.Tensor) and tensor.numel() > 1 and "qmap" not in name}
    assert state_bytes(kind, [parameter.shape for parameter in parameters]) == sum(held.values())


def test_bytes_per_parameter_are_those_of_large_matrices():
    figures = {kind.value: round(bytes_per_parameter(kind), 2) for kind in KINDS}
    assert figures == {"adamw": 8.0, "adamw 8-bit": 2.03, "adafactor": 0.01, "prodigy": 16.0,
                       "lion": 4.0, "adamw schedule-free": 8.0}


def test_adafactor_takes_the_steps_that_diffusion_trainers_take_with_it():
    transformers = pytest.importorskip("transformers")
    ours, theirs, start = ([nn.Parameter(0.1 * parameter.detach()) for parameter in _parameters()
                            if parameter.ndim == 2] for _ in range(3))
    recipe = _recipe(Optimizer.ADAFACTOR)
    handle = make_optimizer(Optimizer.ADAFACTOR, [{"params": ours, "lr": 1e-3}], recipe)
    reference = transformers.Adafactor(theirs, lr=1e-3, scale_parameter=False, relative_step=False,
                                       warmup_init=False, weight_decay=recipe.weight_decay)
    for step in range(6):
        generator = torch.Generator().manual_seed(step)
        for one, other in zip(ours, theirs, strict=True):
            one.grad = 1e-6 * torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        handle.step([1e-3])
        reference.step()
    for one, other, before in zip(ours, theirs, start, strict=True):
        change = (other - before).norm()
        assert change > 1e-4 and (one - other).norm() < 1e-4 * change


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_a_gradient_of_zeros_leaves_numbers(kind):
    parameters = _parameters()
    handle = _make(kind, parameters)
    for scale in (0.0, 1.0, 0.0):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, scale)
        handle.step([group["lr"] for group in handle.optimizer.param_groups])
    assert all(parameter.isfinite().all() for parameter in parameters)


def test_schedule_free_values_are_averaged_inside_and_trained_outside_bit_for_bit():
    parameters = _parameters()
    handle = _make(Optimizer.SCHEDULE_FREE, parameters)
    _train(handle, parameters, range(5))
    trained = [parameter.detach().clone() for parameter in parameters]
    with handle.evaluated():
        assert not any(torch.equal(value, before)
                       for value, before in zip(parameters, trained, strict=True))
        with pytest.raises(RuntimeError, match="train_mode"):
            handle.step([1e-2, 1e-2])
        with pytest.raises(RuntimeError, match="train_mode"):
            handle.state_dict()
    assert all(torch.equal(value, before)
               for value, before in zip(parameters, trained, strict=True))
    _train(handle, parameters, range(5, 7))
    straight = _parameters()
    _train(_make(Optimizer.SCHEDULE_FREE, straight), straight, range(7))
    assert all(torch.equal(value, truth)
               for value, truth in zip(parameters, straight, strict=True))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_a_look_and_a_state_under_inference_mode_do_not_change_the_run(kind):
    straight, parameters = _parameters(), _parameters()
    _train(_make(kind, straight), straight, range(6))
    handle = _make(kind, parameters)
    _train(handle, parameters, range(3))
    with torch.inference_mode():
        with handle.evaluated():
            pass
        state = handle.state_dict()
    handle.load_state_dict(state)
    _train(handle, parameters, range(3, 6))
    assert all(torch.equal(value, truth)
               for value, truth in zip(parameters, straight, strict=True))


def test_a_look_inside_a_look_leaves_the_averaged_values_in_place():
    parameters = _parameters()
    handle = _make(Optimizer.SCHEDULE_FREE, parameters)
    _train(handle, parameters, range(5))
    with handle.evaluated():
        averaged = [parameter.detach().clone() for parameter in parameters]
        with handle.evaluated():
            pass
        assert all(torch.equal(value, before)
                   for value, before in zip(parameters, averaged, strict=True))


def test_other_optimisers_evaluate_what_they_train():
    parameters = _parameters()
    handle = _make(Optimizer.ADAMW, parameters)
    before = [parameter.detach().clone() for parameter in parameters]
    with handle.evaluated():
        assert all(torch.equal(value, held)
                   for value, held in zip(parameters, before, strict=True))


def test_adamw_is_torch_adamw():
    ours, theirs = _parameters(), _parameters()
    _train(_make(Optimizer.ADAMW, ours, weight_decay=0.1), ours, range(4))
    plain = torch.optim.AdamW([{"params": theirs[:3], "lr": 1e-2},
                               {"params": theirs[3:], "lr": 5e-3}], weight_decay=0.1)
    _train(OptimizerHandle(plain), theirs, range(4))
    # The fused step, which is taken, rounds otherwise than the plain one.
    assert all(torch.allclose(value, truth, rtol=1e-6, atol=1e-7)
               for value, truth in zip(ours, theirs, strict=True))


def test_prodigy_refuses_a_rate_of_another_optimiser():
    with pytest.raises(LikenessError, match="`learning_rate` to 1, got 0.0001"):
        _make(Optimizer.PRODIGY, _parameters(), learning_rate=1e-4)


def test_prodigy_refuses_rates_that_differ():
    groups = [{"params": [nn.Parameter(torch.ones(2))], "lr": rate} for rate in (1.0, 0.5)]
    with pytest.raises(LikenessError, match="one learning rate"):
        make_optimizer(Optimizer.PRODIGY, groups, _recipe(Optimizer.PRODIGY))


def test_schedule_free_refuses_a_schedule_and_a_second_average():
    with pytest.raises(LikenessError, match="`schedule` to constant"):
        _make(Optimizer.SCHEDULE_FREE, _parameters(), schedule="cosine")
    with pytest.raises(LikenessError, match="`ema` to 0"):
        _make(Optimizer.SCHEDULE_FREE, _parameters(), ema=0.99)
    _make(Optimizer.SCHEDULE_FREE, _parameters(), warmup=10)


@pytest.mark.parametrize("kind", PACKAGES, ids=lambda kind: kind.value)
def test_a_missing_package_is_named_with_the_command_that_installs_it(kind, monkeypatch):
    module, project = PACKAGES[kind]

    def missing(name: str):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(LikenessError, match=f"`{kind.value}` needs the package {project}; run "
                                            f"`pip install {project}`"):
        _make(kind, _parameters())


def test_nothing_is_printed_when_an_optimiser_is_made(capsys):
    for kind in KINDS:
        _make(kind, _parameters())
    assert capsys.readouterr().out == ""
