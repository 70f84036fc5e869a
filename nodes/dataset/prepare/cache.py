"""The training set's files: latents with their masks, and text encodings, named by content."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...brackets import plain
from ...errors import LikenessError
from ...incoming import is_finite, is_finite_text, require_latent, require_text
from ...tensors import (
    Conditioning,
    DamagedFileError,
    read_conditioning,
    read_latent,
    write_conditioning,
    write_latent,
)

logger = logging.getLogger("likeness")

# Raised when the same photo, caption and encoders begin to give other files (managed colours).
FORMAT = 4


@dataclass(frozen=True)
class Encoders:
    """The host's VAE and text encoder as plain callables, with the identity of their weights."""

    encode_image: Callable[[torch.Tensor], torch.Tensor]  # (1, H, W, 3) -> (1, C, h, w)
    encode_text: Callable[[str], Conditioning]
    image_key: str
    text_key: str


def content_key(*parts: Any) -> str:
    """A short name for plain values."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def caption_key(text: str) -> str:
    """What a caption is called in `TrainingSet.conditionings`; the empty one stays empty."""
    return hashlib.sha256(text.encode()).hexdigest()[:24] if text else ""


def cached_text(text: str, encoders: Encoders, folder: Path) -> Path:
    """The file of a caption's encoding, made if it is not there."""
    # Named by how it is read: where brackets once were weights, the old file is not its encoding.
    path = folder / f"{content_key(FORMAT, encoders.text_key, plain(text))}.text.safetensors"
    if not _whole(path, lambda found: is_finite_text(read_conditioning(found))):
        write_conditioning(path, require_text(encoders.encode_text(text), text))
    return path


def cached_latent(name: str, folder: Path, make: Callable[[], tuple[torch.Tensor, torch.Tensor]],
                  source: str) -> Path:
    """The file of a crop's latent and mask, made if it is not there.

    Args:
        name: the `content_key` of all that decides both, the encoder included.
        make: gives the latent (C, h, w) and the mask (h, w).
        source: what an error calls the picture.

    Raises:
        LikenessError: the encoder gives no numbers.
    """
    path = folder / f"{name}.latent.safetensors"
    if not _whole(path, lambda found: is_finite(read_latent(found)[0])):
        latent, mask = make()
        write_latent(path, require_latent(latent, source), mask)
    return path


def _whole(path: Path, sound: Callable[[Path], bool]) -> bool:
    """Whether a cached file is there, can be read and is sound; else it is written anew."""
    try:
        return path.exists() and sound(path)
    except DamagedFileError:
        logger.warning("The cached file %s is damaged and is encoded again.", path)
        return False
    except OSError as err:
        raise LikenessError(f"The cached file {path} cannot be opened "
                            f"({err.strerror or err}); delete it or give ComfyUI access to it."
                            ) from err
