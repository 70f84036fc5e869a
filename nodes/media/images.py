"""Conversions between ComfyUI's IMAGE and MASK tensors, uint8 arrays and PIL pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from ..errors import LikenessError
from .colour import to_srgb, told_of_colour
from .decoding import DAMAGED, opened, told_of_size


def to_uint8(image: torch.Tensor) -> np.ndarray:
    """Turn one IMAGE item (H, W, 3) in [0, 1] into a contiguous (H, W, 3) uint8 RGB array."""
    array = image.detach().clamp(0, 1).mul(255).round().to("cpu", torch.uint8).numpy()
    return np.ascontiguousarray(array[..., :3])


def to_image(pixels: np.ndarray) -> torch.Tensor:
    """Turn an (H, W, 3) or (B, H, W, 3) uint8 RGB array into an IMAGE (B, H, W, 3) in [0, 1]."""
    tensor = torch.from_numpy(np.array(pixels, dtype=np.float32, copy=True) / 255.0)
    return tensor if tensor.ndim == 4 else tensor[None]


def to_mask(pixels: np.ndarray) -> torch.Tensor:
    """Turn an (H, W) float or bool array in [0, 1] into a MASK (1, H, W)."""
    return torch.from_numpy(np.array(pixels, dtype=np.float32, copy=True))[None]


def to_rgb(picture: Image.Image, profile: bytes | None = None) -> Image.Image:
    """Turn a picture upright and any mode (alpha, palette, 16-bit, CMYK) to RGB.

    Args:
        profile: the ICC profile of its colours, to bring them to sRGB; masks' values have none.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        # Pillow clips instead of scaling when it converts 16-bit grey.
        wide = np.asarray(picture, dtype=np.float32)
        picture = Image.fromarray(np.uint8(np.clip(wide / _white(picture.mode, wide), 0, 1) * 255
                                           + 0.5))
    sheer = picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
    alpha = picture.convert("RGBA").getchannel("A") if sheer else None
    base = {"L": "L", "LA": "L", "1": "L", "CMYK": "CMYK"}.get(picture.mode, "RGB")
    picture = to_srgb(picture if picture.mode == base else picture.convert(base), profile)
    if alpha is None:
        return picture
    picture.putalpha(alpha)
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _white(mode: str, values: np.ndarray) -> float:
    """What white is in a mode with more than 8 bits, some of which do not say it themselves."""
    if mode.startswith("I;16"):
        return 65535.0
    return next((white for white in (1.0, 255.0) if values.max() <= white), 65535.0)


def read_picture(source: Path | str | bytes, least: int | None = None) -> Image.Image:
    """Read a picture by its path or its file's bytes: RGB in sRGB, upright.

    Args:
        least: pixels a side that will do, as for a thumbnail.

    Raises:
        RefusedError: it has too many pixels, or its reader is missing.
        OSError: it cannot be read or decoded, whatever Pillow's reader raised.
    """
    try:
        with opened(source, least) as picture:
            return to_rgb(picture, picture.info.get("icc_profile"))
    except OSError:
        raise
    except DAMAGED as err:
        raise OSError(str(err) or type(err).__name__) from err


def read_photo(path: str | Path) -> np.ndarray:
    """Read a photo as (H, W, 3) uint8 RGB in sRGB, upright.

    Raises:
        OSError: the file cannot be read or decoded.
    """
    return np.ascontiguousarray(np.asarray(read_picture(path)))


def told_of_reading(path: Path) -> str:
    """What reading a photo changes of it beside its orientation, in sentences; empty for nothing.

    Only the file's head is read. A file that cannot be read tells nothing here.
    """
    try:
        with opened(path) as picture:
            said = [told_of_colour(picture), told_of_size(picture)]
    except DAMAGED:
        return ""
    return " ".join(text for text in said if text)


def reread_photo(path: Path, name: str) -> np.ndarray:
    """Read a photo that an earlier step has seen, as (H, W, 3) uint8 RGB, upright.

    Raises:
        LikenessError: it is gone or damaged since.
    """
    try:
        return read_photo(path)
    except OSError as err:
        raise LikenessError(f"`{name}` cannot be read any more ({err}); put the photo back or run "
                            "the curation again.") from err


def turned(points: np.ndarray, turn: float, centre: tuple[float, float]) -> np.ndarray:
    """Where points (..., 2) of a picture lie when it is turned about `centre`.

    Args:
        turn: degrees, > 0: counter-clockwise as seen.
    """
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    return (points - np.asarray(centre)) @ np.array([[cos, -sin], [sin, cos]]) + centre


def cut_region(picture: Image.Image, box: tuple[float, float, float, float],
               size: tuple[int, int], turn: float = 0.0,
               resample: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    """Resample a region of a picture that is turned about its centre first.

    Args:
        box: x0, y0, x1, y1 in pixels of the turned picture.
        size: width and height of the result.
        turn: degrees, > 0: counter-clockwise as seen.
    """
    if not turn:
        return picture.resize(size, resample, box=box)
    x0, y0, x1, y1 = box
    # Turned at the picture's own scale first: `transform` does not average when it shrinks.
    across, down = max(1, round(x1 - x0)), max(1, round(y1 - y0))
    step_x, step_y = (x1 - x0) / across, (y1 - y0) / down
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    corner = turned(np.array([x0, y0]), -turn, (picture.width / 2, picture.height / 2))
    matrix = (cos * step_x, -sin * step_y, corner[0], sin * step_x, cos * step_y, corner[1])
    level = picture.transform((across, down), Image.Transform.AFFINE, tuple(map(float, matrix)),
                              Image.Resampling.BICUBIC)
    return level.resize(size, resample)


def resize(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resample an (H, W, 3) uint8 array with an antialiased Lanczos filter."""
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(picture))
