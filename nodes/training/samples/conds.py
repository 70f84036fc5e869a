"""Each sample's conditioning as the model's own `extra_conds` makes it, and their batching.

Core's sampling code would run every caption on every image of a batch and average the results.
Here each caption is encoded for its own photo once, and a batch has one row per sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...errors import LikenessError
from ...sockets import TrainingItem
from ...tensors import Conditioning

ModelConds = dict[str, Any]  # name -> comfy.conds object


def size_conditioning(item: TrainingItem) -> dict[str, int]:
    """SDXL's size inputs for one crop, in pixels (https://arxiv.org/abs/2307.01952, section 2.2).

    The crop's corner is given at the scale of the resized photo, as at pre-training.
    """
    width, height = item.bucket
    left, top, right, bottom = item.crop
    return {"width": item.original_size[0], "height": item.original_size[1],
            "crop_w": max(0, round(left * width / (right - left))),
            "crop_h": max(0, round(top * height / (bottom - top))),
            "target_width": width, "target_height": height}


def model_conds(base: Any, conditioning: Conditioning, item: TrainingItem, latent: torch.Tensor,
                guidance: float, device: torch.device) -> ModelConds:
    """Encode one sample's conditioning for a host model, as one row with its gradient, if any.

    Args:
        latent: (1, C, ...) of the sample; only its shape matters.
        guidance: what guidance-distilled models are told; 1.0 trains them as they were distilled.
    """
    (tokens, options), = conditioning
    given = {**options, **size_conditioning(item), "guidance": guidance, "cross_attn": tokens,
             "noise": torch.zeros_like(latent), "device": device, "prompt_type": "positive"}
    encoded = base.extra_conds(**given)
    return {name: cond.process_cond(batch_size=1, area=None, device=device)
            for name, cond in encoded.items()}


def stored(conds: ModelConds, known: ModelConds | None = None) -> ModelConds:
    """A copy in main memory that autograd may save, also of tensors born under inference mode.

    Args:
        known: stored conditionings of the same text; what is equal is shared with them, since a
            large encoder's text takes megabytes.
    """
    made = {name: type(cond)(_normal(cond.cond)) for name, cond in conds.items()}
    return {name: known[name] if known and name in known and _equal(known[name].cond, cond.cond)
            else cond for name, cond in made.items()}


def _equal(first: Any, second: Any) -> bool:
    return isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor) and (
        torch.equal(first, second))


def _normal(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu").clone()
    if isinstance(value, (list, tuple)):
        return [_normal(part) for part in value]
    return value


def compatible(first: ModelConds, second: ModelConds) -> bool:
    """Whether two samples' conditionings can stand in one batch."""
    return first.keys() == second.keys() and all(
        first[name].can_concat(second[name]) for name in first)


def batch(rows: Sequence[ModelConds], device: torch.device) -> Mapping[str, Any]:
    """Arguments of `apply_model` with one row per sample, on the compute device.

    Raises:
        LikenessError: the rows cannot stand in one batch.
    """
    first, *others = rows
    if not all(compatible(first, row) for row in others):
        raise LikenessError("The captions of one batch have encodings of different lengths, which "
                            "this model's text encoder cannot train together; set `batch_size` to "
                            "1 and raise `accumulate` instead.")
    joined = {name: cond.concat([row[name] for row in others]) for name, cond in first.items()}
    return {name: _to(value, device) for name, value in joined.items()}


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    return [_to(part, device) for part in value] if isinstance(value, list) else value
