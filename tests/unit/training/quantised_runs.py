"""One training loss over weights held as codes, and the two kinds of codes."""

from __future__ import annotations

import pytest
import torch
import training_models
from likeness.nodes.training.adapters.attach import attach
from likeness.nodes.training.adapters.group import Adapters
from likeness.nodes.training.frozen import quantise
from likeness.nodes.training.frozen.scope import Scope
from likeness.nodes.training.objective.denoise import denoise
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.recipes.fields import BaseWeights
from likeness.nodes.training.samples.data import collate, load_samples, main_captions
from torch import nn

CPU = torch.device("cpu")
KINDS = pytest.mark.parametrize("kind", [BaseWeights.FP8, BaseWeights.NF4],
                                ids=lambda kind: kind.value)


class QuantisedRun:
    """One training loss of adapters beside a tiny model, and their gradients."""

    def __init__(self, name: str, folder) -> None:
        self.recipe = LoRARecipe(rank=4)
        self.training_set = training_models.make_training_set(folder, name)

    def __call__(self, model, kind: BaseWeights | None = None):
        base, network = model.model, model.model.diffusion_model
        samples = load_samples(base, self.training_set, self.recipe, CPU)[:1]
        batch = collate(samples, main_captions(samples), CPU)
        generator = torch.Generator().manual_seed(0)
        adapters = Adapters(network, self.recipe, generator, CPU)
        for name, parameter in adapters.named_parameters():
            if name.endswith("up"):
                nn.init.normal_(parameter, std=0.05, generator=generator)
        sigmas = base.model_sampling.sigmas[[500]].float()
        noise = torch.randn(batch.latents.shape, generator=generator)
        noisy = base.model_sampling.noise_scaling(sigmas, noise, batch.latents)
        with Scope() as scope:
            held = None if kind is None else quantise.quantise_layers(
                scope, model, network, kind, CPU)
            attach(scope, base, network, adapters, checkpointing=True)
            estimate = denoise(base, noisy, sigmas, batch.conds, {})
            loss = (estimate - batch.latents).square().mean()
            gradients = torch.autograd.grad(loss, list(adapters.parameters()), allow_unused=True)
        return loss.item(), gradients, held
