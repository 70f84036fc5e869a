"""Whose names a LoRA file uses and for what it was trained, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..export.families import family
from .file_layers import FileLayer

_HEADS = (("base_model.model.", "PEFT's"), ("lora_transformer_", "OneTrainer's"),
          ("lycoris_", "LyCORIS'"), ("lora_", "kohya's"), ("diffusion_model.", "ComfyUI's"),
          ("unet.", "diffusers'"), ("transformer.", "diffusers'"), ("text_encoder", "diffusers'"))
# By how a family is called in ModelSpec's and kohya's fields, longer names before shorter ones.
_FAMILIES = (("sdxl_refiner", "SDXL's refiner"), ("sdxl", "SDXL"),
             ("stable-diffusion-xl", "SDXL"), ("sd_v1", "SD1.5"), ("sd_1", "SD1.5"),
             ("stable-diffusion-v1", "SD1.5"), ("sd_v2", "SD2"), ("sd_2", "SD2"),
             ("stable-diffusion-v2", "SD2"), ("sd3", "SD3"), ("stable-diffusion-3", "SD3"),
             ("flux2", "FLUX.2"), ("flux-2", "FLUX.2"), ("flux", "FLUX"), ("qwen", "Qwen-Image"),
             ("zimage", "Z-Image"), ("z-image", "Z-Image"), ("chroma", "Chroma"),
             ("lumina", "Lumina 2"))
_FIELDS = ("modelspec.architecture", "ss_base_model_version")
_UNET = ("down_blocks_", "up_blocks_", "mid_block_", "input_blocks_", "output_blocks_",
         "middle_block_")
_CROSS_ATTENTION = ("attn2_to_k", "attn2_to_v")
_WIDTHS = {768: "SD1.5", 1024: "SD2", 2048: "SDXL", 1280: "SDXL's refiner"}


def names_of(layers: Sequence[FileLayer]) -> str:
    """Whose names a file's layers have."""
    return next((whose for head, whose in _HEADS
                 if any(layer.name.startswith(head) for layer in layers)), "unknown")


def model_family(model: Any) -> str:
    """A MODEL's family."""
    kohya, _ = family(model)
    return _called(kohya) or kohya


def trained_for(layers: Sequence[FileLayer], said: Mapping[str, str]) -> str | None:
    """The family that a file was trained for: what it says, or its names and widths tell."""
    told = (_called(said.get(field, "")) for field in _FIELDS)
    return next((name for name in told if name), None) or _by_names(layers)


def _called(value: str) -> str | None:
    lowered = value.lower()
    return next((name for start, name in _FAMILIES if lowered.startswith(start)), None)


def _by_names(layers: Sequence[FileLayer]) -> str | None:
    paths = [layer.place[1] for layer in layers if not layer.is_text]
    if any(path.startswith(("single_transformer_blocks_", "single_blocks_", "double_blocks_"))
           for path in paths):
        return "FLUX"
    if any("img_mlp" in path or "img_mod" in path for path in paths):
        return "Qwen-Image"
    if any(path.startswith(("joint_blocks_", "transformer_blocks_")) for path in paths):
        return "SD3"
    if not any(path.startswith(_UNET) for path in paths):
        return None
    widths = {value[0].numel() for layer in layers for part, value in layer.parts.items()
              if part == "lora_down.weight" and layer.place[1].endswith(_CROSS_ATTENTION)}
    return next((_WIDTHS[width] for width in widths if width in _WIDTHS), "a U-Net (SD1.5 or SDXL)")
