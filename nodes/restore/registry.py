"""The face restorers we can run: how each is told from its tensors, loaded and called."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import LikenessError, MissingModelError

logger = logging.getLogger("likeness")

CHIP = 512  # the side of the aligned face that every one of these networks was trained on

Weights = Mapping[str, torch.Tensor]
# (network, chips (B, 3, 512, 512) RGB in [-1, 1], fidelity 0..1) -> chips of the same form
Call = Callable[[torch.nn.Module, torch.Tensor, float], torch.Tensor]


@dataclass(frozen=True)
class Architecture:
    """One kind of restorer."""

    id: str  # as spandrel names it
    title: str
    keys: tuple[str, ...]  # tensors that only this layout has, all of them
    call: Call
    licence: str  # of the public weights
    fidelity: bool = False  # whether the network can be told how much to invent
    package: str = ""  # what spandrel needs beside itself


@dataclass(frozen=True, eq=False)
class Restorer:
    """What a RESTORER socket carries: a loaded network, or none when the user chose none."""

    file: str
    architecture: Architecture | None = None
    patcher: Any = None  # the host's ModelPatcher round the network

    @property
    def chosen(self) -> bool:
        """Whether there is anything to run."""
        return self.architecture is not None


NONE = Restorer("none")


def _call_gfpgan(network: torch.nn.Module, chips: torch.Tensor, fidelity: float) -> torch.Tensor:
    # Noise is random by default, which would make one graph give two pictures.
    return network(chips, return_rgb=False, randomize_noise=False)[0]


def _call_codeformer(network: torch.nn.Module, chips: torch.Tensor,
                     fidelity: float) -> torch.Tensor:
    # Only the network takes the weight; spandrel's descriptor leaves it at 0.5.
    return network(chips, weight=fidelity)[0]


def _call_restoreformer(network: torch.nn.Module, chips: torch.Tensor,
                        fidelity: float) -> torch.Tensor:
    return network(chips)[0]


# The first whose keys are all there wins.
ARCHITECTURES = (
    Architecture(
        "GFPGAN", "GFPGAN", ("toRGB.0.weight", "stylegan_decoder.style_mlp.1.weight"),
        _call_gfpgan, "Apache-2.0 with third-party terms (StyleGAN2 part non-commercial)"),
    Architecture(
        "CodeFormer", "CodeFormer",
        ("position_emb", "quantize.embedding.weight", "idx_pred_layer.1.weight"),
        _call_codeformer, "S-Lab License 1.0, non-commercial", fidelity=True,
        package="spandrel-extra-arches"),
    Architecture(
        "RestoreFormer", "RestoreFormer",
        ("quantize.embedding.weight", "quant_conv.weight", "encoder.conv_in.weight",
         "decoder.conv_out.weight"),
        _call_restoreformer, "Apache-2.0"),
)


def detect(weights: Weights, name: str) -> Architecture:
    """Tell a restorer from its tensor names.

    Raises:
        LikenessError: no known layout.
    """
    for architecture in ARCHITECTURES:
        if all(key in weights for key in architecture.keys):
            return architecture
    known = ", ".join(architecture.title for architecture in ARCHITECTURES)
    raise LikenessError(f"`{name}` is not a face restorer that can be run here; choose a file of "
                        f"one of these: {known}.")


def load_network(weights: Weights, name: str) -> tuple[Architecture, torch.nn.Module]:
    """Build the network behind a restorer's weights, in float32 on the CPU.

    Args:
        weights: what the file holds, also when wrapped (`params_ema`, `state_dict`).
        name: the file, for messages.

    Raises:
        LikenessError: an unknown layout, or tensors that do not fit the layout.
        MissingModelError: the layout needs a package that is not installed.
    """
    import spandrel  # imports torchvision

    weights = spandrel.canonicalize_state_dict(dict(weights))
    architecture = detect(weights, name)
    loader = spandrel.ModelLoader(device="cpu", registry=_registry(architecture, name))
    try:
        descriptor = loader.load_from_state_dict(weights)
    except (RuntimeError, KeyError, ValueError, AssertionError) as err:
        raise LikenessError(f"`{name}` looks like {architecture.title} but its tensors do not fit "
                            "that network; get the file again, or another version of it.") from err
    logger.info("restorer %s: %s", name, architecture.title)
    return architecture, descriptor.model.float().eval().requires_grad_(False)


def _registry(architecture: Architecture, name: str) -> Any:
    import spandrel

    if not architecture.package:
        return spandrel.MAIN_REGISTRY
    try:
        from spandrel_extra_arches import EXTRA_REGISTRY
    except ImportError as err:
        raise MissingModelError(
            f"`{name}` is {architecture.title} ({architecture.licence}), which needs the package "
            f"{architecture.package}; install that into ComfyUI's Python and restart, or choose "
            "another restorer.") from err
    return EXTRA_REGISTRY


def restore_chip(call: Callable[[torch.Tensor], torch.Tensor], chip: torch.Tensor) -> torch.Tensor:
    """Run a restorer on one aligned face.

    These networks read and give [-1, 1]; feeding them [0, 1] gives faces without contrast, and
    spandrel's own call clamps away their dark half.

    Args:
        call: (1, 3, 512, 512) in [-1, 1] -> the same.
        chip: (512, 512, 3) RGB in [0, 1].

    Returns:
        (512, 512, 3) RGB in [0, 1], float32.

    Raises:
        LikenessError: the network gave another size, or values that are not numbers.
    """
    if chip.shape != (CHIP, CHIP, 3):
        raise ValueError(f"`chip` must be ({CHIP}, {CHIP}, 3), got {tuple(chip.shape)}")
    with torch.no_grad():
        restored = call((chip.float() * 2 - 1).movedim(-1, 0)[None])
    if restored.shape != (1, 3, CHIP, CHIP):
        raise LikenessError(f"The restorer gave {tuple(restored.shape)} instead of one face of "
                            f"{CHIP} x {CHIP} pixels; choose another restorer file.")
    if not bool(torch.isfinite(restored).all()):
        raise LikenessError("The restorer gave values that are not numbers; its file is damaged "
                            "or meant for something else, choose another.")
    return ((restored[0].movedim(0, -1).float() + 1) / 2).clamp(0, 1)
