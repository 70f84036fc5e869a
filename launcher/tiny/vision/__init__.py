"""Teaches a test host to load a CLIP vision tower of a few kilobytes.

Linked into `custom_nodes/` of a test host (it adds no nodes) or imported beside ComfyUI in a test
process. The host tells a tower's sizes by its number of layers, and so knows those of 0.6 GB and
more alone; a file of the small width is built here, every other one as before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import comfy.clip_vision
import comfy.ops
import torch

NODE_CLASS_MAPPINGS: dict[str, type] = {}

CONFIG = Path(__file__).with_name("config.json")
_SIZES = json.loads(CONFIG.read_text())
_FIRST = "vision_model.encoder.layers.0.layer_norm1.weight"
_load_others = comfy.clip_vision.load_clipvision_from_sd


def empty_tower() -> Mapping[str, torch.Tensor]:
    """The tower's state dict on the meta device: names and shapes only."""
    kind = comfy.clip_vision.IMAGE_ENCODERS[_SIZES["model_type"]]
    return kind(_SIZES, torch.float32, "meta", comfy.ops.manual_cast).state_dict()


def _load(sd: dict[str, torch.Tensor], prefix: str = "",
          convert_keys: bool = False) -> comfy.clip_vision.ClipVisionModel | None:
    if _FIRST not in sd or len(sd[_FIRST]) != _SIZES["hidden_size"]:
        return _load_others(sd, prefix, convert_keys)
    tower = comfy.clip_vision.ClipVisionModel(str(CONFIG))
    missing, _ = tower.load_sd(sd)
    if missing:
        raise ValueError(f"The small CLIP vision tower lacks {', '.join(missing)}.")
    return tower


comfy.clip_vision.load_clipvision_from_sd = _load
