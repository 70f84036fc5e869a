"""A LoRA file on a MODEL and a CLIP, with an account of what of it was applied and what was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ... import runtime
from ...errors import LikenessError
from ..export.lora import apply_lora, apply_text_lora
from ..frozen.beside import rounded
from .file_layers import KNOWN_PARTS, FileLayer
from .fitted import Fitted, LeftOut, fit, readable_layers
from .origin import model_family, names_of, trained_for
from .scales import read_configs, says_no_alpha
from .words import bundled, with_words

_ROWS = {"emb_params", "clip_l", "clip_g", "t5xxl", "string_to_param.*"}


def with_lora_file(model: Any, clip: Any, path: Path, tensors: Mapping[str, torch.Tensor],
                   said: Mapping[str, str], strength_model: float,
                   strength_clip: float) -> tuple[Any, Any, dict[str, Any]]:
    """Put a LoRA file of any trainer on clones of a MODEL and a CLIP.

    Args:
        said: the file's header.

    Returns:
        The clones and the account: layers and words by whether they were applied, and a sentence
        for each thing that was not as the file has it.

    Raises:
        LikenessError: nothing of the file fits.
    """
    tensors, words, outputs = bundled(tensors)
    layers = readable_layers(tensors)
    configs = read_configs(path, said, layers)
    fitted = fit(layers, configs, model, clip)
    clip, called, lost = with_words(clip, words, runtime.temp_directory() / "likeness_words")
    if not fitted.files and not called:
        raise LikenessError(_refusal(path.name, layers, fitted, said, model))
    before = rounded(model) | rounded(clip.patcher)
    for file in fitted.files:
        model = apply_lora(model, file, strength_model)
        clip = apply_text_lora(clip, file, strength_clip)
    left = fitted.left_out
    account = {"layers": fitted.layers, "layers_left_out": sum(not one.is_text for one in left),
               "text_layers": fitted.text_layers,
               "text_layers_left_out": sum(one.is_text for one in left),
               "words": called, "words_left_out": lost}
    warnings = _warnings(path.name, layers, fitted, said, model)
    coarse = (rounded(model) | rounded(clip.patcher)) - before
    if coarse:
        warnings.append(f"{path.name} is added to {len(coarse)} weights that are stored in fewer "
                        "than 16 bits and rounded with them, which loses much of a small change; "
                        "load the checkpoint in 16 bits for all of it.")
    if lost:
        warnings.append(f"{path.name} carries new words that no encoder of this CLIP takes "
                        f"({', '.join(lost)}); load the checkpoint that they were trained for.")
    if outputs:
        warnings.append(f"{path.name} has vectors for the outputs of text encoders "
                        f"({', '.join(outputs)}), which ComfyUI cannot apply; train these words "
                        "without output embeddings.")
    if says_no_alpha(layers, configs):
        warnings.append(f"{path.name} does not say its alpha, so it acts with the scale 1; put its "
                        "adapter_config.json beside it, or set `strength_model` to alpha / rank.")
    for sentence in warnings:
        runtime.logger.warning("%s", sentence)
    return model, clip, {**account, "warnings": warnings}


def _warnings(name: str, layers: Sequence[FileLayer], fitted: Fitted, said: Mapping[str, str],
              model: Any) -> list[str]:
    """A sentence for each part of the checkpoint of which not all layers were applied."""
    found = []
    for is_text, applied, what in ((False, fitted.layers, "model"),
                                   (True, fitted.text_layers, "text encoder")):
        left = [one for one in fitted.left_out if one.is_text == is_text]
        if left:
            found.append(f"{name}: {applied} of {applied + len(left)} {what} layers were applied; "
                         f"{_reasons(left)}; {_remedy(left, layers, said, model)}.")
    return found


def _refusal(name: str, layers: Sequence[FileLayer], fitted: Fitted, said: Mapping[str, str],
             model: Any) -> str:
    """Why nothing of a file fits, and what to do."""
    if layers and all(not set(layer.parts) & KNOWN_PARTS for layer in layers):
        keys = {f"{layer.name}.{part}".strip(".") for layer in layers for part in layer.parts}
        if keys & _ROWS:
            return (f"{name} is an embedding and no LoRA; put it into models/embeddings and give "
                    "its name as `embedding`.")
        if any(layer.name.startswith("model.diffusion_model.") for layer in layers):
            return f"{name} is a checkpoint and no LoRA; load it with a checkpoint loader."
    if not layers:
        return f"{name} holds no layers that could be applied; get or train it again."
    left = fitted.left_out
    return (f"No layer of this model and text encoder is in {name}, whose layers ({len(left)}) "
            f"have {names_of(layers)} names: {_reasons(left)}; "
            f"{_remedy(left, layers, said, model)}.")


def _reasons(left: Sequence[LeftOut]) -> str:
    """Why layers were left out, each reason with an example."""
    kinds: dict[str, list[LeftOut]] = {}
    for one in left:
        kinds.setdefault("of another shape" if one.shapes else one.why, []).append(one)
    return ", ".join(
        f"{len(ones)} {why} (such as `{ones[0].name}`{f', {ones[0].why}' * ones[0].shapes})"
        for why, ones in kinds.items())


def _remedy(left: Sequence[LeftOut], layers: Sequence[FileLayer], said: Mapping[str, str],
            model: Any) -> str:
    """What to do: another checkpoint where shapes or the family say so."""
    trained, own = trained_for(layers, said), model_family(model)
    if trained is not None and _differs(trained, own):
        return f"it was trained for {trained} and this MODEL is {own}, so load its checkpoint"
    if any(one.shapes for one in left):
        return "their sizes are another model's, so load the checkpoint that it was trained for"
    if all(one.is_text and "not in this" in one.why for one in left):
        return "this CLIP lacks that encoder, so load all of the checkpoint's text encoders"
    if any("not in this" not in one.why for one in left):
        return "have it saved as a plain LoRA by its trainer"
    return ("this MODEL and CLIP have no such layers under any name that is known here, so convert "
            "it to kohya's layout or use its trainer's own loader")


def _differs(trained: str, own: str) -> bool:
    if trained.startswith("a U-Net"):
        return own in ("FLUX", "FLUX.2", "SD3")
    return trained != own
