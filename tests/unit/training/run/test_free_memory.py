"""Gradients of checkpointed steps are the same whatever memory is free at the second run.

The host's own attention is cut into chunks by the memory that is free at the moment, so that a
checkpoint's second run can differ from its first.
"""

from __future__ import annotations

import comfy.ldm.flux.math
import comfy.ldm.modules.attention as host_attention
import comfy.ldm.modules.diffusionmodules.mmdit
import comfy.ldm.modules.diffusionmodules.model as autoencoder
import comfy.model_management
import comfy.sd
import pytest
import torch
import training_models
from comfy.ldm.models.autoencoder import AutoencoderKL
from likeness.nodes.training.frozen.scope import Scope
from likeness.nodes.training.objective import denoise
from likeness.nodes.training.objective.identity_loss import IdentityLoss
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.samples.data import collate, main_captions
from likeness.nodes.training.steps.loop import Trainer

from launcher.tiny.random_weights import fill

PLENTY, LITTLE = 1 << 40, 200_000  # bytes; little makes every choice cut into chunks
HOST_CHOICES = {"sub-quadratic": host_attention.attention_sub_quad,
                "split": host_attention.attention_split}
FAILURES = {"sub-quadratic": "don't support automatic differentiation",
            "split": "different metadata than during the forward pass"}
CHOICES = pytest.mark.parametrize("choice", HOST_CHOICES)
_USERS = (host_attention, comfy.ldm.flux.math, comfy.ldm.modules.diffusionmodules.mmdit)


class _Memory:
    """What the host believes to be free; `asked` counts how often it wanted to know."""

    def __init__(self) -> None:
        self.free, self.asked = PLENTY, 0

    def __call__(self, device=None, torch_free_too: bool = False) -> int | tuple[int, int]:
        self.asked += 1
        return (self.free, self.free) if torch_free_too else self.free


@pytest.fixture
def memory(monkeypatch) -> _Memory:
    found = _Memory()
    monkeypatch.setattr(comfy.model_management, "get_free_memory", found)
    return found


def _choose(monkeypatch, choice: str) -> None:
    for module in _USERS:
        monkeypatch.setattr(module, "optimized_attention", HOST_CHOICES[choice])


def _gradients(name: str, folder, memory: _Memory, later: int) -> list[torch.Tensor]:
    """Of an adapter's values, checkpointed; so much is free when the second run begins."""
    model = training_models.make_model(name)
    training_set = training_models.make_training_set(folder, name, ((16, 16), (16, 16)))
    recipe = LoRARecipe(steps=2, rank=4, target="attention", gradient_checkpointing=True)
    memory.free = PLENTY
    trainer = Trainer(model, training_set, recipe, seed=3)
    batch = collate(trainer.samples, main_captions(trainer.samples), trainer.device)
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(11))
    sigmas = trainer.sampling.sigmas[[187, 731]]
    with trainer.attached():
        memory.asked = 0
        loss = trainer.loss(batch, sigmas, noise)
        memory.free = later
        loss.backward()
    return [layer.up.grad for layer in trainer.adapters.layers.values()]


@CHOICES
@pytest.mark.parametrize("name", training_models.ARCHITECTURES)
def test_gradients_do_not_depend_on_the_memory_free_at_a_checkpoints_second_run(
        name, choice, memory, monkeypatch, tmp_path):
    _choose(monkeypatch, choice)
    wanted = _gradients(name, tmp_path / "plenty", memory, PLENTY)
    found = _gradients(name, tmp_path / "little", memory, LITTLE)
    assert memory.asked == 0
    assert any(value.abs().sum() > 0 for value in wanted)
    assert all(torch.equal(mine, truth) for mine, truth in zip(found, wanted, strict=True))


@CHOICES
def test_the_hosts_own_choice_would_fail_there(choice, memory, monkeypatch, tmp_path):
    _choose(monkeypatch, choice)
    monkeypatch.setattr(denoise, "training_attention",
                        lambda chosen, *args, **kwargs: chosen(*args, **kwargs))
    _gradients("sd15", tmp_path / "plenty", memory, PLENTY)
    assert memory.asked > 0
    with pytest.raises(RuntimeError, match=FAILURES[choice]):
        _gradients("sd15", tmp_path / "little", memory, LITTLE)


# An AutoencoderKL with attention in its middle, as the real one has.
_KL = {"embed_dim": 4, "ddconfig": {
    "double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32,
    "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}}
_POINTS = ((87.0, 50.0), (71.0, 51.0), (38.0, 50.0), (54.0, 51.0), (62.0, 76.0))


def _latent_gradient(vae: comfy.sd.VAE, memory: _Memory, later: int) -> torch.Tensor:
    """Of an identity loss, through the decoder."""
    memory.free = PLENTY
    recipe = LoRARecipe(steps=2, identity_weight=0.1, gradient_checkpointing=True)
    identity = IdentityLoss(vae, torch.ones(128).numpy(), recipe, training_models.CPU)
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    base = training_models.make_model("sd15").model
    with Scope() as scope:
        identity.attach(scope)
        memory.asked = 0
        latents.requires_grad_()
        loss = identity.loss(latents, base, torch.tensor([0.1]), [_POINTS])
        memory.free = later
        loss.sum().backward()
    return latents.grad


def test_the_decoder_of_the_identity_loss_does_not_ask_what_is_free(memory, monkeypatch):
    monkeypatch.setattr(autoencoder, "vae_attention", lambda: autoencoder.normal_attention)
    network = AutoencoderKL(**_KL)
    weights = fill(network.state_dict(), torch.float32, "vae.")
    vae = comfy.sd.VAE(sd=weights, device=training_models.CPU, config={"params": _KL},
                       dtype=torch.float32)
    wanted = _latent_gradient(vae, memory, PLENTY)
    found = _latent_gradient(vae, memory, LITTLE)
    assert memory.asked == 0 and wanted.abs().sum() > 0
    assert torch.equal(found, wanted)
    with torch.no_grad():  # the host itself does ask
        vae.first_stage_model.decode(torch.zeros(1, 4, 16, 16))
    assert memory.asked == 1
