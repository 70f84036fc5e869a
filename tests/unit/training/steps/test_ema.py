"""The running average: its rule, its exact resume, and how well averaged factors stand for dW."""

from __future__ import annotations

import io

import pytest
import torch
from likeness.nodes.training.steps.ema import MovingAverage
from torch import nn


def _parameters() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, generator=generator))
            for name, shape in (("one.up", (6, 2)), ("one.down", (2, 5)), ("scale", ()))}


def _move(parameters: dict[str, nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def _run(average: MovingAverage, parameters: dict[str, nn.Parameter], steps: range) -> None:
    for step in steps:
        _move(parameters, step)
        average.update()


def test_the_average_is_that_of_diffusers():
    training_utils = pytest.importorskip("diffusers.training_utils")
    parameters = _parameters()
    ours = MovingAverage(parameters, 0.9)
    theirs = training_utils.EMAModel(parameters.values(), decay=0.9)
    for step in range(150):
        _move(parameters, step)
        ours.update()
        theirs.step(parameters.values())
        for name, truth in zip(parameters, theirs.shadow_params, strict=True):
            assert torch.allclose(ours.tensors()[name], truth, atol=1e-6), (name, step)


def test_the_start_has_no_part_in_the_average():
    parameters = {"x": nn.Parameter(torch.tensor([1e6]))}
    average = MovingAverage(parameters, 0.999)
    for _ in range(3):
        with torch.no_grad():
            parameters["x"].fill_(2.0)
        average.update()
    assert average.tensors()["x"].item() == 2.0


def test_an_average_that_goes_on_from_its_file_equals_one_that_never_stopped():
    straight = _parameters()
    truth = MovingAverage(straight, 0.99)
    _run(truth, straight, range(40))

    parameters = _parameters()
    average = MovingAverage(parameters, 0.99)
    _run(average, parameters, range(17))
    stored = io.BytesIO()
    torch.save(average.tensors(), stored)
    stored.seek(0)
    resumed = MovingAverage(parameters, 0.99)
    resumed.load_tensors(torch.load(stored, weights_only=True))
    _run(resumed, parameters, range(17, 40))
    ours = resumed.tensors()
    assert ours.keys() == truth.tensors().keys()
    assert all(torch.equal(ours[name], value) for name, value in truth.tensors().items())


def test_averages_are_in_the_parameters_inside_and_the_trained_values_after():
    parameters = _parameters()
    average = MovingAverage(parameters, 0.9)
    _run(average, parameters, range(5))
    trained = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    averages = average.tensors()
    with pytest.raises(ValueError, match="stop"), average.swapped():
        assert all(torch.equal(parameters[name], averages[name]) for name in parameters)
        with pytest.raises(RuntimeError, match="leave `swapped` first"):
            average.update()
        with pytest.raises(RuntimeError, match="leave `swapped` first"):
            average.tensors()
        raise ValueError("stop")
    assert all(torch.equal(parameters[name], trained[name]) for name in parameters)
    assert all(torch.equal(average.tensors()[name], averages[name]) for name in parameters)


def test_a_look_under_inference_mode_does_not_change_the_run():
    straight, parameters = _parameters(), _parameters()
    truth, average = MovingAverage(straight, 0.9), MovingAverage(parameters, 0.9)
    _run(truth, straight, range(6))
    _run(average, parameters, range(3))
    with torch.inference_mode(), average.swapped():
        pass
    _run(average, parameters, range(3, 6))
    ours = average.tensors()
    assert all(torch.equal(ours[name], value) for name, value in truth.tensors().items())


def test_averaged_factors_of_one_run_stand_for_the_averaged_difference():
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(24, 16, generator=generator) / 4
    parameters = {"up": nn.Parameter(torch.zeros(24, 4)),
                  "down": nn.Parameter(torch.randn(4, 16, generator=generator) / 4)}
    optimizer = torch.optim.AdamW(parameters.values(), lr=2e-2)
    average, products = MovingAverage(parameters, 0.95), {"dW": nn.Parameter(torch.zeros(24, 16))}
    truth = MovingAverage(products, 0.95)
    for _ in range(200):
        x = torch.randn(8, 16, generator=generator)
        loss = (x @ (target - parameters["up"] @ parameters["down"]).t()).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        with torch.no_grad():
            products["dW"].copy_(parameters["up"] @ parameters["down"])
        truth.update()
    ours, wanted = average.tensors(), truth.tensors()["dW"]
    off = (ours["up"] @ ours["down"] - wanted).norm() / wanted.norm()
    smoothed = (products["dW"] - wanted).norm() / wanted.norm()
    # Rates are far above those of training; what the average smooths away is still much more.
    assert off < 0.02 and off < 0.25 * smoothed, (off, smoothed)
