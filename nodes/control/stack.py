"""A stack of control networks, applied as core's chained apply nodes would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import LikenessError
from .families import Family, family_of, mode_number, text_width

Conditioning = list[list[Any]]


@dataclass(frozen=True, eq=False)
class ControlEntry:
    """One control network with its image and its place in time."""

    control_net: Any  # the host's CONTROL_NET, shared with its cache: only copies are changed
    image: torch.Tensor  # (B, H, W, 3) in [0, 1]
    kind: str  # one of families.KINDS
    strength: float
    start: float  # shares of the sampling, 0..1
    end: float
    family: Family
    mode: int | None  # number of a union network, None when it takes none


ControlStack = tuple[ControlEntry, ...]


def control_entry(control_net: Any, image: torch.Tensor, kind: str, strength: float,
                  start: float = 0.0, end: float = 1.0) -> ControlEntry:
    """Describe the use of one control network.

    Args:
        image: control image (B, H, W, 3) in [0, 1].
        kind: what the image shows, one of `families.KINDS`.
        start: share of the sampling after which the control begins, 0..1.
        end: share of the sampling after which it stops, 0..1.

    Raises:
        LikenessError: the network knows no such kind, the times exclude each other, or the image
            is not RGB.
    """
    if image.ndim != 4 or image.shape[-1] != 3:
        raise LikenessError(f"The control image has {image.shape[-1]} channels instead of 3 (a "
                            "transparent picture?); load it without its alpha channel.")
    if not start < end:
        raise LikenessError(f"`start` must be smaller than `end`, got {start} and {end}; "
                            "the control would never act.")
    family = family_of(control_net)
    mode = mode_number(family, control_net, kind)
    return ControlEntry(control_net, image, kind, strength, start, end, family, mode)


def apply_stack(positive: Conditioning, negative: Conditioning, stack: ControlStack,
                vae: Any = None, scales: Mapping[str, float] | None = None,
                ) -> tuple[Conditioning, Conditioning]:
    """Hang every control network of a stack on both conditionings, the first deepest.

    The result equals a chain of core's `ControlNetApplyAdvanced`, one per entry: a positive and a
    negative that share a chain go on sharing one, so that each network runs once per step.

    Args:
        vae: for the families that look at latents instead of pixels.
        scales: factor on the strength of each kind of control; 1 for kinds left out.

    Raises:
        LikenessError: a network needs a VAE and none is given, or belongs to another model than
            the prompts.
    """
    for entry in stack:
        strength = scaled_strength(entry, scales)
        if strength == 0:
            continue
        if entry.control_net.latent_format is not None and vae is None:
            raise LikenessError(f"The {entry.family.title} for `{entry.kind}` reads its image "
                                "through a VAE; connect the model's VAE.")
        _check_family(entry, [*positive, *negative])
        positive, negative = _apply_entry(positive, negative, entry, strength, vae)
    return positive, negative


def _check_family(entry: ControlEntry, conditionings: Conditioning) -> None:
    """Refuse a network whose prompts are of another width: core fails in the middle of sampling.

    Raises:
        LikenessError: the network belongs to another model.
    """
    wanted = text_width(entry.control_net)
    widths = {text.shape[-1] for text, _ in conditionings if isinstance(text, torch.Tensor)}
    if wanted and widths and wanted not in widths:
        raise LikenessError(f"The {entry.family.title} for `{entry.kind}` belongs to another "
                            f"model: it reads prompts {wanted} numbers wide, and these are "
                            f"{min(widths)} wide; load a control network of the checkpoint's own "
                            "family.")


def scaled_strength(entry: ControlEntry, scales: Mapping[str, float] | None) -> float:
    """An entry's strength after the style's factor for its kind."""
    return entry.strength * (scales or {}).get(entry.kind, 1.0)


def describe(entry: ControlEntry, scales: Mapping[str, float] | None = None) -> dict[str, Any]:
    """An entry in plain values for reports."""
    images, height, width = entry.image.shape[:3]
    strength = scaled_strength(entry, scales)
    return {"family": entry.family.id, "kind": entry.kind, "mode": entry.mode,
            "strength": round(strength, 4), "start": entry.start, "end": entry.end,
            "images": images, "width": width, "height": height, "applied": strength != 0}


def _apply_entry(positive: Conditioning, negative: Conditioning, entry: ControlEntry,
                 strength: float, vae: Any) -> tuple[Conditioning, Conditioning]:
    hint = entry.image.movedim(-1, 1)
    made: dict[Any, Any] = {}

    def control_after(previous: Any) -> Any:
        if previous not in made:
            control = entry.control_net.copy()
            if entry.mode is not None:
                control.set_extra_arg("control_type", [entry.mode])
            control.set_cond_hint(hint, strength, (entry.start, entry.end), vae=vae)
            control.set_previous_controlnet(previous)
            made[previous] = control
        return made[previous]

    def hang(conditioning: Conditioning) -> Conditioning:
        return [[text, {**options, "control": control_after(options.get("control")),
                        "control_apply_to_uncond": False}] for text, options in conditioning]

    return hang(positive), hang(negative)
