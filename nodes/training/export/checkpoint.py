"""Whole checkpoints of a fully fine-tuned model, proven by loading them back."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.sd
import comfy.utils
import torch

from ...errors import LikenessError, NotSavedError
from ...files import write_whole
from ..adapters.group import Adapters
from ..frozen import layers as frozen
from ..samples.data import seeded
from ..steps.loop import Trainer
from .rounding import round_evenly

logger = logging.getLogger("likeness")

_STORABLE = (torch.float32, torch.float16, torch.bfloat16)
# A saved change may differ by this share of itself: newer hosts add it in 16 bits.
_CHANGE_ERROR = 0.1
# Relative to the weight: adding a change to it rounds in float32.
_FLOAT32_ERROR = 1e-7
_LEAST_KEPT = 0.5  # share of the learned change that a file must hold


def check_storable(model: Any) -> None:
    """Refuse a MODEL whose number format cannot hold what full fine-tuning changes.

    Raises:
        LikenessError: a layer is stored in 8 bits or fewer; the text names it.
    """
    for path, module in model.model.diffusion_model.named_modules():
        if not (frozen.is_linear(module) or frozen.is_conv(module)):
            continue
        weight = module.weight
        if (type(weight) not in (torch.Tensor, torch.nn.Parameter)
                or weight.dtype not in _STORABLE
                or getattr(module, "scale_weight", None) is not None):
            kind = str(weight.dtype).removeprefix("torch.")
            raise LikenessError(f"Layer `{path}` is stored as {kind}, which is too coarse for what "
                                "DreamBooth changes; load an fp16 or bf16 file of the model with "
                                "`weight_dtype` default, or train a LoRA.")


def tuned(model: Any, adapters: Adapters) -> Any:
    """A clone of a MODEL with the learned weights as ordinary patches; the MODEL stays as it is.

    What learned started from the MODEL's patched weights, so that these patches take the place of
    those that it carries for the same weights. The weights are those that a checkpoint of the
    clone holds.
    """
    patched = model.clone()
    patches = {key: ("diff", (_storable(key, value, _stored(model, key).dtype)
                              - _as_float(_stored(model, key)),))
               for key, value in _learned(model, adapters)}
    # Newer hosts share these tables between clones.
    patched.patches = {key: value for key, value in patched.patches.items() if key not in patches}
    patched.add_patches(patches)
    return patched


def _learned(model: Any, adapters: Adapters) -> Iterator[tuple[str, torch.Tensor]]:
    """The learned weights and biases, float32 on the CPU, by the host's keys."""
    for path, layer in adapters.layers.items():
        for name, value in layer.to_file(torch.float32).items():
            key = f"diffusion_model.{path}.{name}"
            yield key, value.reshape(_stored(model, key).shape)


def _stored(model: Any, key: str) -> torch.Tensor:
    """A MODEL's own weight, without the patches that it is loaded with."""
    backup = model.backup.get(key)
    return comfy.utils.get_attr(model.model, key) if backup is None else backup.weight


def _storable(key: str, value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A learned weight as a number format can hold it, in float32; the same at every call."""
    return round_evenly(value, dtype, seeded(0, "stored", key))


def _started(model: Any, key: str) -> torch.Tensor:
    """What a weight was before it learned: patched, as its format holds it, float32."""
    stored = _stored(model, key)
    patches = model.patches.get(key)
    if not patches:
        return _as_float(stored)
    weight = comfy.lora.calculate_weight(list(patches), _as_float(stored).clone(), key)
    return weight.to(stored.dtype).float()


def _as_float(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach().to("cpu", torch.float32)


def write_checkpoint(path: Path, model: Any, clip: Any, vae: Any,
                     fields: Mapping[str, str]) -> None:
    """Write a MODEL with its patches, CLIP and VAE as one file, whole or not at all.

    Raises:
        NotSavedError: the disk is full or the folder cannot be written.
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
        write_whole(path, write, durable=True)
    except LikenessError as err:
        raise NotSavedError(f"The model was trained but not saved: {err}") from err


def take_over(path: Path, trainer: Trainer) -> None:
    """Give a trainer's layers the weights of a checkpoint, as the host reads them.

    Raises:
        ValueError: they are those of the model before training.
    """
    found = _Found(path, trainer)
    changed = False
    for layer_path, layer in trainer.adapters.layers.items():
        values = {name: found.weight(f"diffusion_model.{layer_path}.{name}")
                  for name in layer.to_file(torch.float32)}
        changed = changed or any(
            not torch.equal(value, _started(trainer.patcher,
                                            f"diffusion_model.{layer_path}.{name}"))
            for name, value in values.items())
        layer.from_file(values)
    if not changed:
        raise ValueError("it holds the model before training")


class _Found:
    """A checkpoint's weights, as the host detects and reads them."""

    def __init__(self, path: Path, trainer: Trainer) -> None:
        key = next(key for key, _ in _learned(trainer.patcher, trainer.adapters))
        # The host would else choose a coarser format than the file's where memory is short.
        loaded, *_ = comfy.sd.load_checkpoint_guess_config(
            str(path), output_vae=False, output_clip=False,
            model_options={"dtype": _stored(trainer.patcher, key).dtype})
        self.model = loaded.model

    def weight(self, key: str) -> torch.Tensor:
        """One of them, float32 on the CPU."""
        return _as_float(comfy.utils.get_attr(self.model, key))


def check_checkpoint(path: Path, trainer: Trainer) -> float:
    """Compare what a checkpoint changes of the model, as the host reads it, with what was learned.

    Returns:
        The largest error of a weight, relative to its change, beyond the file format's rounding.

    Raises:
        LikenessError: the host does not recognise the file, a weight differs from what was to be
            saved, or less than half of the change is in the file.
    """
    found, patcher = _Found(path, trainer), trainer.patcher
    worst = along = size = 0.0
    for key, value in _learned(patcher, trainer.adapters):
        before, after = _started(patcher, key), found.weight(key)
        wanted = _storable(key, value, _stored(patcher, key).dtype)
        change = float((wanted - before).norm())
        excess = float((after - wanted).norm()) - _FLOAT32_ERROR * float(wanted.norm())
        if excess > _CHANGE_ERROR * change:
            raise LikenessError(f"{path.name} does not load as it was trained: `{key}` differs. "
                                "Please report this model.")
        worst = max(worst, excess / change if change > 0 else 0.0)
        learned = (value - before).double()
        # Rounding scatters a small change; what counts is how far the weights went its way.
        along += float((learned * (after - before)).sum())
        size += float(learned.square().sum())
    kept = along / size if size > 0 else 0.0
    logger.info("%s holds %.0f %% of what was learned.", path.name, 100 * kept)
    if kept < _LEAST_KEPT:
        raise LikenessError(f"{path.name} holds only {max(0.0, kept):.0%} of what was learned, "
                            "because the change is too small for the numbers that the model is "
                            "stored in; raise `learning_rate` or `steps`, or train an fp32 file of "
                            "the model.")
    return worst
