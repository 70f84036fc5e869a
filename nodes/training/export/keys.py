"""How a file names the layers that an adapter belongs to, for ComfyUI and its relatives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import comfy.lora
import comfy.supported_models
import comfy.utils

from ...errors import LikenessError


class KeyStyle(str, Enum):
    """Whose names a LoRA file uses; ComfyUI loads each of them."""

    KOHYA = "kohya"
    DIFFUSERS = "diffusers"
    PLAIN = "plain"


# Diffusers' pipelines load adapters of these text encoders alone.
_TEXT_ENCODERS = ("text_encoder.", "text_encoder_2.")


def layer_keys(model: Any, paths: Iterable[str],
               style: KeyStyle = KeyStyle.KOHYA) -> dict[str, str]:
    """File key of each adapted layer of a MODEL's network: what stands before `.lora_up.weight`.

    Kohya's sd-scripts name SD1 and SD2 as diffusers does and every other model as ComfyUI does.
    Where such a name fits two layers, a layer keeps the plain one.

    Raises:
        LikenessError: the host's LoRA loader would not find a layer, or the style has no single
            key for a layer (diffusers').
    """
    if style is KeyStyle.DIFFUSERS:
        raise LikenessError("Diffusers' files cut fused layers into parts, so a layer has no "
                            "single key in them; only LoRA has such a file.")
    known = comfy.lora.model_lora_keys_unet(model.model, {})
    renamed = _diffusers_names(model) if style is KeyStyle.KOHYA else {}
    names = {}
    for path in paths:
        wanted = [f"diffusion_model.{path}"]
        if style is KeyStyle.KOHYA:
            wanted.insert(0, f"lora_unet_{path.replace('.', '_')}")
        if path in renamed:
            wanted.insert(0, f"lora_unet_{renamed[path].replace('.', '_')}")
        names[path] = _first(wanted, known, f"diffusion_model.{path}.weight", path)
    return names


def text_keys(clip: Any, paths: Iterable[str],
              style: KeyStyle = KeyStyle.KOHYA) -> dict[str, str]:
    """File key of each adapted layer of a CLIP's text encoders.

    Args:
        paths: of layers below `clip.cond_stage_model`.

    Raises:
        LikenessError: the host's LoRA loader would not find a layer, or diffusers' pipelines load
            nothing for its encoder (T5).
    """
    known = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
    by_target: dict[str, list[str]] = {}
    for key, target in known.items():
        by_target.setdefault(target, []).append(key)
    alone = len({target.split(".")[0] for target in by_target}) == 1
    names = {}
    for path in paths:
        found = by_target.get(f"{path}.weight", [])
        match style:
            case KeyStyle.KOHYA:
                # sd-scripts number an encoder only where there are several, T5 always as the third.
                order = ("lora_te_",) if alone else ("lora_te1_", "lora_te3_", "lora_te2_")
                wanted = [key for start in order for key in found if key.startswith(start)]
                wanted += [f"text_encoders.{path}"]
            case KeyStyle.DIFFUSERS:
                wanted = [key for key in found if key.startswith(_TEXT_ENCODERS)]
                if not wanted:
                    raise LikenessError(f"Diffusers' pipelines load no adapter for `{path}`; save "
                                        "with the keys `kohya` or train CLIP's encoders alone.")
            case _:
                wanted = [f"text_encoders.{path}"]
        names[path] = _first(wanted, known, f"{path}.weight", path)
    return names


def is_text_key(name: str) -> bool:
    """Whether a LoRA file's tensor belongs to a text encoder, in any style."""
    return name.startswith(("lora_te", "text_encoder"))


def _first(wanted: list[str], known: Mapping[str, Any], target: str, path: str) -> str:
    name = next((name for name in wanted if known.get(name) == target), None)
    if name is None:
        raise LikenessError(f"ComfyUI's LoRA loader has no name for layer `{path}` of this model; "
                            "choose a smaller `target`.")
    return name


def _diffusers_names(model: Any) -> dict[str, str]:
    """Diffusers' name of each layer, by path, of the models that sd-scripts train as diffusers."""
    config = model.model.model_config
    if not isinstance(config, (comfy.supported_models.SD15, comfy.supported_models.SD20)):
        return {}
    table = comfy.utils.unet_to_diffusers(config.unet_config)
    return {place.removesuffix(".weight"): name.removesuffix(".weight")
            for name, place in table.items() if name.endswith(".weight")}
