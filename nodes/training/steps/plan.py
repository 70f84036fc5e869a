"""A trainer's memory plan, from the host's own numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import comfy.model_management
import torch

from ...errors import LikenessError
from ..adapters.group import LAYERS
from ..adapters.layer import weight_shape
from ..adapters.lora import LoRALayer
from ..adapters.targets import target_layers
from ..frozen import layers as frozen
from ..frozen.formats import stored_bytes
from ..recipes.base import Recipe
from ..recipes.fields import Target
from ..samples.data import Sample, seeded
from .memory import ACTIVATIONS, DECODING, MemoryPlan, cheapest_change, gigabytes

Shapes = tuple[tuple[int, ...], ...]

_META = torch.device("meta")
_TOKENS = 77  # of a caption whose encoding does not say
# What a text encoder keeps beside its dense layers' outputs: norms, activations, attention.
_BESIDE = 2.0


def plan_before(base: Any, recipe: Recipe, samples: Sequence[Sample], text: Any = None,
                identity: Any = None) -> MemoryPlan:
    """What a run will take, from the shapes of layers alone, before anything of it is made.

    Args:
        base: the host's model object; its weights may lie anywhere.
        samples: the photos, those of the class too.
        text: text encoders that learn (a `text.live.LiveText`).
        identity: the recogniser's term (an `IdentityLoss`).

    Raises:
        LikenessError: the architecture has no layer of the recipe's preset, or one cannot learn.
    """
    shapes = tuple(_layer_shapes(base.diffusion_model, recipe))
    if text is not None:
        shapes += tuple(tuple(value.shape) for value in text.encoders.parameters())
    return plan_of(base, recipe, samples, shapes, text, identity)


def plan_of(base: Any, recipe: Recipe, samples: Sequence[Sample], shapes: Shapes, text: Any,
          identity: Any) -> MemoryPlan:
    network = base.diffusion_model
    weights = list(network.parameters())
    large = [module.weight for module in network.modules()
             if frozen.is_linear(module) or frozen.is_conv(module)]
    largest = max(samples, key=lambda sample: sample.latent.numel())
    return MemoryPlan(
        stored_bytes=sum(map(stored_bytes, weights)),
        code_parameters=sum(weight.numel() for weight in large),
        code_stored_bytes=sum(map(stored_bytes, large)),
        learned_shapes=shapes,
        sampling_bytes=int(base.memory_required([1, *largest.latent.shape])),
        resolution=round(math.sqrt(math.prod(largest.item.bucket))),
        batch_size=recipe.batch_size, accumulate=recipe.accumulate,
        gradient_checkpointing=recipe.gradient_checkpointing, optimizer=recipe.optimizer,
        base_weights=recipe.base_weights, averaged=recipe.ema > 0, graphs=_graphs(recipe),
        text_bytes=0 if text is None else _text_bytes(text.encoders, recipe, samples),
        vae_bytes=0 if identity is None else _vae_bytes(identity, recipe, samples),
        rank=getattr(recipe, "rank", None), targets=tuple(_smaller_targets(network, recipe)))


def _graphs(recipe: Recipe) -> int:
    """What keeps the class word is a second pass over the batch."""
    return 2 if recipe.class_word_weight > 0 else 1


def _layer_shapes(network: torch.nn.Module, recipe: Recipe) -> Iterator[tuple[int, ...]]:
    """Of everything that a diffusion model's layers learn."""
    if recipe.method not in LAYERS:
        return
    for path, module in target_layers(network, recipe.target).items():
        if recipe.method == "dreambooth":
            yield weight_shape(module)
            if module.bias is not None:
                yield tuple(module.bias.shape)
        elif recipe.rank_of(path) > 0:
            # DoRA alone asks the weight; it is LoRA with a length for every column.
            dora = recipe.method == "dora"
            kind = LoRALayer if dora else LAYERS[recipe.method]
            layer = kind(path, module, recipe, seeded(0, "shapes"), _META)
            yield from (tuple(value.shape) for value in layer.parameters())
            if dora:
                yield weight_shape(module)[1:2]


def _smaller_targets(network: torch.nn.Module, recipe: Recipe) -> list[tuple[str, float]]:
    """Whole weights: presets that learn less, with their share of what learns now."""
    if recipe.method != "dreambooth":
        return []
    now, found = _values(network, recipe.target), []
    for target in Target:
        try:
            share = _values(network, target) / now
        except LikenessError:  # the architecture has none of these
            continue
        if share < 1:
            found.append((target.value, share))
    return sorted(found, key=lambda pair: -pair[1])


def _values(network: torch.nn.Module, target: Target) -> int:
    return sum(math.prod(weight_shape(module))
               for module in target_layers(network, target).values())


def _text_bytes(encoders: Any, recipe: Recipe, samples: Sequence[Sample]) -> int:
    """Weights of text encoders, and what the captions of a batch keep for their backward."""
    outputs = sum(weight_shape(module)[0] for module in encoders.network.modules()
                  if frozen.is_linear(module))
    tokens = max((_tokens(found) for sample in samples for found in sample.conds.values()),
                 default=_TOKENS)
    kept = ACTIVATIONS[recipe.gradient_checkpointing] / ACTIVATIONS[False]
    rows = recipe.batch_size * _graphs(recipe)
    return _size(encoders.patcher) + int(4 * _BESIDE * outputs * tokens * rows * kept)


def _tokens(found: Any) -> int:
    """How long a caption's encoding is."""
    text = found.get("c_crossattn")
    return _TOKENS if text is None else int(text.cond.shape[1])


def _vae_bytes(identity: Any, recipe: Recipe, samples: Sequence[Sample]) -> int:
    """Weights of a decoder, and what the faces of a batch keep for their backward."""
    vae = identity.vae
    decode = max((vae.memory_used_decode(
        identity.decoded_shape(sample.latent.shape, sample.item.points), identity.dtype)
        for sample in samples if len(sample.item.points)), default=0)
    kept = DECODING[recipe.gradient_checkpointing] * recipe.batch_size
    return _size(identity.patcher) + int(decode * kept)


def _size(patcher: Any) -> int:
    return int(patcher.model_size())


def free_bytes(device: torch.device) -> int:
    """What a compute device could hold once everything else has left it."""
    total = comfy.model_management.get_total_memory(device)
    return int(total - comfy.model_management.extra_reserved_memory())


def check_fits(plan: MemoryPlan, available: int) -> None:
    """Refuse a run whose unmovable part exceeds the device; frozen weights can be streamed.

    Raises:
        LikenessError: it does not fit; the text names the cheapest change that would.
    """
    if plan.resident > available:
        raise LikenessError(f"This run takes {gigabytes(plan.resident)} beside the model's "
                            f"weights, of {gigabytes(available)}. "
                            f"{cheapest_change(plan, available)}")


def plan_text(plan: MemoryPlan, available: int) -> str:
    """One sentence on what a run will take of a device's memory, its largest parts first."""
    parts = sorted(plan.as_dict().items(), key=lambda part: -part[1])
    named = ", ".join(f"{name.replace('_', ' ')} {gigabytes(size)}" for name, size in parts
                      if name != "total" and size > 0)
    streamed = ("; frozen weights that find no room are brought in as they are needed"
                if plan.total > available else "")
    return (f"Training takes about {gigabytes(plan.total)} of {gigabytes(available)}: "
            f"{named}{streamed}.")
