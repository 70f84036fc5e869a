"""Networks of the training bench: SD1.5's and FLUX's wiring at sizes that one core can train.

All weights are random. Every contender gets a module tree of its own over the same tensors, because
each changes the modules it trains; diffusers' twins hold the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import comfy.model_patcher
import comfy.supported_models
import comfy.utils
import diffusers
import torch
import training_models
from references import Reference, make_reference

from launcher.tiny.checkpoints import unet_config


@dataclass(frozen=True)
class Wiring:
    """One network of the host and its twin.

    Attributes:
        reference: whose layout it has, a name of `references`.
        sizes: the host's configuration.
        text: tokens, their width, and the pooled text's width (0: none).
        twin: builds the diffusers network.
        targets: diffusers' names of the layers that the default preset adapts.
    """

    name: str
    reference: str
    kind: str  # class in comfy.supported_models
    sizes: Mapping[str, Any]
    channels: int  # of latents
    text: tuple[int, int, int]
    twin: Callable[[], torch.nn.Module]
    targets: tuple[str, ...]


_FLUX_AXES = (16, 56, 56)
_UNET_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
_FLUX_TARGETS = (*_UNET_TARGETS, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
                 "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp", "proj_out")


def _unet_twin() -> torch.nn.Module:
    return diffusers.UNet2DConditionModel(
        sample_size=32, block_out_channels=(320, 320), layers_per_block=1, cross_attention_dim=768,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        attention_head_dim=8)


def _flux_sizes(width: int, heads: int, doubles: int, singles: int) -> dict[str, Any]:
    return {**unet_config("flux"), "guidance_embed": True, "image_model": "flux",
            "hidden_size": width, "num_heads": heads, "depth": doubles,
            "depth_single_blocks": singles, "axes_dim": list(_FLUX_AXES),
            "context_in_dim": 512, "vec_in_dim": 256}


def _flux_twin(width: int, heads: int, doubles: int, singles: int) -> torch.nn.Module:
    return diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=doubles, num_single_layers=singles,
        attention_head_dim=width // heads, num_attention_heads=heads, joint_attention_dim=512,
        pooled_projection_dim=256, guidance_embeds=True, axes_dims_rope=_FLUX_AXES)


def _flux(name: str, *shape: int) -> Wiring:
    return Wiring(name, "flux", "Flux", _flux_sizes(*shape), 16, (64, 512, 256),
                  lambda: _flux_twin(*shape), _FLUX_TARGETS)


WIRINGS: Mapping[str, Wiring] = {wiring.name: wiring for wiring in (
    # Two levels of SD1.5's first width, 320 channels, with a transformer in each block.
    Wiring("sd15", "sd15", "SD15", unet_config("demo"), 4, (77, 768, 0), _unet_twin, _UNET_TARGETS),
    _flux("flux", 1024, 8, 1, 3),
    _flux("flux_small", 128, 1, 1, 1))}


class Networks:
    """A host network's weights, and the module trees and twins over them.

    Args:
        dtype: how the weights are stored, and computed with.
    """

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        self.wiring, self.dtype = WIRINGS[name], dtype
        tokens, width, pooled = self.wiring.text
        training_models.TEXT[name] = (width, pooled, self.wiring.channels)
        first = self._base("cpu").diffusion_model
        training_models.fill(first)
        self.weights = first.state_dict()

    @property
    def parameters(self) -> int:
        """How many weights the network has."""
        return sum(value.numel() for value in self.weights.values())

    def model(self) -> Any:
        """A MODEL with a module tree of its own."""
        base = self._base("meta")
        base.diffusion_model.load_state_dict(self.weights, assign=True)
        base.eval()
        device = training_models.CPU
        return comfy.model_patcher.ModelPatcher(base, load_device=device, offload_device=device)

    def reference(self) -> Reference:
        """The diffusers twin with a copy of the weights."""
        weights = {name: value.float() for name, value in self.weights.items()}
        found = make_reference(self.wiring.reference, self.wiring.sizes, weights,
                               self._twin())
        found.network.to(self.dtype)
        return found

    def inputs(self, rows: int, side: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Random latents (rows, C, side, side) and the conditioning of as many captions."""
        generator = torch.Generator().manual_seed(0)
        tokens, width, pooled = self.wiring.text
        conds = {"c_crossattn": torch.randn(rows, tokens, width, generator=generator)}
        if pooled:
            conds |= {"y": torch.randn(rows, pooled, generator=generator),
                      "guidance": torch.ones(rows)}
        shape = (rows, self.wiring.channels, side, side)
        return torch.randn(shape, generator=generator), conds

    def _twin(self) -> torch.nn.Module:
        # On the meta device first: a network draws first weights, which takes longer than its step.
        with torch.device("meta"):
            network = self.wiring.twin()
        return network.to_empty(device="cpu")

    def _base(self, device: str) -> Any:
        config = getattr(comfy.supported_models, self.wiring.kind)(dict(self.wiring.sizes))
        config.set_inference_dtype(self.dtype, None)
        return config.get_model({}, "", device=device)
