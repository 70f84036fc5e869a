"""Losses and adapter gradients against diffusers' networks, formulas and plain autograd."""

from __future__ import annotations

import diffusers
import pytest
import torch
import training_models
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.samples.data import collate, main_captions
from likeness.nodes.training.steps.loop import Trainer
from references import make_reference

TOLERANCE = 1e-5


def _trainer(name: str, folder, checkpointing: bool, prediction: str | None = None, **fields):
    model = training_models.make_model(name, prediction=prediction)
    training_set = training_models.make_training_set(folder, name, ((16, 16), (16, 16)))
    recipe = LoRARecipe(steps=2, rank=4, alpha=8.0, target="all linear", background=1.0,
                        gradient_checkpointing=checkpointing, **{"min_snr": 0.0, **fields})
    trainer = Trainer(model, training_set, recipe, seed=3)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for layer in trainer.adapters.layers.values():
            layer.up.normal_(0.0, 0.02, generator=generator)  # zero would hide `down`'s gradient
    return trainer


def _inputs(trainer: Trainer, name: str):
    generator = torch.Generator().manual_seed(11)
    batch = collate(trainer.samples, main_captions(trainer.samples), trainer.device)
    noise = torch.randn(batch.latents.shape, generator=generator)
    if name in ("sd15", "sdxl"):
        steps = torch.tensor([187, 731])
        return batch, trainer.base.model_sampling.sigmas[steps], noise, steps
    sigmas = torch.tensor([0.31, 0.84])
    return batch, sigmas, noise, sigmas


def _twin(name: str, trainer: Trainer):
    """The diffusers network with the adapters added to its weights."""
    weights = trainer.base.diffusion_model.state_dict()
    with torch.no_grad():
        for path, layer in trainer.adapters.layers.items():
            weights[f"{path}.weight"] = weights[f"{path}.weight"] + layer.difference(
                weights[f"{path}.weight"])
    return make_reference(name, trainer.base.model_config.unet_config, weights)


def _reference_loss(name, reference, batch, steps, noise, prediction="eps"):
    """Diffusers' training formula: DDPM noise or velocity, or rectified flow."""
    latents, conds = batch.latents, dict(batch.conds)
    if name in ("sd15", "sdxl"):
        schedule = diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012,
                                           beta_schedule="scaled_linear")
        noisy = schedule.add_noise(latents, noise, steps)
        target = noise if prediction == "eps" else schedule.get_velocity(latents, noise, steps)
        conds["time_ids"] = torch.tensor(
            # height, width, top, left, target height, target width
            [[1500.0, 1000.0, 100.0, 50.0, 128.0, 128.0]]).repeat(len(latents), 1)
    else:
        level = steps.view(-1, 1, 1, 1)
        noisy, target = (1 - level) * latents + level * noise, noise - latents
    return torch.nn.functional.mse_loss(reference.predict(noisy, steps, conds), target)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("name", training_models.ARCHITECTURES)
def test_adapter_gradients_equal_those_of_diffusers_networks(name, checkpointing, tmp_path):
    trainer = _trainer(name, tmp_path, checkpointing)
    batch, sigmas, noise, steps = _inputs(trainer, name)
    with trainer.attached():
        loss = trainer.loss(batch, sigmas, noise)
        loss.backward()
    reference = _twin(name, trainer)
    expected = _reference_loss(name, reference, batch, steps, noise)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=TOLERANCE)
    pairs = _pairs(trainer, reference.host_gradients)
    error = torch.cat([(ours - truth).flatten() for ours, truth in pairs.values()]).norm()
    whole = torch.cat([truth.flatten() for _, truth in pairs.values()]).norm()
    assert error < TOLERANCE * whole
    for path, (ours, truth) in pairs.items():
        # What is added before a group norm of single channels cancels: both are only rounding.
        assert (ours - truth).norm() < 5 * TOLERANCE * truth.norm() + 1e-6 * whole, path


@torch.no_grad()
def _pairs(trainer: Trainer, gradients):
    """Our gradients beside those that d loss / d W of the adapted layer W implies."""
    pairs = {}
    for path, layer in trainer.adapters.layers.items():
        full = gradients[f"{path}.weight"].flatten(1)
        up, down = layer.up.flatten(1), layer.down.flatten(1)
        pairs[f"{path}.up"] = layer.up.grad.flatten(1), layer.scale * full @ down.T
        pairs[f"{path}.down"] = layer.down.grad.flatten(1), layer.scale * up.T @ full
    return pairs


def test_velocity_models_train_on_velocity(tmp_path):
    trainer = _trainer("sd15", tmp_path, False, prediction="v")
    batch, sigmas, noise, steps = _inputs(trainer, "sd15")
    with trainer.attached():
        loss = trainer.loss(batch, sigmas, noise)
    reference = _twin("sd15", trainer)
    expected = _reference_loss("sd15", reference, batch, steps, noise, prediction="v")
    assert loss.item() == pytest.approx(expected.item(), rel=TOLERANCE)
