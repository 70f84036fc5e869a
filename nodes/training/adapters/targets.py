"""Which layers of a network a preset trains."""

from __future__ import annotations

from torch import nn

from ...errors import LikenessError
from ..frozen import layers as frozen
from ..recipes.fields import Target

_CROSS_ATTENTION = ("cross_attn", "attn2")
_FEED_FORWARD = ("ff", "ffn", "mlp", "img_mlp", "txt_mlp", "feed_forward", "DenseReluDense")
# FLUX-like single blocks hold attention and feed-forward in the same two layers.
_FUSED = ("linear1", "linear2")
# Joint-attention models have an `attn2` too, where no text takes part.
_JOINT = ("x_block", "context_block")
# What no picture's loss reaches: a part that encodes the text before the network runs (Anima), and
# one for pictures that stand beside the prompt (OmniGen2, Boogu).
_WITHOUT_LOSS = ("llm_adapter", "ref_image_refiner")
# What holds the network inside each of the host's text encoders.
_TEXT = "transformer"


def is_target(path: str, target: Target) -> bool:
    """Whether a dense layer of a diffusion model or text encoder belongs to a preset, by its path.

    A text encoder's attention is all there is of attention to the text, so it belongs to the
    cross-attention preset too. Its embeddings and projections belong to none but all layers.
    """
    parts = path.split(".")
    if target in (Target.ALL_LINEAR, Target.CONVOLUTIONS):
        return True
    if target is Target.CROSS_ATTENTION and _TEXT not in parts[:2]:
        return any(part in _CROSS_ATTENTION for part in parts) and not any(
            part in _JOINT for part in parts)
    # Embedders have an `mlp` too; what repeats has its block's number before that.
    number = next((at for at, part in enumerate(parts) if part.isdigit()), len(parts))
    inside = parts[number:]
    if any("attn" in part or "attention" in part.lower() for part in inside) or (
            "single_blocks" in parts and parts[-1] in _FUSED):
        return True
    return target is Target.ATTENTION_FEED_FORWARD and any(part in _FEED_FORWARD for part in inside)


def target_layers(model: nn.Module, target: Target) -> dict[str, nn.Module]:
    """The layers of a diffusion model, or of a CLIP's text encoders, that a preset trains, by path.

    Raises:
        LikenessError: the architecture has no layer of this kind.
    """
    found = {path: module for path, module in model.named_modules()
             if _can_learn(module, target) and is_target(path, target)
             and not set(_WITHOUT_LOSS) & set(path.split("."))}
    if not found:
        raise LikenessError(f"This model has no layers of the preset `{target.value}`; "
                            f"choose `{Target.ALL_LINEAR.value}`.")
    return found


def _can_learn(module: nn.Module, target: Target) -> bool:
    if frozen.is_linear(module):
        # One number in or out has rank 1, and a preset gives all its layers one rank.
        return min(module.in_features, module.out_features) > 1
    if not frozen.is_conv(module) or module.groups != 1:
        return False
    # A convolution over single points is a dense layer.
    pointwise = set(module.kernel_size) == {1}
    return target is Target.CONVOLUTIONS or (target is Target.ALL_LINEAR and pointwise)
