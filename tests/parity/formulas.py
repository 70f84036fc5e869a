"""A trainer with adapters that have learned something, and diffusers' training formulas for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
import torch
import training_models
from likeness.nodes.sockets import TrainingSet
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.samples.data import Batch
from likeness.nodes.training.steps.loop import Trainer
from references import Reference, make_reference

TOLERANCE = 1e-5
SCHEDULE = diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012,
                                   beta_schedule="scaled_linear")


def make_trainer(training_set: TrainingSet, name: str, prediction: str = "eps",
                 class_set: TrainingSet | None = None, **fields: Any) -> Trainer:
    """A run of a LoRA whose second factors are not zero, as after some steps.

    Args:
        fields: of the recipe.
    """
    model = training_models.make_model(name, prediction=prediction)
    recipe = LoRARecipe(**{"steps": 2, "rank": 4, "alpha": 8.0, "target": "all linear",
                           "gradient_checkpointing": False, **fields})
    trainer = Trainer(model, training_set, recipe, seed=3, class_set=class_set)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for layer in trainer.adapters.layers.values():
            layer.up.normal_(0.0, 0.02, generator=generator)
    return trainer


def make_twin(trainer: Trainer, name: str, adapted: bool = True) -> Reference:
    """The trainer's model as diffusers builds it, with or without the adapters in its weights."""
    weights = trainer.base.diffusion_model.state_dict()
    with torch.no_grad():
        for path, layer in trainer.adapters.layers.items() if adapted else ():
            product = layer.scale * layer.up @ layer.down.flatten(1)
            weight = weights[f"{path}.weight"]
            weights[f"{path}.weight"] = weight + product.reshape(weight.shape)
    return make_reference(name, trainer.base.model_config.unet_config, weights)


def noised(twin: Reference, latents: torch.Tensor, steps: torch.Tensor,
           noise: torch.Tensor) -> torch.Tensor:
    """What diffusers feeds a network, (B, C, h, w), at its own steps or flow levels (B,)."""
    if twin.name in ("sd15", "sdxl"):
        return SCHEDULE.add_noise(latents, noise, steps)
    level = steps.view(-1, 1, 1, 1)
    return (1 - level) * latents + level * noise


def predicted(twin: Reference, batch: Batch, steps: torch.Tensor, noise: torch.Tensor,
              conds: Mapping[str, Any] | None = None) -> torch.Tensor:
    """The twin's output (B, C, h, w) for a batch.

    Args:
        conds: of other texts than the batch's own.
    """
    conds = dict(batch.conds if conds is None else conds)
    if twin.name in ("sd15", "sdxl"):
        conds["time_ids"] = torch.tensor(
            # height, width, top, left, target height, target width
            [[1500.0, 1000.0, 100.0, 50.0, 128.0, 128.0]]).repeat(len(batch.latents), 1)
    return twin.predict(noised(twin, batch.latents, steps, noise), steps, conds)


def squared_error(twin: Reference, prediction: str, batch: Batch, steps: torch.Tensor,
                  noise: torch.Tensor) -> torch.Tensor:
    """Squared errors (B, C, h, w) of the twin's output to its training target."""
    target = {"eps": lambda: noise, "flow": lambda: noise - batch.latents,
              "v": lambda: SCHEDULE.get_velocity(batch.latents, noise, steps)}[prediction]()
    return (predicted(twin, batch, steps, noise) - target) ** 2


def masked_loss(error: torch.Tensor, batch: Batch, weight: torch.Tensor,
                background: float) -> torch.Tensor:
    """The masked loss written out: for each photo sum(e w m) / sum(m) over its elements."""
    losses = []
    for row, mask, level in zip(error, batch.masks, weight, strict=True):
        inside = mask + background * (1 - mask)
        losses.append(level * (row * inside).sum() / (inside.sum() * len(row)))
    return torch.stack(losses).mean()


def assert_equal_gradients(trainer: Trainer, gradients: Mapping[str, torch.Tensor]) -> None:
    """The adapters' gradients against those that d loss / d W of the adapted layer W implies."""
    apart = whole = 0.0
    with torch.no_grad():
        for path, layer in trainer.adapters.layers.items():
            full, down = gradients[f"{path}.weight"].flatten(1), layer.down.flatten(1)
            for ours, truth in ((layer.up.grad, layer.scale * full @ down.T),
                                (layer.down.grad.flatten(1), layer.scale * layer.up.T @ full)):
                apart += (ours - truth).square().sum().item()
                whole += truth.square().sum().item()
    assert 0 < whole and apart < TOLERANCE ** 2 * whole
