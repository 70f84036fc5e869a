"""Tensors on disk: the layout of cached latents and text encodings, and what models are told by."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Mapping
from enum import Enum
from functools import partial
from pathlib import Path, PurePath
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    MethodType,
    ModuleType,
)
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .errors import LikenessError
from .files import write_whole

# What reading a file that is cut off or holds something else raises.
_UNREADABLE = (SafetensorError, KeyError, TypeError, ValueError)

_PLAIN = (bool, int, float, str, type(None))
_SPELLED = (torch.dtype, torch.device, PurePath, uuid.UUID, range, slice, complex, Enum)
_NAMED = (type, ModuleType, logging.Logger)
_DEEPEST = 40  # things within things that something on a MODEL is told by

# What a patcher carries beside weight patches and options; all of it acts on what is sampled.
_CARRIED = ("wrappers", "callbacks", "injections", "weight_wrapper_patches", "attachments",
            "additional_models")

_UNTOLD: dict[int, tuple[Any, str]] = {}  # kept alive, so that no other gets its id
logger = logging.getLogger("likeness")

Conditioning = list[list[Any]]  # ComfyUI's CONDITIONING: [[tokens (1, T, D), {name: value}], ...]


class DamagedFileError(LikenessError):
    """A cached file is cut off or holds something else; preparing again makes it anew."""

    def __init__(self, path: Path, reason: Exception) -> None:
        super().__init__(f"The cached file {path} is damaged ({reason}); queue the "
                         "workflow again, and the node that made it makes it anew.")


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor],
                  metadata: Mapping[str, str] | None = None, durable: bool = False) -> None:
    """Write a safetensors file, whole or not at all.

    Args:
        durable: as `write_whole` has it.

    Raises:
        LikenessError: the disk is full or the folder cannot be written.
    """
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write_whole(path, lambda partial: save_file(plain, partial, metadata=dict(metadata or {})),
                durable)


def write_latent(path: Path, latent: torch.Tensor, mask: torch.Tensor) -> None:
    """Store one latent (C, h, w) at the VAE's own scale and its face mask (h, w)."""
    write_tensors(path, {"latent": latent.float(), "mask": mask.float()})


def read_latent(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Read what `write_latent` stored: latent (C, h, w) and mask (h, w), float32 on the CPU.

    Raises:
        DamagedFileError: the file is cut off or holds something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor("latent"), file.get_tensor("mask")
    except _UNREADABLE as err:
        raise DamagedFileError(path, err) from err


def write_conditioning(path: Path, conditioning: Conditioning) -> None:
    """Store a one-entry CONDITIONING; tensors by name, everything else as JSON."""
    (tokens, options), = conditioning
    tensors = {"cond": tokens}
    tensors.update({k: v for k, v in options.items() if isinstance(v, torch.Tensor)})
    # None too: some models ask for a name whose value their text encoder leaves out.
    plain = {k: v for k, v in options.items() if not isinstance(v, torch.Tensor)}
    write_tensors(path, tensors, {"options": json.dumps(plain)})


def read_conditioning(path: Path) -> Conditioning:
    """Read what `write_conditioning` stored.

    Raises:
        DamagedFileError: the file is cut off or holds something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            options = json.loads(file.metadata()["options"])
        return [[tensors.pop("cond"), {**options, **tensors}]]
    except _UNREADABLE as err:
        raise DamagedFileError(path, err) from err


def fingerprint(state: Mapping[str, torch.Tensor], samples: int = 64) -> str:
    """Identify weights by names, shapes, types and evenly spaced values of every tensor.

    Reading all of a 10 GB text encoder to name a cache entry would cost more than the encoding.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        flat = tensor.reshape(-1)
        step = max(1, flat.numel() // samples)
        digest.update(flat[::step].to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()


def patch_fingerprint(patcher: Any) -> str:
    """Identify the weight patches of a host's patcher by content; empty when it has none.

    The host's own `patches_uuid` is drawn anew each time a workflow runs.
    """
    return _patches_fingerprint(patcher.patches) if patcher.patches else ""


def _patches_fingerprint(patches: Mapping[str, Any]) -> str:
    tensors: dict[str, torch.Tensor] = {}
    plain: list[str] = []

    def collect(name: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            tensors[name] = value
        elif isinstance(value, (list, tuple)):
            for place, part in enumerate(value):
                collect(f"{name}.{place}", part)
        elif hasattr(value, "weights"):  # an adapter of comfy.weight_adapter
            collect(f"{name}.{type(value).__name__}", value.weights)
        else:
            plain.append(f"{name} {getattr(value, '__qualname__', None) or repr(value)}")

    for key in sorted(patches):
        collect(key, patches[key])
    return hashlib.sha256("\n".join([fingerprint(tensors), *plain]).encode()).hexdigest()


def text_fingerprint(clip: Any) -> str:
    """Identify a host's text encoder by all that decides its encoding.

    Clones with another end layer (CLIP Set Last Layer) or a LoRA share their weights, and whichever
    is loaded has patched them in place, so the weights count as stored.
    """
    settings = {name: getattr(clip, name, None)
                for name in ("layer_idx", "tokenizer_options", "use_clip_schedule")}
    stored = {name: entry.weight for name, entry in clip.patcher.backup.items()}
    return json.dumps([fingerprint({**clip.cond_stage_model.state_dict(), **stored}),
                       patch_fingerprint(clip.patcher), settings], sort_keys=True, default=repr)


def model_key(model: Any) -> str:
    """Identify a MODEL by everything that decides what it samples: weights, patches, settings.

    How many weights carry their patches depends on free memory, so the weights count as stored.
    """
    sampling = model.get_model_object("model_sampling")
    parts = {
        "weights": fingerprint(_stored_weights(model)),
        "patches": patch_fingerprint(model),
        # Nodes that replace it give every class one name and tell prediction and schedule apart
        # by the parents.
        "kinds": [kind.__qualname__ for kind in type(sampling).__mro__],
        "numbers": {name: value for name, value in sorted(vars(sampling).items())
                    if isinstance(value, (int, float)) and name != "training"
                    and not name.startswith("_")},
        "tables": fingerprint(sampling.state_dict()),
        "options": _content(model.model_options, {}),
        **_carried(model),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _stored_weights(model: Any) -> dict[str, torch.Tensor]:
    """The network's weights without what the host has put into it for now."""
    prefix = "diffusion_model."
    weights = dict(model.model.diffusion_model.state_dict())
    for name, part in getattr(model, "object_patches_backup", {}).items():
        if not name.startswith(prefix) or not isinstance(part, torch.nn.Module):
            continue
        place = name.removeprefix(prefix) + "."
        weights = {key: value for key, value in weights.items() if not key.startswith(place)}
        weights |= {place + key: value for key, value in part.state_dict().items()}
    return weights | {name.removeprefix(prefix): entry.weight
                      for name, entry in model.backup.items() if name.startswith(prefix)}


def _carried(model: Any) -> dict[str, Any]:
    """What else is on a MODEL; empty for one without, whose key stays as it always was."""
    parts = {name: _content(_filled(getattr(model, name, None)), {}) for name in _CARRIED}
    # The number format of the computation is among these.
    parts["objects"] = _content({name: part for name, part in model.object_patches.items()
                                 if name != "model_sampling"}, {})
    # Their keys are references without content.
    parts["hooks"] = [_patches_fingerprint(patches)
                      for patches in getattr(model, "hook_patches", {}).values() if patches]
    return {name: part for name, part in parts.items() if part}


def _filled(value: Any) -> Any:
    """Mappings within mappings without the empty ones."""
    if not isinstance(value, Mapping):
        return value
    parts = {name: _filled(part) for name, part in value.items()}
    return {name: part for name, part in parts.items() if part is not None and part not in ({}, [])}


def _content(value: Any, met: dict[int, tuple[int, Any]], depth: int = 0) -> Any:
    """What something on a MODEL says, as plain values: what it holds, and of whom it is made.

    Args:
        met: objects met before, which are told by their number.
    """
    if isinstance(value, _SPELLED):
        return f"{type(value).__qualname__} {value}"
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, torch.Tensor):
        return fingerprint({"": value})
    if isinstance(value, (bytes, bytearray)):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype != object:
        return [str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    if isinstance(value, _NAMED):
        return [type(value).__qualname__, getattr(value, "__module__", ""),
                getattr(value, "__qualname__", getattr(value, "__name__", str(value)))]
    if isinstance(value, Mapping):
        return {_name(name, met, depth): _content(part, met, depth + 1)
                for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_content(part, met, depth + 1) for part in value]
    if isinstance(value, (set, frozenset)):
        return sorted(json.dumps(_content(part, {}, depth + 1)) for part in value)
    return _of_object(value, met, depth)


def _of_object(value: Any, met: dict[int, tuple[int, Any]], depth: int) -> Any:
    if id(value) in met:
        return ["again", met[id(value)][0]]
    met[id(value)] = len(met), value
    if isinstance(value, torch.nn.Module):
        return _module(value)
    held = _held(value) if depth < _DEEPEST else None
    if held is None:
        return _untold(value)
    kind = value if isinstance(value, FunctionType) else type(value)
    return [f"{kind.__module__}.{kind.__qualname__}", _content(held, met, depth + 1)]


def _name(name: Any, met: dict[int, tuple[int, Any]], depth: int) -> str:
    """A mapping's key; `str` of an object would hold its address."""
    if isinstance(name, (*_PLAIN, tuple)):
        return str(name)
    return json.dumps(_content(name, met, depth + 1), sort_keys=True)


def _module(module: torch.nn.Module) -> list[Any]:
    """A network by its parts, their numbers and its weights."""
    parts = [[name, f"{type(part).__module__}.{type(part).__qualname__}",
              {key: value for key, value in sorted(vars(part).items())
               if isinstance(value, _PLAIN) and key != "training" and not key.startswith("_")}]
             for name, part in module.named_modules()]
    return [parts, fingerprint(module.state_dict())]


def _held(value: Any) -> Any:
    """What a function or an object holds, None where that cannot be told.

    Private names are what it remembers, not what it is.
    """
    if isinstance(value, FunctionType):
        return [_code(value.__code__), value.__defaults__, value.__kwdefaults__,
                [_contents(cell) for cell in value.__closure__ or ()]]
    if isinstance(value, CodeType):
        return _code(value)
    if isinstance(value, BuiltinFunctionType):
        return [value.__qualname__, value.__self__]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    if _is_patcher(value):
        return [fingerprint(value.model.state_dict() | {
            name: entry.weight for name, entry in value.backup.items()}),
            patch_fingerprint(value), value.model_options, _filled(value.object_patches)]
    slots = [name for kind in type(value).__mro__ for name in _slots(kind)]
    if not slots and not hasattr(value, "__dict__"):
        return None
    own = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return {name: part for name, part in (own | getattr(value, "__dict__", {})).items()
            if not name.startswith("_")}


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing has been put into it yet
        return None


def _slots(kind: type) -> tuple[str, ...]:
    named = vars(kind).get("__slots__", ())
    return (named,) if isinstance(named, str) else tuple(named)


def _is_patcher(value: Any) -> bool:
    """Whether this is a patcher of the host, whose own id is drawn anew each time."""
    return all(hasattr(value, name) for name in ("patches", "backup", "model_options", "model",
                                                 "object_patches"))


def _code(code: CodeType) -> list[Any]:
    """What a function does; names of files and numbers of lines say nothing."""
    return [code.co_code.hex(), code.co_names, code.co_freevars,
            [part if isinstance(part, (CodeType, frozenset)) else repr(part)
             for part in code.co_consts]]


def _untold(value: Any) -> str:
    """A name for something that nothing can be told by: never that of another, nor found again
    after a restart."""
    if id(value) not in _UNTOLD:
        _UNTOLD[id(value)] = value, uuid.uuid4().hex
        logger.warning("The MODEL carries a %s, which cannot be told by its content; pictures and "
                       "runs made with it are not found again after a restart of ComfyUI.",
                       type(value).__qualname__)
    return _UNTOLD[id(value)][1]
