"""Teaches a test host to recognise checkpoints of a few megabytes.

Linked into `custom_nodes/` of a test host (it adds no nodes) or imported beside ComfyUI in a test
process. Each class is a supported architecture of ComfyUI's own with smaller sizes; a checkpoint
is recognised by sizes that no real model has, and nothing of ComfyUI is replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import comfy.latent_formats
import comfy.supported_models
from comfy.model_base import ModelType
from comfy.supported_models_base import BASE, ClipTarget

NODE_CLASS_MAPPINGS: dict[str, type] = {}

_CLIP = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4,
         "num_hidden_layers": 3, "projection_dim": 64}
_T5 = {"d_model": 64, "d_ff": 128, "d_kv": 16, "num_heads": 4, "num_layers": 2}


@dataclass(frozen=True)
class TinyArchitecture:
    """How a small checkpoint of one architecture is told apart and built."""

    name: str  # class that hosts then know it as
    base: str  # class in comfy.supported_models
    sizes: Mapping[str, Any]  # what detection reads from the weights
    heads: Mapping[str, Any]  # what detection cannot read from the weights
    text_encoders: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    latent_channels: int | None = None  # where they are not the real model's; of deviation 1
    velocity: bool = False  # whether it predicts velocity
    cells: int | None = None  # a side of the only latents that it draws


ARCHITECTURES: Mapping[str, TinyArchitecture] = {
    "sd15": TinyArchitecture(
        "TinySD15", "SD15",
        {"context_dim": 64, "model_channels": 32, "use_linear_in_transformer": False,
         "adm_in_channels": None, "use_temporal_attention": False},
        {"num_heads": 4, "num_head_channels": -1},
        {"clip_l_model_config": _CLIP}),
    "sdxl": TinyArchitecture(
        "TinySDXL", "SDXL",
        {"context_dim": 128, "model_channels": 32, "use_linear_in_transformer": True,
         "adm_in_channels": 64 + 6 * 256, "use_temporal_attention": False},
        {"num_heads": -1, "num_head_channels": 16},
        {"clip_l_model_config": _CLIP, "clip_g_model_config": _CLIP}),
    "sd3": TinyArchitecture(
        "TinySD3", "SD3",
        {"in_channels": 16, "pos_embed_scaling_factor": None, "adm_in_channels": 64 + 64},
        {},
        {"clip_l_model_config": _CLIP, "clip_g_model_config": _CLIP}),
    "flux": TinyArchitecture(
        "TinyFlux", "Flux",
        {"image_model": "flux", "guidance_embed": True, "hidden_size": 64},
        {"num_heads": 2, "axes_dim": [8, 12, 12]},
        {"clip_l_model_config": _CLIP, "t5xxl_model_config": _T5}),
    # The one with weights that were learned; see launcher/demonstrator.
    "demonstrator": TinyArchitecture(
        "Demonstrator", "SD15",
        {"context_dim": 48, "model_channels": 64, "use_linear_in_transformer": False,
         "adm_in_channels": None, "use_temporal_attention": False},
        {"num_heads": -1, "num_head_channels": 32},
        {"clip_l_model_config": {"hidden_size": 48, "intermediate_size": 192,
                                 "num_attention_heads": 4, "num_hidden_layers": 2,
                                 "projection_dim": 48}},
        latent_channels=16, velocity=True, cells=16),
}


def _with_small_text_encoders(target: ClipTarget, sizes: Mapping[str, Mapping[str, int]]) -> None:
    """Make a clip target build its encoders with other sizes, by ComfyUI's own option."""

    class SmallTextEncoders(target.clip):
        def __init__(self, device: Any = "cpu", dtype: Any = None,
                     model_options: Mapping[str, Any] | None = None) -> None:
            small = {name: dict(values) for name, values in sizes.items()}
            super().__init__(device=device, dtype=dtype,
                             model_options={**small, **(model_options or {})})

    target.clip = SmallTextEncoders


def _only_at(cells: int, base: type[BASE]) -> Any:
    """`get_model` of an architecture that refuses latents of another size than it has seen."""
    pixels = 8 * cells

    def check(network: Any, given: tuple[Any, ...]) -> None:
        height, width = given[0].shape[-2:]
        if (height, width) != (cells, cells):
            raise ValueError(
                f"This small checkpoint draws pictures of {pixels} x {pixels} pixels alone, and is "
                f"asked for {8 * width} x {8 * height}; set width, height and the `resolution` of "
                f"training photos to {pixels}, or use a checkpoint of a real family.")

    def get_model(self: BASE, *args: Any, **kwargs: Any) -> Any:
        model = base.get_model(self, *args, **kwargs)
        model.diffusion_model.register_forward_pre_hook(check)
        return model

    return get_model


def _tiny_class(tiny: TinyArchitecture) -> type[BASE]:
    base = getattr(comfy.supported_models, tiny.base)

    def clip_target(self: BASE, state_dict: Mapping[str, Any] | None = None) -> ClipTarget:
        target = base.clip_target(self, state_dict or {})
        _with_small_text_encoders(target, tiny.text_encoders)
        return target

    own: dict[str, Any] = {"unet_config": dict(tiny.sizes), "clip_target": clip_target,
                           "unet_extra_config": dict(tiny.heads)}
    if tiny.latent_channels is not None:
        own["latent_format"] = type(f"{tiny.name}Latent", (comfy.latent_formats.LatentFormat,),
                                    {"latent_channels": tiny.latent_channels})
        # More than four channels mean a mask and a picture beside the latents elsewhere.
        own["inpaint_model"] = lambda self: False
    if tiny.cells is not None:
        own["get_model"] = _only_at(tiny.cells, base)
    if tiny.velocity:
        own["model_type"] = lambda self, *args, **kwargs: ModelType.V_PREDICTION
    return type(tiny.name, (base,), own)


def register() -> dict[str, type[BASE]]:
    """Put the small architectures before ComfyUI's own, once; return them by name."""
    known = {model.__name__: model for model in comfy.supported_models.models}
    classes = {name: known.get(tiny.name) or _tiny_class(tiny)
               for name, tiny in ARCHITECTURES.items()}
    new = [model for model in classes.values() if model.__name__ not in known]
    comfy.supported_models.models[:0] = new
    return classes


register()
