"""A whole short run against a plain loop over diffusers, peft and torch's AdamW."""

from __future__ import annotations

from contextlib import closing

import pytest
import torch
import training_models
from likeness.nodes.training.loop import Trainer
from likeness.nodes.training.recipes.adapters import LoRARecipe
from references import make_reference

STEPS, RANK, ALPHA, RATE, GAMMA = 20, 4, 8.0, 2e-3, 5.0
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]


class RecordingTrainer(Trainer):
    """Keeps what each step trained on, so that another loop can repeat it."""

    def terms(self, batch, sigmas, noise):
        self.__dict__.setdefault("seen", []).append((batch, sigmas, noise))
        return super().terms(batch, sigmas, noise)


def _peft_network(reference, trainer):
    """The reference with peft's adapters, which start from ours."""
    from peft import LoraConfig

    network = reference.network.requires_grad_(False)
    network.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=LAYERS))
    paths = {key.removesuffix(".weight"): place[0].removesuffix(".weight")
             for key, place in reference.places.items()}
    adapters = {paths[name]: module for name, module in network.named_modules()
                if hasattr(module, "lora_A")}
    assert adapters.keys() == trainer.adapters.layers.keys()
    for path, module in adapters.items():
        module.lora_A["default"].weight.data.copy_(trainer.adapters.layers[path].down.detach())
    return network, adapters


def _weights(snr):
    """Min-SNR as the diffusers training scripts write it for noise prediction."""
    return torch.stack([snr, GAMMA * torch.ones_like(snr)], dim=1).min(dim=1)[0] / snr


def test_twenty_steps_on_sd15_equal_diffusers_with_peft(tmp_path):
    from diffusers import DDPMScheduler
    from diffusers.training_utils import compute_snr

    model = training_models.make_model("sd15")
    training_set = training_models.make_training_set(tmp_path, "sd15", ((16, 16), (16, 24)))
    recipe = LoRARecipe(steps=STEPS, rank=RANK, alpha=ALPHA, learning_rate=RATE, batch_size=2,
                        background=1.0, min_snr=GAMMA, balance_poses=False, weight_decay=0.01,
                        caption_dropout=0.2,
                        warmup=4, schedule="cosine", gradient_checkpointing=False)
    trainer = RecordingTrainer(model, training_set, recipe, seed=5)
    reference = make_reference("sd15", trainer.base.model_config.unet_config,
                               trainer.base.diffusion_model.state_dict())
    network, adapters = _peft_network(reference, trainer)
    with closing(trainer.run()) as steps:
        results = list(steps)

    schedule = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    table = trainer.base.model_sampling.sigmas
    parameters = [value for value in network.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.01)
    for result, (batch, sigmas, noise) in zip(results, trainer.seen, strict=True):
        timesteps = (table[None] - sigmas[:, None]).abs().argmin(dim=1)
        noisy = schedule.add_noise(batch.latents, noise, timesteps)
        predicted = reference.predict(noisy, timesteps, batch.conds)
        error = torch.nn.functional.mse_loss(predicted, noise, reduction="none").mean((1, 2, 3))
        loss = (error * _weights(compute_snr(schedule, timesteps))).mean()
        optimizer.param_groups[0]["lr"] = result.learning_rate
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        assert result.loss == pytest.approx(loss.item(), rel=1e-5), result.step
    for path, module in adapters.items():
        layer = trainer.adapters.layers[path]
        theirs = ALPHA / RANK * module.lora_B["default"].weight @ module.lora_A["default"].weight
        difference = (layer.difference(None).flatten(1) - theirs).norm().item()
        assert difference < 2e-4 * theirs.norm().item(), path
