"""Makes the ten sample photos of the demo from the committed ones. Runs inside the host's Python.

    python -m launcher.makers.sample_photos --out DIR

Six are photos that a careful curator keeps: two shots of one person and honest variants that
differ as photos of one afternoon do: mirrored, lit from a side, turned. Four must be turned down
or flagged: one in a dim room, a second crop of the first shot that is out of focus, somebody
else, and one with the head out of the frame. Every run writes the same pixels.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

ASSETS = Path(__file__).resolve().parents[2] / "tests" / "assets"
KEPT = 6
_ORIENTATION = 0x0112  # EXIF tag
_STORED_ON_ITS_SIDE = 6  # "turn clockwise by a quarter to see it upright"

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 as parts of width and height


def _crop(picture: Image.Image, box: Box) -> Image.Image:
    width, height = picture.size
    return picture.crop((round(box[0] * width), round(box[1] * height),
                         round(box[2] * width), round(box[3] * height)))


def _lamp(picture: Image.Image, face: tuple[float, float, float], angle: float, depth: float,
          tint: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Image.Image:
    """Light the face from one side.

    Args:
        face: x and y of its middle as parts of width and height, and its width in pixels.
        angle: where the light comes from in degrees, 0 right, 90 above, 180 left.
        depth: 0 leaves the picture as it is, 1 makes the far side black.
        tint: colour of the light, red, green, blue.
    """
    width, height = picture.size
    x, y = np.meshgrid(np.arange(width) - face[0] * width, np.arange(height) - face[1] * height)
    along = (np.cos(np.radians(angle)) * x - np.sin(np.radians(angle)) * y) / face[2]
    light = 1.0 - depth / (1.0 + np.exp(np.clip(8.0 * along, -30, 30)))
    linear = (np.asarray(picture, np.float64) / 255.0) ** 2.2
    lit = np.clip(linear * light[..., None] * 1.15 * np.array(tint), 0, 1) ** (1 / 2.2)
    return Image.fromarray(np.uint8(np.rint(lit * 255)))


def _turned(picture: Image.Image, degrees: float, squeeze: float) -> Image.Image:
    """Tilt the head by some degrees and look at it a little from the side.

    Args:
        squeeze: by what part of the height the right edge is shorter than the left one.
    """
    # Room above the head, which the nearer side of the picture needs when it grows.
    room = round(abs(squeeze) * picture.height / 2)
    picture = Image.fromarray(np.pad(np.asarray(picture), ((room, 0), (0, 0), (0, 0)), "edge"))
    width, height = picture.size
    inset = squeeze * height / 2
    corners = (0, inset, 0, height - inset, width, height, width, 0)
    if squeeze < 0:
        corners = (0, 0, 0, height, width, height + inset, width, -inset)
    seen = picture.transform(picture.size, Image.Transform.QUAD, corners,
                             Image.Resampling.BICUBIC)
    tilted = seen.rotate(degrees, Image.Resampling.BICUBIC)
    margin = abs(np.sin(np.radians(degrees))) / 2
    return _crop(tilted, (margin, margin, 1 - margin, 1 - margin))


def _dim(picture: Image.Image, light: float, seed: int) -> Image.Image:
    """Take away most of the light and add the noise of a small sensor.

    Args:
        light: the part of the light that is left.
    """
    linear = (np.asarray(picture, np.float64) / 255.0) ** 2.2
    noise = np.random.default_rng(seed).normal(0.0, 0.004, linear.shape)
    dark = np.clip(linear * light + noise, 0, 1) ** (1 / 2.2)
    return Image.fromarray(np.uint8(np.rint(dark * 255)))


def _on_its_side(picture: Image.Image) -> Image.Image:
    """Store a picture turned by a quarter, as phones do; its EXIF tag says so."""
    stored = picture.transpose(Image.Transpose.ROTATE_90)
    stored.getexif()[_ORIENTATION] = _STORED_ON_ITS_SIDE
    return stored


def photos() -> dict[str, Callable[[], Image.Image]]:
    """The ten photos by file name; the first six are good ones."""

    def asset(name: str) -> Image.Image:
        with Image.open(ASSETS / name) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")

    def portrait() -> Image.Image:
        return asset("obama.jpg")

    def outdoors() -> Image.Image:
        return asset("obama3.jpg")

    def mirrored(picture: Image.Image) -> Image.Image:
        return ImageOps.mirror(picture)

    return {
        "01_portrait.jpg": portrait,
        "02_outdoors.jpg": outdoors,
        "03_phone_on_its_side.jpg": lambda: _on_its_side(_crop(_turned(
            _lamp(mirrored(portrait()), (0.46, 0.24, 234), 0, 0.6), 5, 0.45),
            (0.08, 0.0, 0.92, 0.8))),
        "04_window_light.jpg": lambda: _turned(
            _lamp(portrait(), (0.54, 0.24, 234), 90, 0.8, (0.95, 1.0, 1.05)), 3, 0.35),
        "05_evening_sun.jpg": lambda: _turned(
            _lamp(mirrored(outdoors()), (0.46, 0.19, 141), 180, 0.7, (1.05, 0.95, 0.8)), -4, 0.3),
        "06_lamp_from_the_left.jpg": lambda: _turned(
            _lamp(mirrored(portrait()), (0.46, 0.24, 234), 160, 0.85, (1.0, 0.97, 0.92)), -4, 0.3),
        "07_dim_room.jpg": lambda: _dim(_turned(mirrored(portrait()), 7, -0.35), 0.18, seed=7),
        "08_same_shot_out_of_focus.jpg": lambda: _crop(
            portrait().filter(ImageFilter.GaussianBlur(1.3)), (0.1, 0.02, 0.9, 0.72)),
        "09_somebody_else.jpg": lambda: asset("biden2.jpg"),
        "10_head_out_of_frame.jpg": lambda: _crop(portrait(), (0.0, 0.55, 1.0, 1.0)),
    }


def write(folder: Path) -> Mapping[str, Path]:
    """Write the ten photos into a folder and return their paths by name."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, make in photos().items():
        picture = make()
        exif = picture.getexif()
        partial = folder / f".{name}.{os.getpid()}.part"
        picture.save(partial, "JPEG", quality=93, exif=exif.tobytes() if len(exif) else b"")
        paths[name] = partial.replace(folder / name)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the ten sample photos of the demo.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the photos")
    folder = parser.parse_args().out.resolve()
    print(f"wrote {len(write(folder))} photos to {folder}")


if __name__ == "__main__":
    main()
