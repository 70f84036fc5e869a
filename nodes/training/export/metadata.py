"""What a trained file says of itself: modelspec, kohya's `ss_` fields, and how to repeat it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...sockets import Subject, TrainingSet
from ..kohya.networks import LYCORIS, is_plain, lycoris_arguments, size
from ..recipes.adapters import AdapterRecipe
from ..recipes.base import Recipe
from .families import family, prediction

# What a finished run tells of itself in its files, so that it need not be repeated.
TOLD = ("steps", "losses", "looks", "loss_by_noise", "kept_step", "ended")
# A new word is tens of kilobytes; five thousand losses would be as much again.
_DIGITS, _EMBEDDING_LOSSES = 5, 500
_SUFFIXES = {"lora": "/lora", "embedding": "/textual-inversion", "checkpoint": ""}


def metadata(model: Any, training_set: TrainingSet, subject: Subject, recipe: Recipe, seed: int,
             name: str, key: str, said: Mapping[str, Any], kind: str = "lora") -> dict[str, str]:
    """What a file of a run says of itself.

    There is no date in it, so the same run says the same.

    Args:
        said: what is told of the run, by the names of `TOLD`; the steps are as many as the losses
            unless it has them. An embedding keeps 500 of its losses, rounded.
        kind: lora, embedding or checkpoint.
    """
    kohya, architecture = family(model)
    captions: dict[str, int] = {}
    for item in training_set.items:
        captions[item.caption] = captions.get(item.caption, 0) + 1
    width, height = max((item.bucket for item in training_set.items), key=math.prod)
    values = recipe.as_dict()
    said = {"steps": len(said["losses"]), **said, "losses": _losses(said["losses"], kind)}
    fields = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": architecture + _SUFFIXES[kind],
        "modelspec.implementation": "comfyui-likeness",
        "modelspec.title": name,
        "modelspec.resolution": f"{width}x{height}",
        "modelspec.trigger_phrase": subject.trigger,
        "ss_base_model_version": kohya,
        "ss_output_name": name,
        "ss_steps": said["steps"],
        "ss_learning_rate": recipe.learning_rate,
        "ss_optimizer": recipe.optimizer.value,
        "ss_lr_scheduler": recipe.schedule.value,
        "ss_batch_size_per_device": recipe.batch_size,
        "ss_gradient_accumulation_steps": recipe.accumulate,
        "ss_num_train_images": len(training_set.items),
        "ss_seed": seed,
        "ss_tag_frequency": {subject.name: captions},
        "likeness.trigger": subject.trigger,
        "likeness.class": subject.class_noun,
        "likeness.recipe": values,
        "likeness.photos": [item.photo_sha256 for item in training_set.items],
        "likeness.seed": seed,
        "likeness.run": key,
        **{f"likeness.{told}": json.dumps(said[told]) for told in TOLD},
    }
    predicted = prediction(model)
    if predicted is not None:
        fields["modelspec.prediction_type"] = predicted
    if kind == "lora":
        fields |= _network(recipe)
    return {field: value if isinstance(value, str) else json.dumps(value)
            for field, value in fields.items()}


def _losses(losses: Sequence[float], kind: str) -> list[float]:
    """Losses as a file keeps them; of many in an embedding, evenly spaced ones and both ends."""
    count, last = len(losses), _EMBEDDING_LOSSES - 1
    if kind != "embedding" or count <= _EMBEDDING_LOSSES:
        return list(losses)
    kept = [losses[round(place * (count - 1) / last)] for place in range(last + 1)]
    return [float(f"{loss:.{_DIGITS}g}") for loss in kept]


def _network(recipe: AdapterRecipe) -> dict[str, Any]:
    """What kohya's relatives read of the technique."""
    rank, alpha = size(recipe)
    fields = {"ss_network_module": "networks.lora" if is_plain(recipe) else LYCORIS,
              "ss_network_dim": rank, "ss_network_alpha": alpha}
    return fields if is_plain(recipe) else {**fields, "ss_network_args": lycoris_arguments(recipe)}
