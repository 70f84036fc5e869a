"""Whole short runs against a plain loop over diffusers, peft and torch's AdamW."""

from __future__ import annotations

from contextlib import closing

import pytest
import torch
import training_models
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.steps.loop import Trainer
from peft import LoraConfig
from references import make_reference

STEPS, RANK, ALPHA, RATE, DECAY, GAMMA = 20, 4, 8.0, 2e-3, 0.01, 5.0
# AdamW divides each gradient by its own size, so a number whose gradient is all but rounding takes
# a step that is all but rounding: a few of them in a layer, next to none in the whole adapter.
LOSS, LAYER, ADAPTER = 1e-5, 1e-3, 5e-5
_UNET = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]
_JOINT = [*_UNET, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
          "ff_context.net.0.proj", "ff_context.net.2"]
LAYERS = {"sd15": _UNET, "sdxl": _UNET, "sd3": _JOINT,
          "flux": [*_JOINT, "proj_mlp", "single_transformer_blocks.0.proj_out",
                   "single_transformer_blocks.1.proj_out"]}


class RecordingTrainer(Trainer):
    """Keeps what each step trained on, so that another loop can repeat it."""

    def terms(self, batch, sigmas, noise):
        self.__dict__.setdefault("seen", []).append((batch, sigmas, noise))
        return super().terms(batch, sigmas, noise)


def _peft_network(reference, trainer):
    """The reference with peft's adapters, which start from ours, by the host's layer.

    The host keeps query, key and value in one layer where diffusers has three: there the three
    share `lora_A`, as parts of one LoRA do.
    """
    network = reference.network.requires_grad_(False)
    network.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=LAYERS[reference.name]))
    parts = {}
    for name, module in network.named_modules():
        if hasattr(module, "lora_A"):
            host, place, _ = reference.places[f"{name}.weight"]
            parts.setdefault(host.removesuffix(".weight"), []).append(
                (0 if place is None else place[1], module))
    assert parts.keys() == trainer.adapters.layers.keys()
    adapters = {}
    for path, pieces in parts.items():
        adapters[path] = [module for _, module in sorted(pieces, key=lambda piece: piece[0])]
        shared = torch.nn.Parameter(trainer.adapters.layers[path].down.detach().clone())
        for module in adapters[path]:
            module.lora_A["default"].weight = shared
    return network, adapters


def _weights(snr):
    """Min-SNR as the diffusers training scripts write it for noise prediction."""
    return torch.stack([snr, GAMMA * torch.ones_like(snr)], dim=1).min(dim=1)[0] / snr


def _conds(batch):
    """What the twin is told: sizes are of photos cut as `make_training_set` says."""
    height, width = (8.0 * side for side in batch.latents.shape[-2:])
    # height, width, top, left, target height, target width
    sizes = torch.tensor([1500.0, 1000.0, 100.0, 50.0, height, width])
    return {**batch.conds, "time_ids": sizes.repeat(len(batch.latents), 1)}


def _noise_loss(reference, trainer, batch, sigmas, noise):
    """The loss of diffusers' scripts for models that predict noise."""
    schedule = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    table = trainer.base.model_sampling.sigmas
    timesteps = (table[None] - sigmas[:, None]).abs().argmin(dim=1)
    noisy = schedule.add_noise(batch.latents, noise, timesteps)
    predicted = reference.predict(noisy, timesteps, _conds(batch))
    error = torch.nn.functional.mse_loss(predicted, noise, reduction="none").mean((1, 2, 3))
    return (error * _weights(compute_snr(schedule, timesteps))).mean()


def _flow_loss(reference, _trainer, batch, sigmas, noise):
    """The loss of diffusers' scripts for rectified flow, all noise levels alike."""
    level = sigmas.view(-1, 1, 1, 1)
    noisy = (1 - level) * batch.latents + level * noise
    predicted = reference.predict(noisy, sigmas, _conds(batch))
    return torch.nn.functional.mse_loss(predicted, noise - batch.latents)


def _theirs(modules):
    """What peft's adapters add to a layer that diffusers keeps in pieces."""
    return ALPHA / RANK * torch.cat([
        module.lora_B["default"].weight @ module.lora_A["default"].weight for module in modules])


@pytest.mark.parametrize("name", training_models.ARCHITECTURES)
def test_twenty_steps_equal_diffusers_with_peft(name, tmp_path):
    model = training_models.make_model(name)
    training_set = training_models.make_training_set(tmp_path, name, ((16, 16), (16, 24)))
    recipe = LoRARecipe(steps=STEPS, rank=RANK, alpha=ALPHA, learning_rate=RATE, batch_size=2,
                        background=1.0, min_snr=GAMMA, balance_poses=False, weight_decay=DECAY,
                        caption_dropout=0.2, warmup=4, schedule="cosine",
                        gradient_checkpointing=False)
    trainer = RecordingTrainer(model, training_set, recipe, seed=5)
    reference = make_reference(name, trainer.base.model_config.unet_config,
                               trainer.base.diffusion_model.state_dict())
    network, adapters = _peft_network(reference, trainer)
    with closing(trainer.run()) as steps:
        results = list(steps)

    loss_of = _noise_loss if name in ("sd15", "sdxl") else _flow_loss
    parameters = [value for value in network.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY)
    for result, (batch, sigmas, noise) in zip(results, trainer.seen, strict=True):
        loss = loss_of(reference, trainer, batch, sigmas, noise)
        optimizer.param_groups[0]["lr"] = result.learning_rate
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        assert result.loss == pytest.approx(loss.item(), rel=LOSS), result.step
    apart = whole = 0.0
    for path, modules in adapters.items():
        found, wanted = trainer.adapters.layers[path].difference(None).flatten(1), _theirs(modules)
        error, size = (found - wanted).norm().item(), wanted.norm().item()
        assert error < LAYER * size, path
        apart, whole = apart + error ** 2, whole + size ** 2
    assert apart < ADAPTER ** 2 * whole
