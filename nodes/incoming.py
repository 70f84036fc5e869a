"""What other nodes hand in, checked where it comes in, so that a fault bears its own name."""

from __future__ import annotations

from typing import Any

import torch

from .errors import LikenessError


def require_pictures(images: torch.Tensor, name: str) -> torch.Tensor:
    """An IMAGE batch (B, H, W, C) that holds at least one picture.

    Args:
        name: of the input.

    Raises:
        LikenessError: the batch is empty.
    """
    if not len(images) or not images[0].numel():
        raise LikenessError(f"`{name}` is a batch of 0 pictures; look at the node that is "
                            "connected there, which let none through.")
    return images


def is_finite(latent: torch.Tensor) -> bool:
    """Whether every value is a number; one that is not would spoil all that is trained on it."""
    return bool(torch.isfinite(latent).all())


def is_finite_text(conditioning: list[list[Any]]) -> bool:
    """Whether the tokens and the pooled text of a CONDITIONING are numbers."""
    return all(is_finite(part) for tokens, options in conditioning
               for part in (tokens, options.get("pooled_output")) if part is not None)


def require_latent(latent: torch.Tensor, source: str) -> torch.Tensor:
    """A latent that a VAE made, of numbers alone.

    Args:
        source: the picture's name.

    Raises:
        LikenessError: there is NaN or infinity in it.
    """
    if not is_finite(latent):
        raise LikenessError(f"The VAE gives NaN in place of numbers for {source}, as some do in "
                            "half precision; start ComfyUI with --fp32-vae or connect another VAE "
                            "of the same model.")
    return latent


def require_text(conditioning: list[list[Any]], text: str) -> list[list[Any]]:
    """A text's CONDITIONING of numbers alone.

    Raises:
        LikenessError: there is NaN or infinity in it.
    """
    if not is_finite_text(conditioning):
        raise LikenessError(f"The text encoder gives NaN in place of numbers for `{text[:80]}`; "
                            "start ComfyUI with --fp32-text-enc or load another file of it.")
    return conditioning
