"""What a MODEL carries besides weights: what training can run under, and what it must refuse."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ...errors import LikenessError
from ...patching import AttentionPatch, SigmaWindow
from .beside import only_beside

_REPLACE = "patches_replace"


def check_trainable(model: Any, rows: int) -> None:
    """Refuse a MODEL that carries what training would have to ignore.

    The attention patches of this pack and LoRAs beside quantised layers stay in force: an adapter
    then learns only what they do not give already.

    Args:
        rows: samples in a batch.

    Raises:
        LikenessError: patches of other nodes, wrappers, hooks or injections are on the model.
    """
    options = model.model_options.get("transformer_options", {})
    replaced = [patch for group in options.get(_REPLACE, {}).values() for patch in group.values()]
    found = {"patches": any(options.get("patches", {}).values()),
             "attention patches": any(not _is_ours(patch) for patch in replaced),
             "a wrapper": "model_function_wrapper" in model.model_options
                          or any(model.wrappers.values()),
             "hooks": model.hook_patches, "injections": not only_beside(model)}
    carried = [name for name, present in found.items() if present]
    if carried:
        raise LikenessError(
            f"The MODEL carries {' and '.join(carried)} of other nodes, which training would not "
            "see; connect the model from before those nodes.")
    # A window is asked once for a whole batch, whose rows have different noise levels.
    if rows > 1 and any(_is_closed_somewhere(part) for patch in replaced for part in _parts(patch)):
        raise LikenessError("The MODEL's face acts only during a part of sampling, which trains "
                            "one photo at a time; set `batch_size` to 1, or its start to 0 and its "
                            "end to 1.")


def _is_ours(patch: Any) -> bool:
    return isinstance(patch, AttentionPatch) and patch.previous is None


def _is_closed_somewhere(part: Any) -> bool:
    return isinstance(part, SigmaWindow) and not part.always_open


def _parts(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from _parts(part)
    elif dataclasses.is_dataclass(value) or _is_term(value):
        for part in vars(value).values():
            yield from _parts(part)


def _is_term(value: Any) -> bool:
    """Whether a value is what an attention patch adds: terms need be no dataclasses."""
    return callable(value) and hasattr(value, "to") and hasattr(value, "__dict__") and not (
        isinstance(value, (type, torch.nn.Module, torch.Tensor)))


def training_options(model_options: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """A copy of a MODEL's options whose patches autograd can run through, on a device."""
    options = dict(model_options.get("transformer_options", {}))
    if options.get(_REPLACE):
        options[_REPLACE] = {name: {place: _normal(patch.to(device))
                                    for place, patch in group.items()}
                             for name, group in options[_REPLACE].items()}
    return options


def _normal(value: Any) -> Any:
    """The same value with tensors that autograd may save."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {name: _normal(part) for name, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_normal, value))
    if isinstance(value, (tuple, list)):
        return type(value)(map(_normal, value))
    if isinstance(value, SigmaWindow) or isinstance(value, type):
        return value
    if dataclasses.is_dataclass(value) or _is_term(value):
        made = copy.copy(value)
        vars(made).update({name: _normal(part) for name, part in vars(value).items()})
        return made
    return value
