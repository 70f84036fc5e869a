"""LoRA files in the layout that ComfyUI and its relatives load, proven by loading them back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.sd
import torch
from safetensors import safe_open

from ... import runtime
from ...errors import LikenessError
from ...sockets import Subject, TrainingSet
from ...tensors import write_tensors
from .. import frozen
from ..adapters.group import Adapters
from ..adapters.layer import AdapterLayer
from ..loop import Trainer, probe
from ..recipes.adapters import LoRARecipe

FILE_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}

# Largest error of a layer's difference once both sides are rounded to the file's number format.
_LAYER_TOLERANCE = 1e-4
_EPSILON = 1e-6  # float32 rounding of the sum of weight and difference
# Largest error of the model's output, relative to what training changed, by the file's format.
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 3e-2}
# The host adds the LoRA to the stored weights and rounds; allowed in roundings of the output.
_ROUNDINGS = 4.0

_FAMILIES = {  # class of comfy.supported_models -> kohya's name, modelspec architecture
    "SD15": ("sd_v1", "stable-diffusion-v1"),
    "SD20": ("sd_v2", "stable-diffusion-v2-768-v"),
    "SDXL": ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base"),
    "SD3": ("sd3", "stable-diffusion-3-medium"),
    "Flux": ("flux1", "flux-1-dev"),
}


def key_names(model: Any, adapters: Adapters) -> dict[str, str]:
    """File key of each adapted layer: kohya's, or the generic one where that is ambiguous.

    Raises:
        LikenessError: the host's LoRA loader would not find a layer under either name.
    """
    known = comfy.lora.model_lora_keys_unet(model.model, {})
    names = {}
    for path in adapters.layers:
        target = f"diffusion_model.{path}.weight"
        kohya, generic = f"lora_unet_{path.replace('.', '_')}", f"diffusion_model.{path}"
        names[path] = next((name for name in (kohya, generic) if known.get(name) == target), None)
        if names[path] is None:
            raise LikenessError(f"ComfyUI's LoRA loader has no name for layer `{path}` of this "
                                "model; choose a smaller `target`.")
    return names


def lora_tensors(adapters: Adapters, names: Mapping[str, str],
                 dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """An adapter as file tensors: `<key>.lora_down.weight`, `.lora_up.weight`, `.alpha`."""
    return {f"{names[path]}.{suffix}": value
            for path, layer in adapters.layers.items()
            for suffix, value in layer.to_file(dtype).items()}


def metadata(model: Any, training_set: TrainingSet, subject: Subject, recipe: LoRARecipe,
             seed: int, name: str, key: str, losses: Sequence[float]) -> dict[str, str]:
    """What a LoRA file says of itself: modelspec and kohya's `ss_` fields, and how to repeat it.

    There is no date in it, so the same run says the same.
    """
    kohya, architecture = _family(model)
    captions: dict[str, int] = {}
    for item in training_set.items:
        captions[item.caption] = captions.get(item.caption, 0) + 1
    width, height = max((item.bucket for item in training_set.items), key=math.prod)
    fields = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": "comfyui-likeness",
        "modelspec.title": name,
        "modelspec.resolution": f"{width}x{height}",
        "modelspec.trigger_phrase": subject.trigger,
        "ss_network_module": "networks.lora",
        "ss_network_dim": recipe.rank,
        "ss_network_alpha": recipe.alpha,
        "ss_base_model_version": kohya,
        "ss_output_name": name,
        "ss_steps": recipe.steps,
        "ss_learning_rate": recipe.learning_rate,
        "ss_optimizer": recipe.optimizer.value,
        "ss_lr_scheduler": recipe.schedule.value,
        "ss_batch_size_per_device": recipe.batch_size,
        "ss_num_train_images": len(training_set.items),
        "ss_seed": seed,
        "ss_tag_frequency": {subject.name: captions},
        "likeness.trigger": subject.trigger,
        "likeness.class": subject.class_noun,
        "likeness.recipe": recipe.as_dict(),
        "likeness.photos": [item.photo_sha256 for item in training_set.items],
        "likeness.seed": seed,
        "likeness.run": key,
        "likeness.losses": list(losses),
    }
    return {field: value if isinstance(value, str) else json.dumps(value)
            for field, value in fields.items()}


def _family(model: Any) -> tuple[str, str]:
    kinds = [kind.__name__ for kind in type(model.model.model_config).__mro__]
    known = next((_FAMILIES[kind] for kind in kinds if kind in _FAMILIES), None)
    return known or (kinds[0].lower(), kinds[0].lower())


def write_lora(path: Path, tensors: Mapping[str, torch.Tensor], fields: Mapping[str, str]) -> None:
    """Write a LoRA file, whole or not at all.

    Raises:
        LikenessError: the disk is full or the folder cannot be written.
    """
    try:
        write_tensors(path, tensors, fields)
    except LikenessError as err:
        raise LikenessError(f"The LoRA was trained but not saved: {err} Queue the same run again "
                            "to save it without training anew.") from err


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
    """A clone of a MODEL with a LoRA as ordinary patches, by the host's own loader."""
    patched, _ = comfy.sd.load_lora_for_models(model, None, dict(tensors), strength, 0.0)
    return patched


def check_file(path: Path, model: Any, trainer: Trainer) -> tuple[Any, float]:
    """Load a saved LoRA through the host's loader and compare it with what was trained.

    Returns:
        The patched MODEL, and its output's error relative to what training changed.

    Raises:
        LikenessError: a layer is missing or differs, or the output is not the trained one.
    """
    tensors = runtime.load_weights(path)
    patched = apply_lora(model, tensors, 1.0)
    stored = next(value.dtype for name, value in tensors.items() if name.endswith("up.weight"))
    for layer_path, layer in trainer.adapters.layers.items():
        weight = _weight(trainer.base.diffusion_model.get_submodule(layer_path), layer)
        wanted = layer.difference(weight, stored).detach().cpu()
        found = _difference(patched, f"diffusion_model.{layer_path}.weight", weight.cpu())
        allowed = _LAYER_TOLERANCE * wanted.norm() + _EPSILON * weight.norm().cpu()
        if (found - wanted).norm() > allowed:
            raise LikenessError(f"{path.name} does not load as it was trained: layer "
                                f"`{layer_path}` differs. Please report this model.")
    before, live = trainer.probe(adapted=False), trainer.probe(adapted=True)
    runtime.load_models([patched])
    reloaded = probe(patched, trainer.samples[0])
    change, error = float((live - before).norm()), float((reloaded - live).norm())
    coarsest = max(torch.finfo(kind).eps for kind in (trainer.dtype, _weight_type(model)))
    if error > _TOLERANCE[stored] * change + _ROUNDINGS * coarsest * float(live.norm()):
        raise LikenessError(f"{path.name} gives another picture than the trained adapter (error "
                            f"{error:.3g} of a change of {change:.3g}). Please report this model.")
    return patched, error / change if change > 0 else 0.0


def _weight(module: torch.nn.Module, layer: AdapterLayer) -> torch.Tensor:
    """The frozen weight in float32; zeros where the learned part does not depend on it."""
    if layer.additive:
        return torch.zeros(layer.shape)
    weight, bias, stream = frozen.read_weight(module, torch.empty(0, device=module.weight.device))
    copy = weight.detach().reshape(layer.shape).clone()
    frozen.release(module, weight, bias, stream)
    return copy


def _difference(patched: Any, key: str, weight: torch.Tensor) -> torch.Tensor:
    """What the host's loader adds to a weight."""
    patches = patched.patches.get(key, [])[-1:]
    return comfy.lora.calculate_weight(patches, weight.clone(), key) - weight


def _weight_type(model: Any) -> torch.dtype:
    dtype = model.model.get_dtype()
    return dtype if dtype.is_floating_point else torch.float32
