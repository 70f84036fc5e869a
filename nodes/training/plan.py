"""A trainer's memory plan, from the host's own numbers."""

from __future__ import annotations

import math
from typing import Any

import comfy.model_management

from ..errors import LikenessError
from . import frozen
from .loop import Trainer
from .memory import MemoryPlan, cheapest_change


def make_plan(trainer: Trainer) -> MemoryPlan:
    """What a trainer's run will take on its compute device, part by part."""
    recipe, network = trainer.recipe, trainer.base.diffusion_model
    weights = list(network.parameters())
    large = [module.weight for module in network.modules()
             if frozen.is_linear(module) or frozen.is_conv(module)]
    largest = max(trainer.samples, key=lambda sample: sample.latent.numel())
    text = None if trainer.text is None else trainer.text.encoders
    return MemoryPlan(
        stored_bytes=sum(weight.nbytes for weight in weights),
        code_parameters=sum(weight.numel() for weight in large),
        code_stored_bytes=sum(weight.nbytes for weight in large),
        learned_shapes=tuple(tuple(value.shape) for value in trainer.learner.parameters),
        sampling_bytes=int(trainer.base.memory_required([1, *largest.latent.shape])),
        resolution=round(math.sqrt(math.prod(largest.item.bucket))),
        batch_size=recipe.batch_size, accumulate=recipe.accumulate,
        gradient_checkpointing=recipe.gradient_checkpointing, optimizer=recipe.optimizer,
        base_weights=recipe.base_weights, averaged=recipe.ema > 0,
        text_bytes=0 if text is None else _size(text.patcher),
        vae_bytes=0 if trainer.identity is None else _size(trainer.identity.patcher),
        rank=getattr(recipe, "rank", None))


def _size(patcher: Any) -> int:
    return int(patcher.model_size())


def free_bytes(trainer: Trainer) -> int:
    """What the compute device could hold once everything else has left it."""
    total = comfy.model_management.get_total_memory(trainer.device)
    return int(total - comfy.model_management.extra_reserved_memory())


def check_fits(plan: MemoryPlan, available: int) -> None:
    """Refuse a run whose unmovable part exceeds the device; frozen weights can be streamed.

    Raises:
        LikenessError: it does not fit; the text names the cheapest change that would.
    """
    if plan.resident > available:
        raise LikenessError(f"This run takes {plan.resident / 2**30:.1f} GB beside the model's "
                            f"weights, of {available / 2**30:.1f} GB. "
                            f"{cheapest_change(plan, available)}")


def out_of_memory(trainer: Trainer) -> str:
    """What to tell a user whose run found no memory, with the cheapest change that would help."""
    plan = make_plan(trainer)
    # The estimate said it fits and it did not: what helps must be smaller than what was tried.
    change = cheapest_change(plan, min(free_bytes(trainer), plan.total - 1))
    return (f"Memory ran out at step {trainer.step + 1}; what was learned up to step "
            f"{trainer.step} is kept. {change}")
