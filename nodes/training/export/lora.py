"""LoRA files in the layout that ComfyUI and its relatives load, proven by loading them back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.lora_convert
import torch
from safetensors import safe_open

from ... import runtime
from ...errors import LikenessError, NotSavedError
from ...tensors import write_tensors
from ..adapters.group import Adapters
from ..adapters.layer import AdapterLayer
from ..frozen import layers as frozen
from ..frozen.beside import add_beside, parts_of, split
from ..frozen.formats import coarsest_format, is_packed
from ..frozen.scope import Scope
from ..objective.denoise import probe
from ..steps.loop import Trainer
from .keys import is_text_key

FILE_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}

# Largest error of a layer's difference once both sides are rounded to the file's number format.
_LAYER_TOLERANCE = 1e-4
_EPSILON = 1e-6  # float32 rounding of the sum of weight and difference
# Largest error of the model's output, relative to what training changed, by the file's format.
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 3e-2}
# The host adds the LoRA to the stored weights and rounds; allowed in roundings of the output.
_ROUNDINGS = 4.0


def lora_tensors(adapters: Adapters, names: Mapping[str, str],
                 dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Adapters as file tensors: a layer's key and what its technique calls its parts."""
    return {f"{names[path]}.{suffix}": value
            for path, layer in adapters.layers.items()
            for suffix, value in layer.to_file(dtype).items()}


def write_lora(path: Path, tensors: Mapping[str, torch.Tensor], fields: Mapping[str, str]) -> None:
    """Write a LoRA file, whole or not at all.

    Raises:
        NotSavedError: the disk is full or the folder cannot be written.
    """
    try:
        write_tensors(path, tensors, fields, durable=True)
    except LikenessError as err:
        raise NotSavedError(f"The LoRA was trained but not saved: {err}") from err


def read_lora(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a LoRA file's tensors and what it says of itself.

    Raises:
        OSError, SafetensorError: there is none, or it is damaged.
    """
    with safe_open(path, framework="pt") as file:
        # Copies: what the host keeps must not hang on a file that may be replaced or deleted.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        return tensors, file.metadata() or {}


def take_over(tensors: Mapping[str, torch.Tensor], adapters: Adapters,
              names: Mapping[str, str]) -> None:
    """Give adapters the values of a file.

    Raises:
        KeyError: a layer is missing.
        RuntimeError: a layer has another shape.
    """
    for path, layer in adapters.layers.items():
        prefix = f"{names[path]}."
        layer.from_file({name.removeprefix(prefix): value for name, value in tensors.items()
                         if name.startswith(prefix)})


def apply_lora(model: Any, tensors: Mapping[str, torch.Tensor], strength: float) -> Any:
    """A clone of a MODEL with a LoRA, by the host's own loader and adapters.

    As ordinary patches; but beside layers whose weights are codes, where the host can do that.
    """
    # The host warns of every key that is not the model's.
    own = {name: value for name, value in tensors.items() if not is_text_key(name)}
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    loaded = comfy.lora.load_lora(comfy.lora_convert.convert_lora(own), names)
    clone = model.clone()
    add_adapters(clone, loaded, strength)
    return clone


def apply_text_lora(clip: Any, tensors: Mapping[str, torch.Tensor], strength: float) -> Any:
    """A clone of a CLIP with a LoRA, in the same way."""
    own = {name: value for name, value in tensors.items() if is_text_key(name)}
    names = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
    loaded = comfy.lora.load_lora(comfy.lora_convert.convert_lora(own), names)
    clone = clip.clone()
    add_adapters(clone.patcher, loaded, strength)
    return clone


def add_adapters(patcher: Any, loaded: Mapping[Any, Any], strength: float) -> None:
    """Put the host's adapters on a clone of a patcher, each in the way that loses nothing."""
    added, beside = split(patcher, loaded)
    patcher.add_patches(added, strength)
    if beside:
        add_beside(patcher, beside, strength)


def check_file(path: Path, model: Any, trainer: Trainer) -> tuple[Any, float]:
    """Load a saved LoRA through the host's loader and compare it with what was trained.

    Returns:
        The patched MODEL, and its output's error relative to what training changed.

    Raises:
        LikenessError: a layer is missing or differs, or the output is not the trained one.
    """
    tensors = runtime.load_weights(path)
    patched = apply_lora(model, tensors, 1.0)
    stored = stored_type(tensors)
    for layer_path, layer in trainer.adapters.layers.items():
        weight = _weight(trainer.base.diffusion_model.get_submodule(layer_path), layer)
        wanted = layer.difference(weight, stored).detach().cpu()
        found = _difference(patched, model, f"diffusion_model.{layer_path}.weight", weight.cpu())
        allowed = _LAYER_TOLERANCE * wanted.norm() + _EPSILON * weight.norm().cpu()
        if (found - wanted).norm() > allowed:
            raise LikenessError(f"{path.name} does not load as it was trained: layer "
                                f"`{layer_path}` differs. Please report this model.")
    before, live = _live(model, trainer)
    runtime.load_models([patched])
    reloaded = probe(patched, trainer.samples[0])
    change, error = float((live - before).norm()), float((reloaded - live).norm())
    beside = parts_of(patched)
    held = coarsest_format(trainer.base.diffusion_model.get_submodule(name).weight
                           for name in trainer.adapters.layers
                           if f"diffusion_model.{name}" not in beside)
    coarsest = max(torch.finfo(kind).eps for kind in (trainer.dtype, held))
    if error > _TOLERANCE[stored] * change + _ROUNDINGS * coarsest * float(live.norm()):
        raise LikenessError(f"{path.name} gives another picture than the trained adapter (error "
                            f"{error:.3g} of a change of {change:.3g}). Please report this model.")
    return patched, error / change if change > 0 else 0.0


def _live(model: Any, trainer: Trainer) -> tuple[torch.Tensor, torch.Tensor]:
    """The MODEL's prediction error without and with what was trained.

    Layers of codes compute otherwise in the host than in training, which reads the weights behind
    them: int8 ones quantise what goes into them too. So what was trained runs beside the host's
    own products there, and what differs then is the file alone.
    """
    network, sample = trainer.base.diffusion_model, trainer.samples[0]
    if not any(is_packed(weight) for weight in network.parameters()):
        return trainer.probe(adapted=False), trainer.probe(adapted=True)
    runtime.load_models([model])
    before = probe(model, sample)
    with Scope() as scope, trainer.learner.evaluated():
        for path, layer in trainer.adapters.layers.items():
            module = network.get_submodule(path)
            scope.set_attribute(module, "forward", _with_change(module, layer))
        return before, probe(model, sample)


def _with_change(module: torch.nn.Module, layer: AdapterLayer) -> Any:
    """A layer's present forward and the change of its product, which is taken in float32."""
    own = module.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        exact = x.float()
        return own(x) + (layer(module, exact) - frozen.run(module, exact)).to(x.dtype)

    return forward


def stored_type(tensors: Mapping[str, torch.Tensor]) -> torch.dtype:
    """The number format of a LoRA file; scales and the like are float32 in all of them."""
    kinds = {value.dtype for value in tensors.values() if value.ndim > 1}
    return min(kinds, key=lambda kind: torch.finfo(kind).bits, default=torch.float32)


def _weight(module: torch.nn.Module, layer: AdapterLayer) -> torch.Tensor:
    """The frozen weight in float32; zeros where the learned part does not depend on it."""
    if layer.additive:
        return torch.zeros(layer.shape)
    weight, bias, stream = frozen.read_weight(module, torch.empty(0, device=module.weight.device))
    copy = weight.detach().reshape(layer.shape).clone()
    frozen.release(module, weight, bias, stream)
    return copy


def _difference(patched: Any, model: Any, key: str, weight: torch.Tensor) -> torch.Tensor:
    """What the host's loader adds to a weight: one patch, or one for each part of a fused layer."""
    patches = patched.patches.get(key, [])[len(model.patches.get(key, [])):]
    path = key.removesuffix(".weight")
    older = len(parts_of(model).get(path, ()))
    now = parts_of(patched).get(path, ())
    patches = [*patches, *((part.adapter.multiplier, part.adapter, 1.0,
                            None if part.rows is None else (0, *part.rows), None)
                           for part in now[:len(now) - older])]
    return comfy.lora.calculate_weight(patches, weight.clone(), key) - weight
