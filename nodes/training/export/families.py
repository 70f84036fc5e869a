"""What a trained model is called in a file: its family, its variant and what it predicts.

Names of variants are those of the ModelSpec standard (github.com/Stability-AI/ModelSpec) and, where
it has none, those that sd-scripts write (library/sai_model_spec.py there). Where the host does not
tell variants apart, the family's name alone is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_HOST = "comfy.supported_models"
_SD3_DEPTHS = {24: "medium", 38: "5-large"}
_UNET_CHANNELS = 4  # of a latent; inpainting models get a mask and a picture too
# Host classes of how a network's output is read -> ModelSpec's word; None: it has none for it.
_PREDICTIONS: Mapping[str, str | None] = {
    "EDM": None, "X0": None, "IMG_TO_IMG": None, "COSMOS_RFLOW": None,
    "V_PREDICTION": "v", "EPS": "epsilon", "CONST": "flow"}

Config = Mapping[str, Any]  # the network's sizes, as the host has read them from the weights


def family(model: Any) -> tuple[str, str]:
    """Kohya's name of a MODEL's family and ModelSpec's of its architecture.

    A class of the host without a name in either gives its own, in lower case.
    """
    config = model.model.model_config
    # Classes of other modules are a host's class in other sizes.
    kind = next((kind.__name__ for kind in type(config).__mro__ if kind.__module__ == _HOST),
                type(config).__name__)
    if kind not in _FAMILIES:
        plain = kind.lower().replace("_", "-")
        return plain, plain
    kohya, architecture = _FAMILIES[kind]
    if callable(architecture):
        architecture = architecture(config.unet_config, prediction(model))
    return kohya, architecture


def prediction(model: Any) -> str | None:
    """What a MODEL's network predicts: epsilon, v or flow; None: none of these.

    A node such as ModelSamplingDiscrete may have changed it, so the patched sampling counts.
    """
    kinds = type(model.get_model_object("model_sampling")).__mro__
    return next((_PREDICTIONS[kind.__name__] for kind in kinds if kind.__name__ in _PREDICTIONS),
                None)


def _sd1(config: Config, predicted: str | None) -> str:
    return f"stable-diffusion-v1{'' if _is_plain(config) else '-inpainting'}"


def _sd2(config: Config, predicted: str | None) -> str:
    if not _is_plain(config):
        return f"stable-diffusion-v2-{'depth' if config['in_channels'] == 5 else 'inpainting'}"
    return "stable-diffusion-v2-768-v" if predicted == "v" else "stable-diffusion-v2-512"


def _sdxl(config: Config, predicted: str | None) -> str:
    return f"stable-diffusion-xl-v1-{'base' if _is_plain(config) else 'inpainting'}"


def _is_plain(config: Config) -> bool:
    return config.get("in_channels", _UNET_CHANNELS) == _UNET_CHANNELS


def _sd3(config: Config, predicted: str | None) -> str:
    variant = _SD3_DEPTHS.get(config["depth"])
    if variant == "medium" and config.get("x_block_self_attn_layers"):
        variant = "5-medium"
    return "stable-diffusion-3" if variant is None else f"stable-diffusion-3-{variant}"


def _flux(config: Config, predicted: str | None) -> str:
    # Fill, Canny and Depth see a second picture; the host has no word for which.
    if config.get("in_channels", 16) != 16:
        return "flux-1"
    return "flux-1-dev" if config["guidance_embed"] else "flux-1-schnell"


_Name = str | Callable[[Config, "str | None"], str]
_FAMILIES: Mapping[str, tuple[str, _Name]] = {  # by class of comfy.supported_models
    "SD15": ("sd_v1", _sd1),
    "SD20": ("sd_v2", _sd2),
    "SD21UnclipL": ("sd_v2", "stable-diffusion-v2-unclip-l"),
    "SD21UnclipH": ("sd_v2", "stable-diffusion-v2-unclip-h"),
    "SDXL": ("sdxl_base_v1-0", _sdxl),
    "SDXLRefiner": ("sdxl_refiner_v1-0", "stable-diffusion-xl-v1-refiner"),
    "SDXL_instructpix2pix": ("sdxl_base_v1-0", "stable-diffusion-xl-v1-edit"),
    "SD3": ("sd3", _sd3),
    "Flux": ("flux1", _flux),
    "FluxInpaint": ("flux1", _flux),
    "FluxSchnell": ("flux1", _flux),
    "Flux2": ("flux2", "flux-2"),
    "Chroma": ("chroma", "chroma"),
    "Lumina2": ("lumina2", "lumina-2"),
    "ZImage": ("zimage", "z-image"),
    "QwenImage": ("qwen_image", "qwen-image"),
}
