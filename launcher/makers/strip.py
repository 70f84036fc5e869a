"""Draws what a demo did: photos, pictures before and after training, and styled ones.

    python -m launcher.makers.strip --out FILE --photos A.jpg ... --before ... --after ...
        --styled ...

Runs inside the host's Python.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

CELL = 160  # pixels
ACROSS, DOWN = 2, 2  # pictures of each kind
_GAP, _LINE = 20, 34
_INK, _PAPER = (40, 40, 40), (250, 250, 250)
_HEADS_AT = (0.5, 0.25)  # where photos that are not square are kept: heads are high in them
TITLES = {"photos": "photos", "before": "before training", "after": "after training",
          "styled": "with a style"}


def draw(kinds: dict[str, Sequence[Path]]) -> Image.Image:
    """A block of pictures for each kind in `TITLES`, side by side with its title."""
    block = ACROSS * CELL
    strip = Image.new("RGB", (len(TITLES) * (block + _GAP) - _GAP, DOWN * CELL + _LINE), _PAPER)
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(18)
    for number, (kind, title) in enumerate(TITLES.items()):
        left = number * (block + _GAP)
        for place, file in enumerate(kinds[kind][:ACROSS * DOWN]):
            with Image.open(file) as picture:
                upright = ImageOps.exif_transpose(picture).convert("RGB")
            cell = ImageOps.fit(upright, (CELL, CELL), Image.Resampling.BICUBIC,
                                centering=_HEADS_AT)
            strip.paste(cell, (left + place % ACROSS * CELL, place // ACROSS * CELL))
        pen.text((left + block / 2, DOWN * CELL + _LINE / 2), title, _INK, font, anchor="mm")
    return strip


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw what a demo did.")
    parser.add_argument("--out", type=Path, required=True)
    for kind in TITLES:
        parser.add_argument(f"--{kind}", type=Path, nargs="+", required=True)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    draw({kind: getattr(options, kind) for kind in TITLES}).save(options.out)


if __name__ == "__main__":
    main()
