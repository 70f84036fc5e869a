"""Adapters of text encoders in LoRA files, proven by loading them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...errors import LikenessError
from ..frozen.beside import parts_of
from ..text.encoders import TextEncoders
from .embedding import coarsest, flat, live_encoding
from .keys import KeyStyle, text_keys
from .lora import apply_text_lora

# A text without any trigger, so that only adapters decide its encoding.
_PROBE = "a photo of a person"
# Largest error of the encoding, relative to what the adapters change, by the file's format.
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 3e-2}
# The host adds the LoRA to the stored weights and rounds; allowed in roundings of the encoding.
_ROUNDINGS = 4.0


def text_lora_tensors(text: TextEncoders, dtype: torch.dtype,
                      style: KeyStyle = KeyStyle.KOHYA) -> dict[str, torch.Tensor]:
    """The text encoders' adapters as file tensors; none for layers that cannot learn."""
    if text.adapters is None:
        return {}
    names = text_keys(text.clip, text.adapters.layers, style)
    return {f"{names[path]}.{suffix}": value
            for path, layer in text.adapters.layers.items()
            for suffix, value in layer.to_file(dtype).items()}


def check_text(tensors: Mapping[str, torch.Tensor], clip: Any, text: TextEncoders,
               name: str) -> tuple[Any, float]:
    """Load a LoRA into a CLIP through the host's loader and compare it with what was trained.

    Args:
        tensors: of the whole file; those of the diffusion model are not looked at.
        name: of the file.

    Returns:
        A clone of the CLIP with the LoRA, and its encoding's error relative
        to what the adapters change.

    Raises:
        LikenessError: a layer does not load, or the encoding is not the trained one.
    """
    patched = apply_text_lora(clip, tensors, 1.0)
    beside = parts_of(patched.patcher)
    for path in text.adapters.layers:
        if path not in beside and not patched.patcher.patches.get(f"{path}.weight"):
            raise LikenessError(f"{name} does not load as it was trained: layer `{path}` of the "
                                "text encoder is missing. Please report this text encoder.")
    live = live_encoding(text, _PROBE)
    with text.switched_off():
        before = live_encoding(text, _PROBE)
    reloaded = flat(patched.encode_from_tokens_scheduled(patched.tokenize(_PROBE)))
    change, error = float((live - before).norm()), float((reloaded - live).norm())
    stored = min((value.dtype for value in tensors.values() if value.ndim > 1),
                 key=lambda kind: torch.finfo(kind).bits)
    allowed = _TOLERANCE[stored] * change + _ROUNDINGS * coarsest(text) * float(live.norm())
    if not error <= allowed:
        raise LikenessError(f"{name} encodes a prompt otherwise than in training (error "
                            f"{error:.3g} of a change of {change:.3g}). Please report this text "
                            "encoder.")
    return patched, error / change if change > 0 else 0.0
