"""Which of the host's layers the layers of a LoRA file mean, and what shape those have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.lora
import comfy.utils
import torch

from ..export.keys import is_text_key
from .file_layers import MODEL, FileLayer, place

_TEXTS = ("text 1", "text 2", "text 3")


@dataclass(frozen=True, eq=False)
class Target:
    """A layer of the host, or some rows of one."""

    name: str  # what the host's loader calls it in files
    key: Any  # the host's: a weight's name, or that with rows and a reordering of them
    patcher: Any

    @property
    def weight(self) -> str:
        """The weight's name."""
        return self.key if isinstance(self.key, str) else self.key[0]

    @property
    def rows(self) -> tuple[int, int, int] | None:
        """Axis, first and number of the rows that are meant; None: all."""
        return None if isinstance(self.key, str) else self.key[1]

    @property
    def reorder(self) -> Any:
        """What the host does with a change before it is added; None: nothing."""
        return None if isinstance(self.key, str) or len(self.key) < 3 else self.key[2]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what is changed."""
        layer, _, name = self.weight.rpartition(".")
        module = comfy.utils.get_attr(self.patcher.model, layer)
        sizes = list(getattr(module, name).shape)
        if name == "weight" and hasattr(module, "in_features"):  # codes have shapes of their own
            sizes = [module.out_features, module.in_features]
        if self.rows is not None:
            sizes[self.rows[0]] = self.rows[2]
        return tuple(sizes)


class Places:
    """The host's layers by the places that files tell."""

    def __init__(self, model: Any, clip: Any) -> None:
        self._known = {
            **{name: (key, clip.patcher) for name, key in
               comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {}).items()
               if is_text_key(name)},
            **{name: (key, model) for name, key in
               comfy.lora.model_lora_keys_unet(model.model, {}).items() if not is_text_key(name)}}
        self._by_place: dict[tuple[str, str], str] = {}
        for name in self._known:
            part, path = place(name)
            self._by_place.setdefault((part or MODEL, path), name)

    def find(self, layer: FileLayer) -> list[Target]:
        """What a file's layer can mean: what the host itself takes its name for, or all that
        its path fits where it does not say whether it is the model's or which text encoder's."""
        if layer.name in self._known:
            return [self._target(layer.name)]
        part, path = layer.place
        names = [self._by_place.get((one, path)) for one in ([part] if part else (MODEL, *_TEXTS))]
        return [self._target(name) for name in names if name is not None]

    def _target(self, name: str) -> Target:
        return Target(name, *self._known[name])


def fits(parts: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> bool:
    """Whether a change has a weight's shape; the host logs those that have not while it samples.

    True for techniques whose tensors do not tell it.
    """
    changed = change_shape(parts)
    return changed is None or (changed[0] == shape[0] and math.prod(changed) == math.prod(shape))


def change_shape(parts: Mapping[str, torch.Tensor]) -> tuple[int, int] | None:
    """Outputs and inputs of a change, those of a convolution with its kernel; None: not told."""
    if "reshape_weight" in parts:  # it makes the weight larger
        return None
    if "lora_up.weight" in parts and "lora_down.weight" in parts:
        down, middle = parts["lora_down.weight"], parts.get("lora_mid.weight")
        kernel = 1 if middle is None else middle[0, 0].numel()
        return len(parts["lora_up.weight"]), down[0].numel() * kernel
    if "hada_w1_a" in parts and "hada_w1_b" in parts and "hada_t1" not in parts:
        return len(parts["hada_w1_a"]), parts["hada_w1_b"].shape[1]
    if any(part.startswith("lokr_") for part in parts) and "lokr_t2" not in parts:
        sizes = [_factor(parts, name) for name in ("lokr_w1", "lokr_w2")]
        if None not in sizes:
            return sizes[0][0] * sizes[1][0], sizes[0][1] * sizes[1][1]
    if "diff" in parts:
        return len(parts["diff"]), parts["diff"][0].numel()
    return None


def _factor(parts: Mapping[str, torch.Tensor], name: str) -> tuple[int, int] | None:
    if name in parts:
        return len(parts[name]), parts[name][0].numel()
    if f"{name}_a" in parts and f"{name}_b" in parts:
        return len(parts[f"{name}_a"]), parts[f"{name}_b"][0].numel()
    return None
