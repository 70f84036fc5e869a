"""Whole checkpoints of a fully fine-tuned model, proven by loading them back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
import torch

from ...errors import LikenessError
from ...files import write_whole
from ..adapters.group import Adapters
from ..loop import Trainer

# Largest rounding of a weight, relative to its largest value: half a unit of the stored format.
_ROUNDING = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def tuned(model: Any, adapters: Adapters, strength: float = 1.0) -> Any:
    """A clone of a MODEL with the learned change as ordinary patches; the MODEL stays as it is."""
    patched = model.clone()
    patches = {}
    for path, layer in adapters.layers.items():
        for name, value in layer.to_file(torch.float32).items():
            key = f"diffusion_model.{path}.{name}"
            stored = comfy.utils.get_attr(model.model, key)
            backup = model.backup.get(key)  # what is loaded may carry patches already
            stored = stored if backup is None else backup.weight
            change = value.reshape(stored.shape) - stored.detach().to("cpu", torch.float32)
            patches[key] = ("diff", (change,))
    patched.add_patches(patches, strength)
    return patched


def write_checkpoint(path: Path, model: Any, clip: Any, vae: Any,
                     fields: Mapping[str, str]) -> None:
    """Write a MODEL with its patches, CLIP and VAE as one file, whole or not at all.

    Raises:
        LikenessError: the disk is full or the folder cannot be written.
    """
    def write(partial: Path) -> None:
        # The host tells the format from the name's end.
        named = partial.with_name(f"{partial.name}.safetensors")
        try:
            comfy.sd.save_checkpoint(str(named), model, clip, vae, metadata=dict(fields))
            named.replace(partial)
        finally:
            named.unlink(missing_ok=True)

    try:
        write_whole(path, write)
    except LikenessError as err:
        raise LikenessError(f"The model was trained but not saved: {err} Queue the same run again "
                            "to save it without training anew.") from err


def take_over(path: Path, trainer: Trainer) -> None:
    """Give a trainer's layers the weights of a checkpoint, as the host reads them."""
    network = _network(path)
    for layer_path, layer in trainer.adapters.layers.items():
        module = network.get_submodule(layer_path)
        layer.from_file({name: getattr(module, name).detach().float()
                         for name in layer.to_file(torch.float32)})


def _network(path: Path) -> torch.nn.Module:
    loaded, *_ = comfy.sd.load_checkpoint_guess_config(
        str(path), output_vae=False, output_clip=False)
    return loaded.model.diffusion_model


def check_checkpoint(path: Path, trainer: Trainer) -> float:
    """Compare a checkpoint's weights, as the host detects and reads them, with the learned ones.

    Returns:
        The largest error of a layer, relative to its largest weight.

    Raises:
        LikenessError: the host does not recognise the file, or a layer differs by more than the
            rounding of its number format.
    """
    network, worst = _network(path), 0.0
    for layer_path, layer in trainer.adapters.layers.items():
        module = network.get_submodule(layer_path)
        for name, wanted in layer.to_file(torch.float32).items():
            found = getattr(module, name).detach().float().cpu()
            largest = float(wanted.abs().max()) or 1.0
            error = float((found - wanted.reshape(found.shape)).abs().max()) / largest
            if error > _ROUNDING.get(getattr(module, name).dtype, 0.1):
                raise LikenessError(f"{path.name} does not load as it was trained: layer "
                                    f"`{layer_path}` differs. Please report this model.")
            worst = max(worst, error)
    return worst
