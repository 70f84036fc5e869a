"""Weights, densities and losses against diffusers' helpers and plainly written formulas."""

from __future__ import annotations

import math

import diffusers
import pytest
import torch
import training_models
from diffusers.training_utils import (
    compute_density_for_timestep_sampling,
    compute_loss_weighting_for_sd3,
    compute_snr,
)
from formulas import (
    SCHEDULE,
    TOLERANCE,
    assert_equal_gradients,
    make_trainer,
    make_twin,
    masked_loss,
    squared_error,
)
from likeness.nodes.training.objective import objectives, timesteps
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.samples.data import collate, main_captions

STEPS = torch.tensor([5, 187, 500, 731, 998])
PREDICTIONS = pytest.mark.parametrize("prediction", ["eps", "v"])


def _sampling(name: str, prediction: str = "eps"):
    return training_models.make_model(name, prediction=prediction).model.model_sampling


def _weights(recipe: LoRARecipe, sampling, sigmas: torch.Tensor) -> torch.Tensor:
    found = objectives.weighting(sampling, sigmas, recipe, 4)
    assert found.shape == (len(sigmas), 1, 1, 1)
    return found.flatten()


@PREDICTIONS
@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_equals_the_diffusers_scripts(prediction, gamma):
    sampling = _sampling("sd15", prediction)
    ours = _weights(LoRARecipe(min_snr=gamma), sampling, sampling.sigmas[STEPS])
    snr = compute_snr(SCHEDULE, STEPS)
    least = torch.minimum(snr, torch.full_like(snr, gamma))
    theirs = least / (snr if prediction == "eps" else snr + 1)
    # The host and diffusers round their tables of noise levels on their own.
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=0)


@PREDICTIONS
def test_debiased_estimation_equals_its_formula(prediction):
    sampling = _sampling("sd15", prediction)
    ours = _weights(LoRARecipe(weighting="debiased"), sampling, sampling.sigmas[STEPS])
    # 1 / sqrt(SNR) on noise (arXiv 2310.08442), 1 / (SNR + 1) on velocity; SNR 1000 at most.
    snr = compute_snr(SCHEDULE, STEPS).clamp(max=1000)
    theirs = snr ** -0.5 if prediction == "eps" else 1 / (snr + 1)
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=0)


def test_debiased_estimation_never_divides_by_more_than_a_thousand():
    sampling = _sampling("sd15")
    ours = _weights(LoRARecipe(weighting="debiased"), sampling, sampling.sigmas[:1])
    assert compute_snr(SCHEDULE, torch.tensor([0])).item() > 1000
    assert ours.item() == pytest.approx(1000 ** -0.5, rel=1e-6)


@pytest.mark.parametrize(("ours", "theirs"), [
    ("sigma sqrt", "sigma_sqrt"), ("cosmap", "cosmap"), ("none", "none"), ("auto", "none")])
@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_flow_weightings_equal_those_of_diffusers(name, ours, theirs):
    sigmas = torch.tensor([0.02, 0.3, 0.5, 0.81, 1.0])
    found = _weights(LoRARecipe(weighting=ours, min_snr=5.0), _sampling(name), sigmas)
    wanted = compute_loss_weighting_for_sd3(theirs, sigmas)
    assert torch.allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize(("ours", "theirs", "fields"), [
    ("logit-normal", "logit_normal", {"logit_mean": 0.0, "logit_std": 1.0}),
    ("logit-normal", "logit_normal", {"logit_mean": 0.5, "logit_std": 0.6}),
    ("auto", "logit_normal", {"logit_mean": 0.0, "logit_std": 1.0}),
    ("mode", "mode", {}), ("uniform", "none", {})])
def test_noise_levels_are_spread_as_diffusers_spreads_them(ours, theirs, fields):
    count = 200_000
    recipe = LoRARecipe(timesteps=ours, shift=1.0, **fields)
    found = timesteps.draw_sigmas(_sampling("sd3"), recipe, count,
                                  torch.Generator().manual_seed(1))
    wanted = compute_density_for_timestep_sampling(
        theirs, count, mode_scale=1.29, generator=torch.Generator().manual_seed(2), **fields)
    places = torch.linspace(0.005, 0.995, 100)
    apart = (torch.quantile(found, places) - torch.quantile(wanted, places)).abs().max()
    assert apart < 0.01  # the spread of a quantile of 200,000 draws is below 0.003
    assert found.min() > 0 and found.max() <= 1


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_shifted_noise_levels_equal_the_schedulers(shift):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    plain = torch.linspace(1, 1 / 1000, 1000)
    assert torch.allclose(timesteps.shifted(plain, shift), scheduler.sigmas, atol=1e-6)


def test_the_shift_by_resolution_equals_that_of_diffusers_flux():
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    for tokens in (256, 1024, 2304, 4096):
        mean = calculate_shift(tokens)
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
        levels = torch.linspace(1, 0.01, 50)
        wanted = scheduler.time_shift(mean, 1.0, levels)
        found = timesteps.shifted(levels, timesteps.resolution_shift(tokens))
        assert torch.allclose(found, wanted, rtol=1e-5)


def _huber_width(schedule: str, width: float) -> torch.Tensor:
    """Widths at STEPS, from the levels' cumulated signal (arXiv 2403.16728, as sd-scripts)."""
    if schedule == "exponential":
        return torch.exp(STEPS * math.log(width) / SCHEDULE.config.num_train_timesteps)
    if schedule == "snr":
        signal = SCHEDULE.alphas_cumprod[STEPS]
        ratio = ((1 - signal) / signal).sqrt()
        return width + (1 - width) / (1 + ratio) ** 2
    return torch.full(STEPS.shape, width)


@pytest.mark.parametrize("schedule", ["constant", "exponential", "snr"])
@pytest.mark.parametrize("loss", ["huber", "smooth l1"])
def test_huber_losses_equal_the_formula_of_sd_scripts(loss, schedule):
    sampling = _sampling("sd15")
    error = 2 * torch.randn(len(STEPS), 4, 6, 6, generator=torch.Generator().manual_seed(0))
    recipe = LoRARecipe(loss=loss, huber_width=0.1, huber_schedule=schedule)
    ours = objectives.element_loss(error, recipe, sampling, sampling.sigmas[STEPS])
    width = _huber_width(schedule, 0.1).view(-1, 1, 1, 1).double()
    wanted = 2 * ((error.double() ** 2 + width ** 2) ** 0.5 - width)
    wanted = wanted * width if loss == "huber" else wanted
    # By sample: sd-scripts divides the step by 1000, the table's places by 999.
    tolerance = 3e-3 if schedule == "exponential" else 1e-4
    for mine, theirs in zip(ours.double(), wanted, strict=True):
        assert (mine - theirs).norm() < tolerance * theirs.norm()


def test_a_wide_huber_loss_is_the_squared_loss():
    sampling = _sampling("sd3")
    error = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    recipe = LoRARecipe(loss="huber", huber_width=1e3, huber_schedule="constant")
    found = objectives.element_loss(error.double(), recipe, sampling, torch.tensor([0.2, 0.7]))
    assert torch.allclose(found.float(), error.square(), rtol=1e-4, atol=1e-7)


CASES = [  # architecture, prediction, recipe, background
    ("sd15", "eps", {"weighting": "none"}, 1.0), ("sd15", "v", {"weighting": "none"}, 1.0),
    ("sdxl", "eps", {"weighting": "none"}, 1.0), ("sdxl", "v", {"weighting": "none"}, 1.0),
    ("sd15", "eps", {"min_snr": 5.0}, 1.0), ("sdxl", "v", {"min_snr": 5.0}, 1.0),
    ("sd15", "eps", {"weighting": "none"}, 0.2), ("sdxl", "v", {"min_snr": 5.0}, 0.1),
    ("sd3", "flow", {"weighting": "none"}, 1.0), ("flux", "flow", {"weighting": "none"}, 1.0),
    ("sd3", "flow", {"weighting": "cosmap"}, 1.0),
    ("flux", "flow", {"weighting": "sigma sqrt"}, 0.2)]


@pytest.mark.parametrize(("name", "prediction", "fields", "background"), CASES)
def test_loss_and_gradients_equal_diffusers_training_formulas(name, prediction, fields, background,
                                                              tmp_path):
    training_set = training_models.make_training_set(tmp_path, name, ((16, 16), (16, 16)))
    trainer = make_trainer(training_set, name, prediction, background=background, **fields)
    samples = trainer.samples
    batch = collate(samples, main_captions(samples), trainer.device)
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(11))
    discrete = name in ("sd15", "sdxl")
    steps = torch.tensor([187, 731]) if discrete else torch.tensor([0.31, 0.84])
    sigmas = trainer.base.model_sampling.sigmas[steps] if discrete else steps
    weight = torch.ones(2)
    if "min_snr" in fields:
        snr = compute_snr(SCHEDULE, steps)
        weight = snr.clamp(max=fields["min_snr"]) / (snr if prediction == "eps" else snr + 1)
    elif not discrete:
        weight = compute_loss_weighting_for_sd3(fields["weighting"].replace(" ", "_"), steps)
    with trainer.attached():
        loss = trainer.loss(batch, sigmas, noise)
        loss.backward()
    twin = make_twin(trainer, name)
    error = squared_error(twin, prediction, batch, steps, noise)
    expected = masked_loss(error, batch, weight, background)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=TOLERANCE)
    assert_equal_gradients(trainer, twin.host_gradients)
