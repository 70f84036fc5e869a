"""The training set on disk: latents, face masks and text encodings, each under a content hash."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import LikenessError
from ..faces.mesh import face_mask
from ..images import reread_photo, to_image
from ..sockets import Photo, Subject, TrainingItem, TrainingSet
from ..tensors import (
    Conditioning,
    DamagedFileError,
    read_conditioning,
    read_latent,
    write_conditioning,
    write_latent,
)
from .caption import caption
from .crop import Crop, choose_crop, cut, cut_mask, make_buckets

logger = logging.getLogger("likeness")

# Crops of the same photo that need more than this many output pixels per photo pixel look soft.
SOFT_ENLARGEMENT = 1.5

# Raised when the same photo, caption and encoders begin to give other files (a changed face mask).
FORMAT = 2


@dataclass(frozen=True)
class PrepareSettings:
    """How photos are cut and described."""

    resolution: int  # pixels; the area of a bucket is at most its square
    framing: str
    caption_template: str

    def __post_init__(self) -> None:
        if not 64 <= self.resolution <= 4096:
            raise LikenessError(f"`resolution` must be 64 to 4096 pixels, got {self.resolution}.")


@dataclass(frozen=True)
class Encoders:
    """The host's VAE and text encoder as plain callables, with the identity of their weights."""

    encode_image: Callable[[torch.Tensor], torch.Tensor]  # (1, H, W, 3) -> (1, C, h, w)
    encode_text: Callable[[str], Conditioning]
    image_key: str
    text_key: str


@dataclass(frozen=True, eq=False)
class PreparedPhoto:
    """One crop as it trains, for the preview and the report."""

    item: TrainingItem
    pixels: np.ndarray  # (h, w, 3) uint8
    mask: np.ndarray  # (h, w) float32 at the latent's grid
    enlargement: float


def prepare(subject: Subject, settings: PrepareSettings, encoders: Encoders, folder: Path,
            on_item: Callable[[int], None]) -> tuple[TrainingSet, list[PreparedPhoto]]:
    """Cut, mask, caption and encode a subject's reference photos; finished work is reused.

    Args:
        folder: where the cache lies; files are named by what went into them.
        on_item: called with the number of finished photos; may raise to cancel.
    """
    buckets = make_buckets(settings.resolution)
    prepared = []
    conditionings = {"": _encode_text("", encoders, folder)}
    for done, photo in enumerate(subject.references, start=1):
        text = caption(photo, subject.trigger, subject.class_noun, settings.caption_template)
        key = _key(text)
        if key not in conditionings:
            conditionings[key] = _encode_text(text, encoders, folder)
        crop = choose_crop(photo, settings.framing, buckets)
        prepared.append(_encode_photo(photo, crop, text, key, encoders, folder))
        on_item(done)
    items = tuple(entry.item for entry in prepared)
    files = [item.latent_file.name for item in items]
    captions = [item.caption for item in items]
    total = _key(json.dumps([files, captions, sorted(p.name for p in conditionings.values())]))
    made = TrainingSet(items, conditionings, folder, total, subject.name, subject.trigger)
    return made, prepared


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _encode_text(text: str, encoders: Encoders, folder: Path) -> Path:
    path = folder / f"{_key(json.dumps([FORMAT, encoders.text_key, text]))}.text.safetensors"
    if not _whole(path, read_conditioning):
        write_conditioning(path, encoders.encode_text(text))
    return path


def _whole(path: Path, read: Callable[[Path], object]) -> bool:
    """Whether a cached file is there and can be read; a damaged one is deleted."""
    if not path.exists():
        return False
    try:
        read(path)
    except DamagedFileError:
        logger.warning("The cached file %s is damaged and is encoded again.", path)
        path.unlink()
        return False
    return True


def _encode_photo(photo: Photo, crop: Crop, text: str, conditioning_key: str, encoders: Encoders,
                  folder: Path) -> PreparedPhoto:
    source = reread_photo(photo.file, photo.name)
    pixels = cut(source, crop)
    name = _key(json.dumps([FORMAT, photo.sha256, photo.face.box, crop.box, crop.bucket,
                            encoders.image_key]))
    path = folder / f"{name}.latent.safetensors"
    if not _whole(path, read_latent):
        latent = encoders.encode_image(to_image(pixels))[0]
        height, width = latent.shape[-2:]
        mask = cut_mask(face_mask(photo.face, *source.shape[:2]), crop, width, height)
        write_latent(path, latent, torch.from_numpy(mask))
    item = TrainingItem(photo.name, photo.sha256, text, crop.bucket, (photo.width, photo.height),
                        crop.box, path, conditioning_key)
    return PreparedPhoto(item, pixels, read_latent(path)[1].numpy(), crop.enlargement)


def report(prepared: list[PreparedPhoto]) -> dict:
    """The JSON report of a prepared set."""
    return {
        "photos": [{
            "file": entry.item.photo,
            "caption": entry.item.caption,
            "bucket": list(entry.item.bucket),
            "crop": [round(side, 1) for side in entry.item.crop],
            "enlargement": round(entry.enlargement, 3),
            "soft": entry.enlargement > SOFT_ENLARGEMENT,
            "face_share": round(float(entry.mask.mean()), 4),
        } for entry in prepared],
        "buckets": sorted({entry.item.bucket for entry in prepared}),
    }
