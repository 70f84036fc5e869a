"""Colours of pictures that carry a profile, brought to sRGB."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageCms

_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}  # Pillow's mode -> ICC's colour space
_SAME = 2  # of 255: a profile that moves no colour further is sRGB, whoever wrote it


def to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """An RGB, L or CMYK picture as RGB, by its ICC profile where it has one that is not sRGB."""
    transform = _transform(profile, picture.mode) if profile else None
    if transform is None:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    return ImageCms.applyTransform(picture, transform)


def told_of_colour(picture: Image.Image) -> str:
    """What `to_srgb` makes of an opened picture's colours, in a sentence; empty for sRGB."""
    profile = picture.info.get("icc_profile")
    if not profile:
        return ""
    space = {"CMYK": "CMYK", "L": "L", "LA": "L", "1": "L", "I;16": "L", "I;16B": "L", "I": "L"}
    mode = space.get(picture.mode, "RGB")
    source = _profile(profile)
    if source is None or source.profile.xcolor_space != _SPACES[mode]:
        return "Its colour profile cannot be used, so its colours are taken as sRGB."
    if _transform(profile, mode) is None:
        return ""
    name = ImageCms.getProfileDescription(source).strip() or "a profile without a name"
    return f"Its colours were brought from {name} to sRGB."


def _profile(profile: bytes) -> ImageCms.ImageCmsProfile | None:
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except (OSError, ImageCms.PyCMSError):
        return None


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB; None when it is sRGB, damaged, or of another space than the mode."""
    source = _profile(profile)
    if source is None or source.profile.xcolor_space != _SPACES.get(mode):
        return None
    try:
        transform = ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), mode, "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION)
    except ImageCms.PyCMSError:
        return None
    return None if mode != "CMYK" and _moves(transform, mode) <= _SAME else transform


def _moves(transform: ImageCms.ImageCmsTransform, mode: str) -> int:
    """By how much of 255 a transform moves a colour at most."""
    steps = np.linspace(0, 255, 256 if mode == "L" else 9).round().astype(np.uint8)
    grid = steps[None] if mode == "L" else np.stack(
        np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    colours = Image.fromarray(grid)
    after = np.asarray(ImageCms.applyTransform(colours, transform), dtype=int)
    return int(np.abs(after - np.asarray(colours.convert("RGB"), dtype=int)).max())
