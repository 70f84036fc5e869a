"""What a MODEL carries besides weights: what training can run under, and what it must refuse."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch

from ..errors import LikenessError
from ..patching import AttentionPatch, SigmaWindow

_REPLACE = "patches_replace"


def check_trainable(model: Any, rows: int) -> None:
    """Refuse a MODEL that carries what training would have to ignore.

    The attention patches of this pack stay in force: an adapter then learns only what the face
    they show does not give already.

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
             "hooks": model.hook_patches, "injections": model.injections}
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
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _parts(getattr(value, field.name))
    elif isinstance(value, tuple):
        for part in value:
            yield from _parts(part)


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
    if isinstance(value, tuple):
        return tuple(_normal(part) for part in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, SigmaWindow):
        return dataclasses.replace(value, **{field.name: _normal(getattr(value, field.name))
                                             for field in dataclasses.fields(value)})
    return value
