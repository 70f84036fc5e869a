"""Immutable patches of a MODEL's cross-attention, chained with whatever already sits at a place.

Hosts since 0.14 share patch objects between a MODEL and its clones, so a patch that changes after
it was set leaks into the cached upstream MODEL. Nothing here changes once made: adding to a place
makes a new patch that holds the old terms and the new one.

Logic that must know ComfyUI: this module builds every model patch of the pack.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from comfy.ldm.modules.attention import optimized_attention

from .errors import LikenessError

COND, UNCOND = 0, 1  # how the host numbers the rows' conditionings in `cond_or_uncond`
ATTN2 = "attn2"

AttentionReplacement = Callable[..., torch.Tensor]  # (q, k, v, extra_options) -> (B, N, C)


class Place(NamedTuple):
    """Where a cross-attention sits: the key under which the host looks for its patch."""

    block: str  # input, middle or output
    number: int
    transformer: int  # index inside the block's spatial transformer


@dataclass(frozen=True)
class CrossAttention:
    """One cross-attention of a UNet."""

    place: Place
    name: str  # of its transformer block inside the MODEL's state dict
    width: int  # channels of queries, keys and values
    context: int  # channels of the text tokens


class AttentionTerm(Protocol):
    """Something added to a cross-attention's output."""

    def __call__(self, q: torch.Tensor, options: Mapping[str, Any]) -> torch.Tensor | None:
        """Return what to add to the output (B, N, C) for queries of that shape; None: nothing."""
        ...

    def to(self, where: torch.device | torch.dtype) -> AttentionTerm:
        """Return the term on a device or in a dtype, without changing this one."""
        ...


@dataclass(frozen=True, eq=False)
class SigmaWindow:
    """The stretch of sampling, in noise levels, during which a patch acts."""

    start: float = math.inf  # highest sigma that is inside
    end: float = -math.inf  # lowest sigma that is inside
    _seen: list[tuple[Callable[[], Any], bool]] = field(
        default_factory=lambda: [(lambda: None, False)], repr=False)

    @classmethod
    def from_percent(cls, model_sampling: Any, start: float, end: float) -> SigmaWindow:
        """Make the window between two shares of sampling, 0 the first step and 1 the last.

        Raises:
            LikenessError: the shares are not 0 <= start < end <= 1.
        """
        if not 0.0 <= start < end <= 1.0:
            raise LikenessError(f"`start` must lie below `end` and both between 0 and 1, "
                                f"got {start:g} and {end:g}.")
        return cls(math.inf if start == 0.0 else float(model_sampling.percent_to_sigma(start)),
                   -math.inf if end == 1.0 else float(model_sampling.percent_to_sigma(end)))

    @property
    def always_open(self) -> bool:
        """Whether the window covers all of sampling."""
        return math.isinf(self.start) and math.isinf(self.end)

    def open_at(self, sigmas: torch.Tensor) -> bool:
        """Tell whether the step with these sigmas (B,) lies inside; the first row speaks for all.

        Every layer asks with the same tensor object, and reading it waits for the GPU, so the
        answer is kept for as long as that object lives.
        """
        if self.always_open:
            return True
        seen, inside = self._seen[0]
        if seen() is not sigmas:
            inside = self.end <= float(sigmas.flatten()[0]) <= self.start
            self._seen[0] = (weakref.ref(sigmas), inside)
        return inside


@dataclass(frozen=True, eq=False)
class AttentionPatch:
    """Cross-attention as it was, plus terms."""

    terms: tuple[AttentionTerm, ...]
    previous: AttentionReplacement | None = None  # another pack's patch of the same place

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor,
                 extra_options: dict[str, Any]) -> torch.Tensor:
        if self.previous is not None:
            out = self.previous(q, k, v, extra_options)
        else:
            # The very call of an unpatched layer: a patch that adds nothing changes no bit.
            out = optimized_attention(q, k, v, extra_options["n_heads"],
                                      attn_precision=extra_options["attn_precision"],
                                      transformer_options=extra_options)
        for term in self.terms:
            added = term(q, extra_options)
            if added is not None:
                out = out + added
        return out

    def to(self, where: torch.device | torch.dtype) -> AttentionPatch:
        """Return the patch on a device or in a dtype; the host calls it around sampling."""
        previous = self.previous.to(where) if hasattr(self.previous, "to") else self.previous
        return AttentionPatch(tuple(term.to(where) for term in self.terms), previous)

    def models(self) -> list[Any]:
        """Patchers of networks that the terms run at sampling time; the host loads them."""
        owners = [*self.terms, self.previous]
        return [model for owner in owners if hasattr(owner, "models") for model in owner.models()]

    def add(self, *args: Any, **kwargs: Any) -> None:
        """Refuse to be appended to, which is what other face packs do to a patch they find."""
        raise LikenessError("Another node wants to append to the attention patch of a Likeness "
                            "node; connect that node before the Likeness node, not after it.")

    def __deepcopy__(self, memo: dict[int, Any]) -> AttentionPatch:
        # 0.3.75 deep-copies patches with every clone; what never changes needs no copy.
        return self


def cross_attentions(model: Any) -> tuple[CrossAttention, ...]:
    """List the cross-attentions of a MODEL's UNet in adapter-file order: down, up, middle.

    Raises:
        LikenessError: the model is no UNet with cross-attention (Flux, SD3 and the like).
    """
    unet = model.model.diffusion_model
    if not hasattr(unet, "input_blocks"):
        raise LikenessError("This MODEL is no UNet with cross-attention, which is patched here; "
                            "connect an SD1.5 or SDXL model.")
    found = [*_in_blocks("input", "input_blocks", enumerate(unet.input_blocks)),
             *_in_blocks("output", "output_blocks", enumerate(unet.output_blocks))]
    if unet.middle_block is not None:
        found += _in_blocks("middle", "middle_block", [(0, unet.middle_block)])
    return tuple(found)


def _in_blocks(block: str, attribute: str, modules: Any) -> Iterator[CrossAttention]:
    for number, module in modules:
        path = attribute if block == "middle" else f"{attribute}.{number}"
        for position, layer in enumerate(module):
            for index, inner in enumerate(getattr(layer, "transformer_blocks", ())):
                if getattr(inner, ATTN2, None) is not None:
                    yield CrossAttention(
                        Place(block, number, index),
                        f"diffusion_model.{path}.{position}.transformer_blocks.{index}",
                        inner.attn2.to_k.out_features, inner.attn2.to_k.in_features)


def attention_patch(model: Any, place: Place) -> AttentionReplacement | None:
    """Return what patches a place now: under its own key, else under its block's key."""
    replaced = model.model_options["transformer_options"].get("patches_replace", {})
    attn2 = replaced.get(ATTN2, {})
    return attn2.get(tuple(place), attn2.get((place.block, place.number)))


def add_to_attention(model: Any, terms: Mapping[Place, AttentionTerm]) -> Any:
    """Return a clone of a MODEL whose cross-attentions gain a term each; the MODEL stays as it is.

    A patch found at a place stays in force: one of ours is joined, another pack's is called first.
    """
    clone = model.clone()
    for place, term in terms.items():
        found = attention_patch(clone, place)
        if isinstance(found, AttentionPatch):
            patch = AttentionPatch((*found.terms, term), found.previous)
        else:
            patch = AttentionPatch((term,), found)
        clone.set_model_attn2_replace(patch, place.block, place.number, place.transformer)
    return clone
