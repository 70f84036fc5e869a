"""Files as sd-scripts and LyCORIS save them: their names, shapes and numbers, and what they mean.

Names and shapes are those of github.com/kohya-ss/sd-scripts (networks/lora.py, lora_sd3.py,
lora_flux.py) and github.com/KohakuBlueleaf/LyCORIS (lycoris/modules). Each part comes with the
change that the trainer's own module would make, in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import comfy.utils
import torch
from comfy.weight_adapter.base import factorization

RANK, ALPHA = 4, 1.0
# Where each trainer's classes of layers lie in the host's networks.
_BLOCKS = {"sd15": ("transformer_blocks.", ".proj_in.", ".proj_out."),
           "sdxl": ("transformer_blocks.", ".proj_in.", ".proj_out."),
           "sd3": ("joint_blocks.",), "flux": ("double_blocks.", "single_blocks.")}
_T5 = (".SelfAttention.", ".DenseReluDense.")
# sd-scripts number the encoders only where there are several.
_ENCODERS = {"sd15": {"clip_l": "lora_te"}, "sdxl": {"clip_l": "lora_te1", "clip_g": "lora_te2"},
             "sd3": {"clip_l": "lora_te1", "clip_g": "lora_te2"},
             "flux": {"clip_l": "lora_te1", "t5xxl": "lora_te3"}}


@dataclass(frozen=True)
class Layer:
    """A layer that the trainers teach."""

    name: str  # in their files
    key: str  # of its weight in the host's model or text encoder
    weight: torch.Tensor  # float32


def network_layers(name: str, model) -> list[Layer]:
    """The layers of a MODEL's network; sd-scripts train SD1 on diffusers' own network."""
    weights = model.model.state_dict()
    names = {f"diffusion_model.{path}": path for path in
             (key.removeprefix("diffusion_model.") for key in weights)}
    if name == "sd15":
        table = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
        names = {f"diffusion_model.{path}": other for other, path in table.items()}
    return [Layer(_name("lora_unet", names[key]), key, weight.float())
            for key, weight in weights.items() if key in names and weight.ndim in (2, 4)
            and key.endswith(".weight") and any(part in key for part in _BLOCKS[name])]


def text_layers(name: str, clip) -> list[Layer]:
    """The attention and feed-forward layers of a CLIP's encoders."""
    found = []
    for key, weight in clip.cond_stage_model.state_dict().items():
        encoder, _, path = key.partition(".transformer.")
        prefix = _ENCODERS[name].get(encoder)
        inside = (_T5 if encoder == "t5xxl" else (".self_attn.", ".mlp."))
        if prefix and key.endswith(".weight") and weight.ndim == 2 and any(
                part in path for part in inside) and "relative_attention" not in path:
            found.append(Layer(_name(prefix, path), key, weight.float()))
    return found


def _name(prefix: str, path: str) -> str:
    return f"{prefix}_{path.removesuffix('.weight')}".replace(".", "_")


Part = tuple[dict[str, torch.Tensor], torch.Tensor]  # tensors by suffix, change of the weight


def lora(weight: torch.Tensor, generator: torch.Generator) -> Part:
    """sd-scripts' LoRA."""
    down = _drawn(generator, RANK, *weight.shape[1:])
    up = _drawn(generator, len(weight), RANK, *(1 for _ in weight.shape[2:]))
    change = ALPHA / RANK * (up.flatten(1).float() @ down.flatten(1).float())
    return {"lora_down.weight": down, "lora_up.weight": up,
            "alpha": torch.tensor(ALPHA).half()}, change.reshape(weight.shape)


def dora(weight: torch.Tensor, generator: torch.Generator) -> Part:
    """LyCORIS' LoCon with dora_wd and wd_on_output=False: one length per input."""
    tensors, change = lora(weight, generator)
    sums = [0, *range(2, weight.ndim)]
    scale = weight.square().sum(sums, keepdim=True).sqrt()
    scale = (scale * (1 + 0.1 * _drawn(generator, *scale.shape).float())).half()
    turned = weight + change
    lengths = turned.square().sum(sums, keepdim=True).sqrt()
    return {**tensors, "dora_scale": scale}, scale.float() / lengths * turned - weight


def loha(weight: torch.Tensor, generator: torch.Generator) -> Part:
    """LyCORIS' LoHa."""
    outputs, inputs = len(weight), weight[0].numel()
    factors = {f"hada_w{place}_{side}": _drawn(generator, *shape, spread=0.3)
               for place in (1, 2)
               for side, shape in (("a", (outputs, RANK)), ("b", (RANK, inputs)))}
    first, second = (factors[f"hada_w{place}_a"].float() @ factors[f"hada_w{place}_b"].float()
                     for place in (1, 2))
    change = ALPHA / RANK * first * second
    return {**factors, "alpha": torch.tensor(ALPHA).half()}, change.reshape(weight.shape)


def lokr(weight: torch.Tensor, generator: torch.Generator, factor: int = 4) -> Part:
    """LyCORIS' LoKr of dense layers, whose larger matrix is whole where the rank reaches it."""
    (out_small, out_large), (in_small, in_large) = (
        factorization(size, factor) for size in weight.shape[:2])
    tensors = {"lokr_w1": _drawn(generator, out_small, in_small, spread=0.3)}
    if RANK < max(out_large, in_large) / 2:
        tensors |= {"lokr_w2_a": _drawn(generator, out_large, RANK),
                    "lokr_w2_b": _drawn(generator, RANK, in_large)}
        large = tensors["lokr_w2_a"].float() @ tensors["lokr_w2_b"].float()
        scale, alpha = ALPHA / RANK, ALPHA
    else:
        tensors["lokr_w2"] = _drawn(generator, out_large, in_large)
        large, scale, alpha = tensors["lokr_w2"].float(), 1.0, float(RANK)
    change = scale * torch.kron(tensors["lokr_w1"].float(), large)
    return {**tensors, "alpha": torch.tensor(alpha).half()}, change


def oft(weight: torch.Tensor, generator: torch.Generator) -> Part:
    """LyCORIS' diag-oft without a constraint: rotations of blocks of outputs."""
    size, number = factorization(len(weight), RANK)
    blocks = _drawn(generator, number, size, size)
    skew = blocks.float() - blocks.float().transpose(1, 2)
    identity = torch.eye(size)
    turn = (identity + skew) @ torch.linalg.inv(identity - skew)
    rows = weight.reshape(number, size, -1)
    turned = torch.einsum("knm,knx->kmx", turn, rows).reshape(weight.shape)
    return {"oft_blocks": blocks, "alpha": torch.tensor(0.0).half()}, turned - weight


def _drawn(generator: torch.Generator, *shape: int, spread: float = 0.1) -> torch.Tensor:
    return (spread * torch.randn(shape, generator=generator)).half()


ALGORITHMS = {"dora": dora, "loha": loha, "lokr": lokr, "oft": oft}


def make(layers: list[Layer], part=lora, seed: int = 2,
         ) -> tuple[dict[str, torch.Tensor], Mapping[str, torch.Tensor]]:
    """A half-precision file's tensors, and each layer's change by the host's key."""
    generator = torch.Generator().manual_seed(seed)
    tensors, changes = {}, {}
    for layer in layers:
        own, changes[layer.key] = part(layer.weight, generator)
        tensors |= {f"{layer.name}.{suffix}": value for suffix, value in own.items()}
    return tensors, changes
