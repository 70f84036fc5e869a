"""Photos in a folder, in their order, and the caption files that lie beside them."""

from __future__ import annotations

import re
from pathlib import Path

from ..files import on_disk
from .decoding import is_photo

# OneTrainer's masks and conditioning pictures, which lie among the photos.
LABELS = ("-masklabel", "-condlabel")
CAPTIONS = (".txt", ".caption")  # the latter is what sd-scripts reads unless it is told otherwise


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key under which IMG_9 comes before IMG_10."""
    parts = re.split(r"(\d+)", name.casefold())
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in parts if part)


def photos_in(folder: Path) -> list[Path]:
    """The photo files right inside a folder that is there, in natural order."""
    found = (path for path in folder.iterdir()
             if path.name[0] != "." and not path.stem.endswith(LABELS) and is_photo(path))
    return sorted(found, key=lambda path: (natural_key(path.stem), path.name))


def captions_of(path: Path) -> list[Path]:
    """The caption files beside a photo; the first one holds."""
    found = []
    for kind in CAPTIONS:
        forms = (on_disk(path.with_suffix(form)) for form in (kind, kind.upper()))
        found += [file for file in forms if file.is_file()][:1]
    return found
