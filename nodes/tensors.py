"""Tensors on disk: the layout of cached latents and text encodings, and what models are told by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .errors import LikenessError
from .files import write_whole

# What reading a file that is cut off or holds something else raises.
_UNREADABLE = (SafetensorError, KeyError, TypeError, ValueError)

_PLAIN = (bool, int, float, str, type(None))
_DEEPEST = 4  # objects within objects that an option of a MODEL is told by

Conditioning = list[list[Any]]  # ComfyUI's CONDITIONING: [[tokens (1, T, D), {name: value}], ...]


class DamagedFileError(LikenessError):
    """A cached file is cut off or holds something else; preparing again makes it anew."""

    def __init__(self, path: Path, reason: Exception) -> None:
        super().__init__(f"The cached file {path} is damaged ({reason}); change a setting of "
                         "Prepare Training or restart ComfyUI, so that it is made again.")


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor],
                  metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all.

    Raises:
        LikenessError: the disk is full or the folder cannot be written.
    """
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write_whole(path, lambda partial: save_file(plain, partial, metadata=dict(metadata or {})))


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
    if not patcher.patches:
        return ""
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

    for key in sorted(patcher.patches):
        collect(key, patcher.patches[key])
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
    prefix = "diffusion_model."
    stored = {name.removeprefix(prefix): entry.weight
              for name, entry in model.backup.items() if name.startswith(prefix)}
    sampling = model.get_model_object("model_sampling")
    parts = {
        "weights": fingerprint({**model.model.diffusion_model.state_dict(), **stored}),
        "patches": patch_fingerprint(model),
        # Nodes that replace it give every class one name and tell prediction and schedule apart
        # by the parents.
        "kinds": [kind.__qualname__ for kind in type(sampling).__mro__],
        "numbers": {name: value for name, value in sorted(vars(sampling).items())
                    if isinstance(value, (int, float)) and name != "training"
                    and not name.startswith("_")},
        "tables": fingerprint(sampling.state_dict()),
        "options": _content(model.model_options),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _content(value: Any, depth: int = 0) -> Any:
    """What a MODEL's option says, as plain values: what it holds, and of whom it is made."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, torch.Tensor):
        return fingerprint({"": value})
    if isinstance(value, torch.nn.Module):
        return fingerprint(value.state_dict())
    if isinstance(value, Mapping):
        return {str(name): _content(part, depth) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_content(part, depth) for part in value]
    kind = value if isinstance(value, FunctionType) else type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    return name if depth == _DEEPEST else [name, _content(_held(value), depth + 1)]


def _held(value: Any) -> Any:
    """What a function or an object holds; private names are what it remembers, not what it is."""
    if isinstance(value, FunctionType):
        return [cell.cell_contents for cell in value.__closure__ or ()]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    return {name: part for name, part in getattr(value, "__dict__", {}).items()
            if not name.startswith("_")}
