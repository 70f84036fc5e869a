"""How strongly a LoRA file's layers act, in the form in which ComfyUI's loader reads it.

The loader knows `alpha` among the tensors alone. PEFT keeps it in `adapter_config.json` and
diffusers in the file's header, either of which may say that it is over the root of the rank.
DoRA's lengths along the outputs the loader divides by those of the weight without the change; here
they are stretched so that its quotient is the one that was trained.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import comfy.lora
import torch

from ..frozen import layers as frozen
from .file_layers import FileLayer
from .host_places import Target

_HEADER = "lora_adapter_metadata"  # diffusers' field of a file's header
PEFT_CONFIG = "adapter_config.json"
_PEFT = "base_model.model."
_EPSILON = 1e-12

Config = Mapping[str, Any]
Configs = Mapping[str, Config]  # by the network's name in the file; "": the one that it has


def read_configs(path: Path, said: Mapping[str, str], layers: Sequence[FileLayer]) -> Configs:
    """PEFT's settings of a file, from its header or the `adapter_config.json` that lies beside it.

    A neighbour of other ranks belongs to another file.
    """
    try:
        if _HEADER in said:
            found: dict[str, dict[str, Any]] = {}
            for name, value in json.loads(said[_HEADER]).items():
                network, _, field = name.rpartition(".")
                found.setdefault(network, {})[field] = value
            return found
        if not any(_PEFT in layer.name for layer in layers):
            return {}
        config = json.loads((path.parent / PEFT_CONFIG).read_text("utf-8"))
    except (OSError, ValueError, AttributeError):
        return {}
    ranks = {layer.rank for layer in layers} - {None}
    own = isinstance(config, dict) and ranks <= {config.get("r"), *(
        config.get("rank_pattern") or {}).values()}
    return {"": config} if own else {}


def says_no_alpha(layers: Sequence[FileLayer], configs: Configs) -> bool:
    """Whether a file is PEFT's own and nothing tells how strong it was trained to be."""
    return not configs and any(_PEFT in layer.name and "alpha" not in layer.parts
                               for layer in layers)


def host_parts(layer: FileLayer, configs: Configs) -> dict[str, torch.Tensor]:
    """A layer's parts as the host reads them, its scale in `alpha`; lengths are still PEFT's."""
    parts = dict(layer.parts)
    scale = _scale(layer, configs)
    if "alpha" not in parts and scale is not None:
        if layer.rank is not None:
            parts["alpha"] = torch.tensor(scale * layer.rank)
        elif "lokr_w1" in parts:  # the host has no scale for two whole factors
            parts["lokr_w1"] = parts["lokr_w1"].float() * scale
    if "lora_bias" in parts and layer.rank is not None:
        told = parts.get("alpha")
        scale = 1.0 if told is None else float(told) / layer.rank
        parts["diff_b"] = parts.pop("lora_bias").float() * scale
    return parts


def _scale(layer: FileLayer, configs: Configs) -> float | None:
    """What PEFT multiplies a layer's change by; None: nothing tells it."""
    network = layer.name.partition(".")[0]
    config = configs.get(network if network in configs else "")
    if config is None:
        return None
    alpha = _of_layer(config, "alpha_pattern", layer.name,
                      config.get("lora_alpha", config.get("alpha")))
    rank = layer.rank or _of_layer(config, "rank_pattern", layer.name, config.get("r"))
    if not isinstance(alpha, (int, float)) or not isinstance(rank, int) or rank < 1:
        return None
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _of_layer(config: Config, field: str, name: str, otherwise: Any) -> Any:
    """A setting of one layer: PEFT reads the names of such a field as ends of paths."""
    values = config.get(field) or {}
    return next((value for pattern, value in values.items()
                 if re.fullmatch(rf"(.*\.)?({pattern})", name)), otherwise)


def along_outputs(parts: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> bool:
    """Whether DoRA's lengths are those of a weight's outputs, and not of its inputs."""
    if "magnitude" in parts:
        return True
    lengths = parts["dora_scale"]
    return len(lengths) == shape[0] or lengths.numel() != shape[1]


def lengths_fit(parts: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> bool:
    """Whether DoRA's lengths, if there are any, are as many as a weight has outputs or inputs."""
    lengths = parts.get("magnitude", parts.get("dora_scale"))
    if lengths is None:
        return True
    return len(shape) > 1 and lengths.numel() == shape[0 if along_outputs(parts, shape) else 1]


def with_lengths(parts: Mapping[str, torch.Tensor], target: Target) -> dict[str, torch.Tensor]:
    """Parts whose lengths along the outputs, if there are any, the host applies as trained."""
    plain = {part: value for part, value in parts.items()
             if part not in ("magnitude", "dora_scale")}
    lengths = parts.get("magnitude", parts.get("dora_scale"))
    if lengths is None:
        return plain
    shape = target.shape
    if not along_outputs(parts, shape):
        return {**plain, "dora_scale": lengths}  # which the host does rightly
    rows, changed = _weights(plain, target)
    lengths = lengths.float().flatten()
    if target.reorder is not None:
        lengths = target.reorder(lengths)
    stretch = rows.flatten(1).norm(dim=1) + torch.finfo(torch.float32).eps
    stretched = lengths * stretch / (changed.flatten(1).norm(dim=1) + _EPSILON)
    return {**plain, "dora_scale": stretched.reshape(-1, *(1,) * (len(shape) - 1))}


@torch.inference_mode(False)
@torch.no_grad()
def _weights(parts: Mapping[str, torch.Tensor], target: Target) -> tuple[torch.Tensor,
                                                                         torch.Tensor]:
    """A target's rows without and with a change, float32 on the CPU."""
    weight = _stored(target)
    tensors = {f"{target.name}.{part}": value for part, value in parts.items()}
    loaded = comfy.lora.load_lora(tensors, {target.name: target.key}, log_missing=False)
    adapter = loaded.get(target.key)
    changed = weight.clone()
    if adapter is not None:
        changed = comfy.lora.calculate_weight(
            [(1.0, adapter, 1.0, target.rows, target.reorder or (lambda change: change))], changed,
            target.weight)
    if target.rows is not None:
        return weight.narrow(*target.rows), changed.narrow(*target.rows)
    return weight, changed


def _stored(target: Target) -> torch.Tensor:
    """A weight without what the host has put into it for now, as a float32 copy on the CPU."""
    held = target.patcher.backup.get(target.weight)
    if held is not None:
        return held.weight.detach().float().cpu().clone()
    module = target.patcher.model.get_submodule(target.weight.rpartition(".")[0])
    weight, bias, stream = frozen.read_weight(
        module, torch.empty(0, device=module.weight.device))
    copy = weight.detach().float().cpu().clone()
    frozen.release(module, weight, bias, stream)
    return copy
