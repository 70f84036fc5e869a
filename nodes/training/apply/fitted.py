"""A LoRA file of any trainer as ComfyUI takes it, and what of it fits a MODEL and a CLIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import comfy.lora
import comfy.lora_convert
import torch

from .file_layers import KNOWN_PARTS, FileLayer, file_layers
from .host_places import Places, Target, change_shape, fits
from .scales import Configs, host_parts, lengths_fit, with_lengths

# Of these the host keeps one beside nothing else of the layer.
_ALONE = ("diff", "set_weight", "w_norm", "b_norm")


@dataclass(frozen=True)
class LeftOut:
    """A layer that is not applied."""

    name: str
    is_text: bool
    why: str
    shapes: bool = False  # the layer is there in another size


@dataclass(eq=False)
class Fitted:
    """What fits, and what does not.

    Attributes:
        files: tensors by the host's names; where a file changes a layer twice there are several,
            since the host keeps one change of a layer.
        layers, text_layers: of the trainer's, which are parts of fused ones of the host.
    """

    files: list[dict[str, torch.Tensor]] = field(default_factory=list)
    layers: int = 0
    text_layers: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    _used: list[set[Any]] = field(default_factory=list)

    def add(self, target: Target, parts: Mapping[str, torch.Tensor]) -> None:
        """Put a layer's parts into the first file that does not change it yet."""
        alone = {part: value for part, value in parts.items() if part in _ALONE}
        rest = {part: value for part, value in parts.items() if part not in _ALONE}
        for share in (share for share in (rest, alone) if share):
            key = id(target.patcher), target.key
            at = next((at for at, used in enumerate(self._used) if key not in used), None)
            if at is None:
                at = len(self.files)
                self.files.append({})
                self._used.append(set())
            self._used[at].add(key)
            self.files[at] |= {f"{target.name}.{part}": value for part, value in share.items()}


def readable_layers(tensors: Mapping[str, torch.Tensor]) -> list[FileLayer]:
    """A file's layers, after what the host itself rewrites of whole files."""
    return file_layers(comfy.lora_convert.convert_lora(dict(tensors)))


def fit(layers: Sequence[FileLayer], configs: Configs, model: Any, clip: Any) -> Fitted:
    """Fit a file's layers to a MODEL and a CLIP."""
    places, fitted = Places(model, clip), Fitted()
    for layer in layers:
        targets = places.find(layer)
        why = _unreadable(layer)
        if not targets and why is None:
            why = "not in this text encoder" if layer.is_text else "not in this model"
        if why is not None:
            fitted.left_out.append(LeftOut(layer.name, layer.is_text, why))
            continue
        parts = host_parts(layer, configs)
        target = next((target for target in targets if _has_shape(parts, target.shape)), None)
        if target is None:
            why = _other_shape(parts, targets[0].shape)
            fitted.left_out.append(LeftOut(layer.name, layer.is_text, why, shapes=True))
            continue
        parts = with_lengths(parts, target)
        if not _is_taken(target, parts):
            why = f"of no technique that ComfyUI has ({', '.join(sorted(layer.parts))})"
            fitted.left_out.append(LeftOut(layer.name, layer.is_text, why))
            continue
        fitted.add(target, parts)
        if target.patcher is not model:
            fitted.text_layers += 1
        else:
            fitted.layers += 1
    return fitted


def _unreadable(layer: FileLayer) -> str | None:
    """Why the parts of a layer say nothing that could be applied; None: they do.

    A layer with one part that nobody knows would be applied as something else than was trained.
    """
    unknown = sorted(set(layer.parts) - KNOWN_PARTS)
    if unknown:
        return f"with `{unknown[0]}`, which is no part of a LoRA that ComfyUI reads"
    if "lora_bias" in layer.parts and layer.rank is None:
        return "with a bias and no matrices"
    if ("lora_down.weight" in layer.parts) != ("lora_up.weight" in layer.parts):
        return "without one of the two matrices"
    return None


def _has_shape(parts: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> bool:
    return fits(parts, shape) and lengths_fit(parts, shape)


def _other_shape(parts: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> str:
    found = change_shape(parts)
    here = "x".join(str(size) for size in shape)
    if found is None or fits(parts, shape):
        return f"its lengths do not fit a layer of {here}"
    return f"{found[0]}x{found[1]} in the file, {here} here"


def _is_taken(target: Target, parts: Mapping[str, torch.Tensor]) -> bool:
    tensors = {f"{target.name}.{part}": value for part, value in parts.items()}
    return bool(comfy.lora.load_lora(tensors, {target.name: target.key}, log_missing=False))
