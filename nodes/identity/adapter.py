"""What an IP-Adapter face file holds: its kind, sizes and weights, told from its keys alone.

File names are renamed by users, so they decide nothing here except, as a last resort, between
Plus version 1 and 2, whose files have the same keys and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import torch

from ..errors import LikenessError

Weights = Mapping[str, torch.Tensor]

SECTIONS = ("image_proj", "ip_adapter")
FAMILIES = {768: "SD1.5", 2048: "SDXL"}  # width of the text tokens -> base model family
LORA_TARGETS = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out": "to_out.0"}

_LORA_KEY = re.compile(r"(\d+)\.(to_(?:q|k|v|out))_lora\.(down|up)\.weight")
_OTHERS = (  # a key that only this kind of file has -> what the file is
    ("proj.3.weight", "a full-face IP-Adapter; it reads CLIP picture features, no face embedding"),
    ("proj.weight", "a plain IP-Adapter; it reads CLIP picture features, no face embedding"),
    ("body.0.weight", "a PuLID adapter"),
)


class Kind(str, Enum):
    """The layouts of face adapters that can be injected."""

    FACEID = "FaceID"  # face embedding -> tokens, with LoRA
    PLUS = "FaceID Plus"  # face embedding and CLIP picture features -> tokens, with LoRA
    PORTRAIT = "FaceID Portrait"  # face embedding -> tokens, without LoRA


@dataclass(frozen=True, eq=False)
class KeyValue:
    """The projections of face tokens for one cross-attention."""

    key: torch.Tensor  # (inner, context)
    value: torch.Tensor  # (inner, context)


@dataclass(frozen=True, eq=False)
class LowRank:
    """A weight difference `up @ down`."""

    down: torch.Tensor  # (rank, in)
    up: torch.Tensor  # (out, rank)


@dataclass(frozen=True, eq=False)
class AdapterWeights:
    """A face adapter's tensors, sorted and checked; on the CPU as the file gave them."""

    kind: Kind
    family: str  # of the base model, told from the context width
    context: int  # width of one face token
    tokens: int  # face tokens per reference
    id_width: int  # width of the face embedding it was trained on
    clip_width: int  # width of the CLIP hidden states (Plus), else 0
    projection: Weights  # of the image_proj section
    pairs: tuple[KeyValue, ...]  # k-th cross-attention in the order down, up, middle
    lora: Mapping[tuple[int, str, str], LowRank]  # (k, attn1 or attn2, to_q ...) -> difference
    metadata: Mapping[str, str] = field(default_factory=dict)


def family(context: int) -> str:
    """Name the base models whose text tokens have a width."""
    return FAMILIES.get(context, "custom")


def read_adapter(path: Path, load: Callable[[Path], Mapping]) -> AdapterWeights:
    """Read a face adapter: a `.bin` of two sections or a flat safetensors file.

    Args:
        load: reads a weights file without executing anything in it.

    Raises:
        LikenessError: it is not a face adapter that can be injected, or `load` says it is damaged.
    """
    content = load(path)
    return parse_adapter(content, path.name, _metadata(path))


def parse_adapter(content: Mapping, name: str,
                  metadata: Mapping[str, str] | None = None) -> AdapterWeights:
    """Sort the tensors of a face adapter and check that they fit together.

    Args:
        content: two mappings under `image_proj` and `ip_adapter`, or tensors with these prefixes.
        name: of the file, for messages.

    Raises:
        LikenessError: not a face adapter that can be injected, or incomplete.
    """
    projection, attention = _sections(content, name)
    _refuse_others(projection, name)
    lora = _lora(attention, name)
    plus = "perceiver_resampler.proj_in.weight" in projection
    kind = Kind.PLUS if plus else Kind.FACEID if lora else Kind.PORTRAIT
    context = projection["norm.weight"].shape[0]
    rows = projection["proj.2.weight"].shape[0]
    if rows % context:
        raise LikenessError(f"`{name}` is damaged: {rows} outputs are no whole number of tokens "
                            f"of width {context}. Download it again.")
    return AdapterWeights(
        kind=kind, family=family(context), context=context, tokens=rows // context,
        id_width=projection["proj.0.weight"].shape[1],
        clip_width=projection["perceiver_resampler.proj_in.weight"].shape[1] if plus else 0,
        projection=projection, pairs=_pairs(attention, context, name), lora=lora,
        metadata=dict(metadata or {}))


def _metadata(path: Path) -> dict[str, str]:
    if path.suffix.lower() not in (".safetensors", ".sft"):
        return {}
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def _sections(content: Mapping, name: str) -> tuple[Weights, Weights]:
    if all(isinstance(content.get(section), Mapping) for section in SECTIONS):
        return content[SECTIONS[0]], content[SECTIONS[1]]
    projection, attention = ({key[len(section) + 1:]: value for key, value in content.items()
                              if key.startswith(f"{section}.")} for section in SECTIONS)
    if not projection or not attention:
        raise LikenessError(f"`{name}` is no IP-Adapter file: it lacks `image_proj` or "
                            "`ip_adapter`. Choose an IP-Adapter FaceID file.")
    return projection, attention


def _refuse_others(projection: Weights, name: str) -> None:
    found = None
    if "latents" in projection:
        width = projection["proj_in.weight"].shape[1] if "proj_in.weight" in projection else 0
        found = ("an InstantID-like Resampler adapter" if width == 512 else
                 "an IP-Adapter Plus; it reads CLIP picture features, no face embedding")
    for key, title in _OTHERS:
        if key in projection:
            found = title
    needed = ("proj.0.weight", "proj.0.bias", "proj.2.weight", "proj.2.bias", "norm.weight",
              "norm.bias")
    missing = [key for key in needed if key not in projection]
    if found is None and missing:
        found = f"of an unknown layout (no `image_proj.{missing[0]}`)"
    if found is not None:
        raise LikenessError(f"`{name}` is {found}. Choose an IP-Adapter FaceID, FaceID Plus or "
                            "FaceID Portrait file.")


def _pairs(attention: Weights, context: int, name: str) -> tuple[KeyValue, ...]:
    count = sum(key.endswith(".to_k_ip.weight") for key in attention)
    pairs = []
    for index in range(count):
        # Numbers count self- and cross-attentions alternately; only the odd ones read face tokens.
        prefix = f"{2 * index + 1}."
        key, value = (attention.get(f"{prefix}{part}_ip.weight") for part in ("to_k", "to_v"))
        if key is None or value is None or key.shape != value.shape or key.shape[1] != context:
            raise LikenessError(f"`{name}` is damaged: `ip_adapter.{prefix}to_k_ip` and "
                                f"`to_v_ip` are missing or do not read tokens of width {context}. "
                                "Download it again.")
        pairs.append(KeyValue(key, value))
    if not pairs:
        raise LikenessError(f"`{name}` holds no `to_k_ip` weights; choose an IP-Adapter FaceID "
                            "file, not the LoRA that is shipped beside it.")
    return tuple(pairs)


def _lora(attention: Weights, name: str) -> dict[tuple[int, str, str], LowRank]:
    lora = {}
    for key in attention:
        match = _LORA_KEY.fullmatch(key)
        if match is None or match[3] == "up":
            continue
        up = attention.get(f"{match[1]}.{match[2]}_lora.up.weight")
        if up is None or up.shape[1] != attention[key].shape[0]:
            raise LikenessError(f"`{name}` is damaged: `ip_adapter.{match[1]}.{match[2]}_lora` "
                                "is incomplete. Download it again.")
        number = int(match[1])
        place = (number // 2, "attn2" if number % 2 else "attn1", match[2])
        lora[place] = LowRank(attention[key], up)
    return lora
