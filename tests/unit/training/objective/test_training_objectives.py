"""Losses: each architecture's own objective, min-SNR and face weight, against their formulas."""

from __future__ import annotations

import pytest
import torch
import training_models
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.objective import objectives
from likeness.nodes.training.objective.timesteps import draw_sigmas, shifted
from likeness.nodes.training.parametrisation import is_flow, noise_level
from likeness.nodes.training.recipes.adapters import LoRARecipe


def _drawn(name: str, prediction: str | None = None):
    """A sampling object, noise levels and a random prediction beside the truth."""
    sampling = training_models.make_model(name, prediction=prediction).model.model_sampling
    generator = torch.Generator().manual_seed(1)
    latent, noise, output = (torch.randn(3, 4, 8, 8, generator=generator) for _ in range(3))
    sigma = draw_sigmas(sampling, LoRARecipe(), 3, generator)
    noisy = sampling.noise_scaling(sigma, noise.clone(), latent)
    return sampling, sigma, latent, noise, noisy, output


def _alphas(sigma):
    """Signal and noise amplitudes of DDPM for ComfyUI's sigma."""
    signal = (1 / (sigma ** 2 + 1)).sqrt().view(-1, 1, 1, 1)
    return signal, (1 - signal ** 2).sqrt()


@pytest.mark.parametrize(("name", "prediction"), [("sd15", None), ("sdxl", None), ("sd15", "v"),
                                                  ("sd3", None), ("flux", None)])
def test_the_objective_is_the_architectures_own(name, prediction):
    sampling, sigma, latent, noise, noisy, output = _drawn(name, prediction)
    if is_flow(sampling):
        target = noise - latent
    elif prediction == "v":
        signal, amplitude = _alphas(sigma)
        target = signal * noise - amplitude * latent
    else:
        target = noise
    estimate = sampling.calculate_denoised(sigma, output, noisy)
    error = objectives.residual(sampling, sigma, estimate, latent).square()
    assert torch.allclose(error, (output - target) ** 2, rtol=2e-3, atol=2e-4)
    ours, truth = error.mean(), ((output - target) ** 2).mean()
    assert ours.item() == pytest.approx(truth.item(), rel=1e-4)


@pytest.mark.parametrize("prediction", [None, "v"])
def test_min_snr_equals_its_published_forms(prediction):
    sampling, sigma, *_ = _drawn("sd15", prediction)
    signal, amplitude = _alphas(sigma)
    snr = (signal / amplitude) ** 2
    expected = snr.clamp(max=5.0) / (snr + 1 if prediction == "v" else snr)
    weight = objectives.min_snr_weight(sampling, sigma, 5.0, 4)
    assert torch.allclose(weight, expected, rtol=1e-4)


def test_a_face_mask_weights_the_error_and_is_normalised_by_its_mean():
    error = torch.zeros(1, 2, 4, 4)
    error[..., :2, :2] = 3.0  # on the face
    error[..., 2:, 2:] = 1.0  # a quarter of the picture, off the face
    mask = torch.zeros(1, 4, 4)
    mask[..., :2, :2] = 1.0
    loss = objectives.masked_mean(error, objectives.face_weight(mask, 0.2))
    assert loss.item() == pytest.approx((4 * 3.0 + 4 * 0.2 * 1.0) / (4 + 12 * 0.2))


def test_a_small_face_trains_as_strongly_as_a_large_one():
    error = torch.ones(2, 4, 8, 8)
    mask = torch.zeros(2, 8, 8)
    mask[0, :2, :2], mask[1, :7, :7] = 1.0, 1.0
    loss = objectives.masked_mean(error, objectives.face_weight(mask, 0.1))
    assert loss.tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("mask", [torch.zeros(1, 4, 4), torch.ones(1, 4, 4)], ids=["none", "all"])
def test_a_mask_of_nothing_or_everything_is_the_plain_mean(mask):
    error = torch.randn(1, 3, 4, 4).square()
    loss = objectives.masked_mean(error, objectives.face_weight(mask, 0.2))
    assert loss.item() == pytest.approx(error.mean().item(), rel=1e-5)


def test_a_picture_without_any_weight_adds_nothing_and_is_no_division_by_zero():
    error, weight = torch.rand(2, 4, 6, 6) + 1, torch.zeros(2, 6, 6)
    weight[1, 0, 0] = 0.5
    loss = objectives.masked_mean(error, weight)
    assert loss[0] == 0 and loss[1].item() == pytest.approx(error[1, :, 0, 0].mean().item())


def test_video_latents_take_the_same_mask_in_every_frame():
    error, mask = torch.randn(2, 3, 5, 4, 4).square(), torch.rand(2, 4, 4)
    each = torch.stack([objectives.masked_mean(error[:, :, frame], mask) for frame in range(5)])
    assert torch.allclose(objectives.masked_mean(error, mask), each.mean(0), rtol=1e-5)


def test_the_share_of_weight_on_the_face_is_told():
    mask = torch.zeros(10, 10)
    mask[:5, :2] = 1.0
    assert objectives.face_share(mask, 0.25) == pytest.approx(10 / (10 + 90 * 0.25))
    assert objectives.face_share(mask, 1.0) == pytest.approx(0.1)
    mask[5:] = 0.5  # half a face weighs 0.625 here and counts half of it
    assert objectives.face_share(mask, 0.25) == pytest.approx(
        (10 + 50 * 0.625 * 0.5) / (10 + 50 * 0.625 + 40 * 0.25))


@pytest.mark.parametrize(("name", "weighting", "kinds"), [
    ("sd3", "debiased", "noise- and velocity-predicting models, this one predicts flow"),
    ("sd15", "cosmap", "flow models, this one predicts noise or velocity"),
    ("sdxl", "sigma sqrt", "flow models, this one predicts noise or velocity")])
def test_a_weighting_of_the_other_kind_of_model_is_refused(name, weighting, kinds):
    sampling = training_models.make_model(name).model.model_sampling
    with pytest.raises(LikenessError, match=f"`weighting` {weighting} is defined for {kinds}"):
        objectives.check_weighting(sampling, LoRARecipe(weighting=weighting))
    objectives.check_weighting(sampling, LoRARecipe())


@pytest.mark.parametrize("name", ["sd15", "sd3"])
def test_the_places_of_a_schedules_ends_are_0_and_1(name):
    sampling = training_models.make_model(name).model.model_sampling
    levels = torch.stack([sampling.sigmas[0], sampling.sigmas[-1], 2 * sampling.sigmas[-1]])
    clean, *noise = noise_level(sampling, levels).tolist()
    assert clean < 5e-3 and noise == [1.0, 1.0]  # nothing is beyond pure noise


@pytest.mark.parametrize("name", training_models.ARCHITECTURES)
def test_noise_levels_come_from_the_seed_alone_and_lie_on_the_models_schedule(name):
    sampling = training_models.make_model(name).model.model_sampling
    draws = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        draws.append(draw_sigmas(sampling, LoRARecipe(), 64, torch.Generator().manual_seed(4)))
    assert torch.equal(*draws)
    assert sampling.sigma_min <= draws[0].min() and draws[0].max() <= sampling.sigma_max
    if not is_flow(sampling):
        assert torch.isin(draws[0], sampling.sigmas).all()


def test_flow_levels_are_logit_normal_through_the_models_own_shift():
    sampling = training_models.make_model("sd3").model.model_sampling
    u = torch.randn(1000, generator=torch.Generator().manual_seed(4)).sigmoid()
    drawn = draw_sigmas(sampling, LoRARecipe(), 1000, torch.Generator().manual_seed(4))
    assert torch.allclose(drawn, 3 * u / (1 + 2 * u), rtol=1e-6)  # SD3's shift is 3
    level = draw_sigmas(sampling, LoRARecipe(shift=1.0), 1000, torch.Generator().manual_seed(4))
    assert torch.allclose(level, u, rtol=1e-6)


def test_flux_levels_follow_its_exponential_shift():
    sampling = training_models.make_model("flux").model.model_sampling
    u = torch.randn(1000, generator=torch.Generator().manual_seed(4)).sigmoid()
    drawn = draw_sigmas(sampling, LoRARecipe(), 1000, torch.Generator().manual_seed(4))
    assert torch.allclose(drawn, shifted(u, torch.tensor(1.15).exp()), rtol=1e-5)


def test_uniform_levels_cover_the_whole_table_evenly():
    sampling = training_models.make_model("sd15").model.model_sampling
    drawn = draw_sigmas(sampling, LoRARecipe(), 20000, torch.Generator().manual_seed(4))
    quarters = torch.bucketize(drawn, sampling.sigmas[[250, 500, 750]]).bincount(minlength=4)
    assert (quarters / 20000 - 0.25).abs().max() < 0.02
    # A schedule that ends in pure noise is only learned if that end is drawn.
    assert drawn.min() == sampling.sigmas[0] and drawn.max() == sampling.sigmas[-1]


def test_levels_of_a_table_follow_the_density_over_its_whole_length():
    sampling = training_models.make_model("sd15").model.model_sampling
    drawn = draw_sigmas(sampling, LoRARecipe(timesteps="logit-normal"), 20000,
                        torch.Generator().manual_seed(4))
    places = torch.searchsorted(sampling.sigmas, drawn) / len(sampling.sigmas)
    wanted = torch.randn(20000, generator=torch.Generator().manual_seed(4)).sigmoid()
    assert (places - wanted).abs().max() < 2e-3


def test_no_flow_level_is_so_low_that_an_error_is_divided_by_nothing():
    sampling = training_models.make_model("sd3").model.model_sampling
    drawn = draw_sigmas(sampling, LoRARecipe(logit_mean=-60.0, shift=1.0), 8, torch.Generator())
    assert drawn.tolist() == pytest.approx([1e-4] * 8)


def test_the_shift_by_resolution_takes_the_place_of_a_shift_that_is_set():
    sampling = training_models.make_model("flux").model.model_sampling
    drawn = [draw_sigmas(sampling, LoRARecipe(shift_by_resolution=True, shift=shift), 8,
                         torch.Generator().manual_seed(4), 1024) for shift in (0.0, 5.0)]
    assert torch.equal(*drawn)
