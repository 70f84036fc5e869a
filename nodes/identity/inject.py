"""Injects face tokens into a MODEL: keys and values beside the text's, and the file's LoRA.

At every cross-attention: out += weight * softmax(q k_face^T / sqrt(d)) v_face, with the queries
of the text (IP-Adapter, https://arxiv.org/abs/2308.06721). Logic that must know ComfyUI: it
computes with the host's attention and patches weights through the host's patcher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.lora
import torch
from comfy.ldm.modules.attention import optimized_attention

from ..errors import LikenessError
from ..patching import (
    COND,
    CrossAttention,
    SigmaWindow,
    add_to_attention,
    attention_patch,
    cross_attentions,
)
from .adapter import LORA_TARGETS, AdapterWeights, KeyValue, family
from .blend import FaceTokens

_COMPUTE_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class FaceTerm:
    """What the face adds to one cross-attention; row 0 of keys and values is the person."""

    keys: torch.Tensor  # (2, T, C): person, nobody
    values: torch.Tensor  # (2, T, C)
    weight: float
    window: SigmaWindow

    def __call__(self, q: torch.Tensor, options: Mapping[str, Any]) -> torch.Tensor | None:
        if not self.window.open_at(options["sigmas"]):
            return None
        keys, values = (self._rows(part, q, options["cond_or_uncond"])
                        for part in (self.keys, self.values))
        # The options carry another node's choice of attention, training's among them.
        seen = optimized_attention(q, keys, values, options["n_heads"],
                                   attn_precision=options["attn_precision"],
                                   transformer_options=options)
        return seen * self.weight

    @staticmethod
    def _rows(pair: torch.Tensor, q: torch.Tensor, cond_or_uncond: list[int]) -> torch.Tensor:
        """Give each row of the batch the person's tokens, or nobody's where it is unconditional."""
        pair = pair.to(q)
        each = len(q) // len(cond_or_uncond)
        return torch.cat([pair[int(kind != COND)].expand(each, -1, -1)
                          for kind in cond_or_uncond])

    def to(self, where: torch.device | torch.dtype) -> FaceTerm:
        """Return the term on a device or in a dtype; 8-bit models still attend in 16 bits."""
        if isinstance(where, torch.dtype) and where not in _COMPUTE_DTYPES:
            return self
        return FaceTerm(self.keys.to(where), self.values.to(where), self.weight, self.window)


@dataclass(frozen=True)
class Injection:
    """A patched MODEL and what was patched in it."""

    model: Any
    layers: int  # cross-attentions that read the face
    lora_weights: int  # weights that the file's LoRA changes
    chained: int  # cross-attentions where another patch stays in force


def inject(model: Any, adapter: AdapterWeights, name: str, tokens: FaceTokens, *,
           weight: float = 1.0, start: float = 0.0, end: float = 1.0,
           lora_strength: float = 0.6) -> Injection:
    """Return a clone of a MODEL that sees a face; the MODEL itself stays as it is.

    Args:
        name: of the adapter file, for messages.
        start, end: shares of sampling between which the tokens act; the LoRA always does.

    Raises:
        LikenessError: the adapter was made for another architecture, or an empty window.
    """
    layers = matching_layers(model, adapter, name)
    window = SigmaWindow.from_percent(model.get_model_object("model_sampling"), start, end)
    chained = sum(attention_patch(model, layer.place) is not None for layer in layers)
    terms = {layer.place: _term(pair, tokens, weight, window)
             for layer, pair in zip(layers, adapter.pairs, strict=True)}
    clone = add_to_attention(model, terms)
    changed = _add_lora(clone, adapter, layers, lora_strength, name) if lora_strength else 0
    return Injection(clone, len(terms), changed, chained)


def matching_layers(model: Any, adapter: AdapterWeights, name: str) -> tuple[CrossAttention, ...]:
    """List the MODEL's cross-attentions in the order of the adapter's pairs.

    Raises:
        LikenessError: another text width, number of layers or layer width.
    """
    layers = cross_attentions(model)
    context = layers[0].context if layers else 0
    if context != adapter.context:
        raise LikenessError(
            f"`{name}` was made for {adapter.family} (text width {adapter.context}), this model is "
            f"{family(context)} (text width {context}); choose an adapter of the same family.")
    if len(layers) != len(adapter.pairs):
        raise LikenessError(
            f"`{name}` has weights for {len(adapter.pairs)} cross-attentions, this model has "
            f"{len(layers)}; choose an adapter that was made for this architecture.")
    for layer, pair in zip(layers, adapter.pairs, strict=True):
        if pair.key.shape[0] != layer.width:
            raise LikenessError(
                f"`{name}` gives {pair.key.shape[0]} channels where {layer.name} has "
                f"{layer.width}; choose an adapter that was made for this architecture.")
    return layers


def _term(pair: KeyValue, tokens: FaceTokens, weight: float, window: SigmaWindow) -> FaceTerm:
    both = torch.cat((tokens.face, tokens.nobody))
    return FaceTerm(both @ pair.key.float().T, both @ pair.value.float().T, weight, window)


def _add_lora(clone: Any, adapter: AdapterWeights, layers: tuple[CrossAttention, ...],
              strength: float, name: str) -> int:
    """Add the file's LoRA as ordinary weight patches, which the host offloads and undoes."""
    weights, targets = {}, {}
    known = clone.model.state_dict().keys()
    for (index, attention, part), difference in adapter.lora.items():
        target = f"{layers[index].name}.{attention}.{LORA_TARGETS[part]}.weight" \
            if index < len(layers) else ""
        if target not in known:
            raise LikenessError(f"`{name}` holds a LoRA for a layer that this model lacks; choose "
                                "an adapter that was made for this architecture.")
        module = clone.get_model_object(target.removesuffix(".weight"))
        if (module.out_features, module.in_features) != (len(difference.up),
                                                         difference.down.shape[1]):
            raise LikenessError(f"The LoRA in `{name}` does not fit {target}; choose an adapter "
                                "that was made for this architecture.")
        key = f"{index}.{attention}.{part}"
        weights[f"{key}.lora_up.weight"] = difference.up
        weights[f"{key}.lora_down.weight"] = difference.down
        targets[key] = target
    return len(clone.add_patches(comfy.lora.load_lora(weights, targets), strength))
