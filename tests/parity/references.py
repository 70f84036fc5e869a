"""The tiny models again as diffusers builds them: another implementation of the same networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import comfy.utils
import diffusers
import torch
import training_models

# SDXL's size inputs: height, width, top, left, target height, target width.
TIME_IDS = torch.tensor([[1500.0, 1000.0, 100.0, 50.0, 128.0, 128.0]])
_MAPS: Mapping[str, Callable] = {
    "sd15": comfy.utils.unet_to_diffusers, "sdxl": comfy.utils.unet_to_diffusers,
    "sd3": comfy.utils.mmdit_to_diffusers, "flux": comfy.utils.flux_to_diffusers}


@dataclass(frozen=True, eq=False)
class Reference:
    """A diffusers network with the weights of a host model."""

    name: str
    network: torch.nn.Module
    places: Mapping[str, tuple]  # diffusers weight -> host weight, (dim, start, length), swap

    @cached_property
    def host_gradients(self) -> dict[str, torch.Tensor]:
        """Gradients of the network's weights, put together under the host's names."""
        pieces: dict[str, list] = {}
        for name, parameter in self.network.named_parameters():
            key, part, swap = self.places[name]
            if parameter.grad is not None and key.endswith(".weight"):
                pieces.setdefault(key, []).append((part, swap(parameter.grad)))
        return {key: _assemble(parts) for key, parts in pieces.items()}

    def predict(self, latents: torch.Tensor, sigmas: torch.Tensor,
                conds: Mapping[str, Any]) -> torch.Tensor:
        """The network's raw output for latents as diffusers feeds it, at its own timesteps."""
        text = conds["c_crossattn"]
        if self.name in ("sd15", "sdxl"):
            added = {} if self.name == "sd15" else {"added_cond_kwargs": {
                "text_embeds": conds["y"][:, :-6 * 256], "time_ids": conds["time_ids"]}}
            return self.network(latents, sigmas, text, **added).sample
        if self.name == "sd3":
            return self.network(latents, text, conds["y"], sigmas * 1000).sample
        rows, columns = latents.shape[-2] // 2, latents.shape[-1] // 2
        image_ids = torch.zeros(rows, columns, 3)
        image_ids[..., 1] += torch.arange(rows)[:, None]
        image_ids[..., 2] += torch.arange(columns)[None]
        packed = latents.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).flatten(3)
        out = self.network(packed.flatten(1, 2), text, conds["y"], sigmas, image_ids.view(-1, 3),
                           torch.zeros(text.shape[1], 3), conds["guidance"]).sample
        out = out.reshape(len(latents), rows, columns, -1, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return out.reshape(latents.shape)


def make_reference(name: str, config: Mapping[str, Any], weights: Mapping[str, torch.Tensor],
                   network: torch.nn.Module | None = None) -> Reference:
    """Build the diffusers twin of a host network from its configuration and weights.

    Args:
        network: of diffusers, for other sizes than those of the tiny host network.
    """
    network = _BUILDERS[name]() if network is None else network
    places, own = {}, network.state_dict()
    for key, place in _MAPS[name](config).items():
        if key not in own:
            continue
        host, part, swap = (*((place,) if isinstance(place, str) else place), None, None)[:3]
        swap = swap or (lambda value: value)  # or its own inverse: shift and scale change places
        value = weights[host] if part is None else weights[host].narrow(*part)
        places[key] = (host, part, swap)
        own[key] = swap(value).reshape(own[key].shape)
    missing = set(own) - set(places)
    assert not missing, sorted(missing)
    network.load_state_dict(own)
    return Reference(name, network.eval(), places)


def network_inputs(name: str, base) -> tuple:
    """Latents, noise levels and conditionings that a tiny host model and its twin take."""
    generator = torch.Generator().manual_seed(11)
    width, pooled, channels = training_models.TEXT[name]
    latents = torch.randn(2, channels, 16, 16, generator=generator)
    conds = {"c_crossattn": torch.randn(2, 12, width, generator=generator)}
    if pooled:
        conds["y"] = torch.randn(2, pooled, generator=generator)
    if name == "sdxl":
        conds["time_ids"] = TIME_IDS.repeat(2, 1)
        sizes = base.embedder(TIME_IDS.flatten()).flatten()
        conds["y"] = torch.cat([conds["y"], sizes.repeat(2, 1)], 1)
    if name == "flux":
        conds["guidance"] = torch.tensor([1.0, 3.5])
    times = torch.tensor([187, 731]) if name in ("sd15", "sdxl") else torch.tensor([0.31, 0.84])
    return latents, times, conds


@torch.no_grad()
def host_output(name: str, model, inputs: tuple) -> torch.Tensor:
    """What the host's network gives for `network_inputs`."""
    latents, times, conds = inputs
    options = {key: conds[key] for key in ("y", "guidance") if key in conds}
    times = times * 1000 if name == "sd3" else times
    return model.model.diffusion_model(latents, times, context=conds["c_crossattn"], **options)


def _assemble(parts: list) -> torch.Tensor:
    if parts[0][0] is None:
        return parts[0][1]
    ordered = sorted(parts, key=lambda piece: piece[0][1])
    return torch.cat([gradient for _, gradient in ordered], dim=ordered[0][0][0])


def _sd15() -> torch.nn.Module:
    return diffusers.UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64, 128, 128), cross_attention_dim=64,
        attention_head_dim=4)


def _sdxl() -> torch.nn.Module:
    return diffusers.UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64, 128), cross_attention_dim=128,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 1, 2], attention_head_dim=[2, 4, 8],
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=64 + 6 * 256)


def _sd3() -> torch.nn.Module:
    return diffusers.SD3Transformer2DModel(
        sample_size=64, patch_size=2, in_channels=16, num_layers=2, attention_head_dim=64,
        num_attention_heads=2, joint_attention_dim=4096, caption_projection_dim=128,
        pooled_projection_dim=128, out_channels=16, pos_embed_max_size=64,
        dual_attention_layers=(0,), qk_norm="rms_norm")


def _flux() -> torch.nn.Module:
    return diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=2, num_single_layers=2, attention_head_dim=32,
        num_attention_heads=2, joint_attention_dim=64, pooled_projection_dim=64,
        guidance_embeds=True, axes_dims_rope=(8, 12, 12))


_BUILDERS: Mapping[str, Callable[[], torch.nn.Module]] = {
    "sd15": _sd15, "sdxl": _sdxl, "sd3": _sd3, "flux": _flux}
