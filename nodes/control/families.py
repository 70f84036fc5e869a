"""ControlNet families: told from a loaded network, with the mode numbers each was trained with.

The numbers of one union file mean other kinds in another: 0 is pose for xinsir's SDXL union and
canny for the FLUX unions of InstantX and Shakker. Core knows only the former.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..errors import LikenessError

AUTO = "auto"
KINDS = (AUTO, "face mesh", "pose", "depth", "canny", "lineart", "soft edge", "scribble", "normal",
         "segment", "tile", "blur", "gray", "low quality", "repaint")

Shapes = Mapping[str, tuple[int, ...]]

_NO_MODES: Mapping[str, int] = MappingProxyType({})

# xinsir controlnet-union-sdxl-1.0 (modes 0-5) and its promax version (0-7).
_XINSIR = MappingProxyType({
    "pose": 0, "depth": 1, "soft edge": 2, "scribble": 2, "canny": 3, "lineart": 3, "normal": 4,
    "segment": 5, "tile": 6, "repaint": 7})
# InstantX FLUX.1-dev-Controlnet-Union and Shakker-Labs FLUX.1-dev-ControlNet-Union-Pro.
_FLUX_UNION = MappingProxyType({
    "canny": 0, "tile": 1, "depth": 2, "blur": 3, "pose": 4, "gray": 5, "low quality": 6})


@dataclass(frozen=True)
class Family:
    """A kind of control network."""

    id: str
    title: str
    detect: Callable[[Shapes], bool]
    # kind -> number sent with the image
    modes: Mapping[str, int] = field(default_factory=lambda: _NO_MODES)
    kinds: tuple[str, ...] = ()  # a union that takes no number; empty: the file decides
    mode_key: str = ""  # the weight whose rows count the modes of a file


def _flux(shapes: Shapes) -> bool:
    return "double_blocks.0.img_attn.qkv.weight" in shapes and "controlnet_blocks.0.bias" in shapes


def _union_pro_2(shapes: Shapes) -> bool:
    # 16 latent channels in 2x2 patches; an inpainting file takes a 17th for its mask.
    return (_flux(shapes) and shapes.get("pos_embed_input.weight", (0, 0))[1] == 64
            and "input_hint_block.0.weight" not in shapes
            and _blocks(shapes, "double_blocks") == 6 and _blocks(shapes, "single_blocks") == 0)


def _unet(shapes: Shapes) -> bool:
    return "zero_convs.0.0.weight" in shapes


# The first that matches holds: unions before the layouts they extend.
FAMILIES = (
    Family("sdxl_union", "SDXL union ControlNet", lambda s: "task_embedding" in s,
           modes=_XINSIR, mode_key="task_embedding"),
    Family("flux_union", "FLUX union ControlNet",
           lambda s: "controlnet_mode_embedder.weight" in s and _flux(s),
           modes=_FLUX_UNION, mode_key="controlnet_mode_embedder.weight"),
    Family("flux_union_pro_2", "FLUX union pro 2.0 ControlNet", _union_pro_2,
           kinds=("canny", "soft edge", "depth", "pose", "gray")),
    Family("flux", "FLUX ControlNet",
           lambda s: _flux(s) or "controlnet_blocks.0.linear.weight" in s),
    Family("qwen_union", "Qwen-Image union ControlNet",
           lambda s: s.get("controlnet_x_embedder.weight", (0, 0))[1] == 64
           and "transformer_blocks.0.img_mlp.net.0.proj.weight" in s,
           kinds=("canny", "soft edge", "depth", "pose")),
    Family("qwen", "Qwen-Image ControlNet",
           lambda s: "controlnet_x_embedder.weight" in s
           and "transformer_blocks.0.img_mlp.net.0.proj.weight" in s),
    Family("sd35", "SD3.5 ControlNet",
           lambda s: "pos_embed_input.proj.weight" in s
           and "transformer_blocks.0.adaLN_modulation.1.bias" in s),
    Family("sd3", "SD3 ControlNet", lambda s: "pos_embed_input.proj.weight" in s),
    Family("sdxl_lora", "SDXL Control-LoRA",
           lambda s: "lora_controlnet" in s and "label_emb.0.0.bias" in s),
    Family("lora", "Control-LoRA", lambda s: "lora_controlnet" in s),
    Family("sdxl", "SDXL ControlNet",
           lambda s: _unet(s) and "label_emb.0.0.weight" in s),
    Family("sd2", "SD2 ControlNet", lambda s: _unet(s) and _context(s) == 1024),
    Family("sd15", "SD1.5 ControlNet", _unet),
    Family("hunyuan_dit", "HunyuanDiT ControlNet", lambda s: "after_proj_list.18.bias" in s),
    Family("t2i", "T2I-Adapter", lambda s: "conv_in.weight" in s or "body.0.in_conv.weight" in s),
)
UNKNOWN = Family("unknown", "control network of an unknown layout", lambda s: True)


def family_of(control_net: Any) -> Family:
    """Tell the family of a CONTROL_NET from the names and shapes of its weights."""
    shapes = weight_shapes(control_net)
    return next((family for family in FAMILIES if family.detect(shapes)), UNKNOWN)


def weight_shapes(control_net: Any) -> Shapes:
    """The weights' names and shapes of a CONTROL_NET, whatever class of the host holds it."""
    weights = getattr(control_net, "control_weights", None)  # a Control-LoRA builds its net late
    if weights is None:
        module = getattr(control_net, "control_model", None)
        module = module if module is not None else getattr(control_net, "t2i_model", None)
        weights = module.state_dict() if module is not None else {}
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def text_width(control_net: Any) -> int | None:
    """How wide the text encodings are that a network reads; None where its weights do not tell."""
    shapes = weight_shapes(control_net)
    named = (shapes[name][1] for name in ("context_embedder.weight", "txt_in.weight")
             if name in shapes)
    return next(named, None) or _context(shapes) or None


def known_kinds(family: Family, control_net: Any) -> tuple[str, ...]:
    """The kinds of control image a network takes; every kind when its file decides alone."""
    if family.modes:
        count = weight_shapes(control_net)[family.mode_key][0]
        return tuple(kind for kind, number in family.modes.items() if number < count)
    return family.kinds or KINDS[1:]


def mode_number(family: Family, control_net: Any, kind: str) -> int | None:
    """The number to send with a control image, None when the network takes none.

    Raises:
        LikenessError: the kind is unknown, or the network was not trained with it, or it is
            `auto` for a network that must be told.
    """
    if kind not in KINDS:
        raise LikenessError(f"`kind` must be one of {', '.join(KINDS)}, got `{kind}`.")
    known = known_kinds(family, control_net)
    if kind == AUTO:
        if family.modes and not control_net.extra_args.get("control_type"):
            raise LikenessError(f"The {family.title} must be told the kind of control image; "
                                f"choose one of {', '.join(known)}.")
        return None
    if kind not in known:
        raise LikenessError(f"The {family.title} knows no `{kind}` image; it takes "
                            f"{', '.join(known)}. Choose one of them, or another control network.")
    return family.modes.get(kind)


def _blocks(shapes: Shapes, prefix: str) -> int:
    return len({name.split(".")[1] for name in shapes if name.startswith(f"{prefix}.")})


def _context(shapes: Shapes) -> int:
    """Width of the text encoding that a UNet control network attends to."""
    return next((shape[1] for name, shape in shapes.items()
                 if name.endswith("attn2.to_k.weight")), 0)
