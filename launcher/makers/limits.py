"""Measures good portraits, for the limits of curation. Runs inside the host's Python.

    python -m launcher.makers.limits FOLDER [FOLDER ...] [--every N]

Prints the percentiles of every measure over the largest face of each photo, and how far the
faces of different photos lie apart. The limits in nodes/quality/rules.py are set outside of what
photos show that a person would keep; their sources name these figures. Nothing that ships calls
it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..tiny.models import import_comfyui

ROOT = Path(__file__).resolve().parents[2]
PERCENTILES = (0, 1, 5, 50, 95, 99, 100)
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def main() -> None:
    parser = argparse.ArgumentParser(description="Print what good portraits measure.")
    parser.add_argument("folders", nargs="+", type=Path, help="folders of portraits, one face each")
    parser.add_argument("--every", type=int, default=1, help="measure every Nth photo only")
    arguments = parser.parse_args()
    files = [file for folder in arguments.folders for file in sorted(folder.iterdir())
             if file.suffix.lower() in EXTENSIONS][::arguments.every]
    seen = list(_faces(files))
    print(f"{len(seen)} of {len(files)} photos show a face; percentiles:")
    print(f"{'':>16}" + "".join(f"{part:>10}" for part in PERCENTILES))
    for name, values in _columns(seen).items():
        figures = np.percentile(values, PERCENTILES)
        print(f"{name:>16}" + "".join(f"{figure:>10.3f}" for figure in figures))


def _faces(files: Sequence[Path]) -> Iterator[Any]:
    look, images = pack("quality.look"), pack("media.images")
    for file in files:
        seen = look.look_at(images.read_photo(file))
        if seen.face is None:
            print(f"{file.name} shows no face.")
            continue
        yield seen


def pack(module: str) -> Any:
    """A module of the pack by its dotted name below `nodes`, with the host made importable."""
    if "likeness" not in sys.modules:
        import_comfyui(Path(os.environ.get("COMFYUI_PATH") or ROOT / ".host" / "ComfyUI"))
        spec = importlib.util.spec_from_file_location(
            "likeness", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
        loaded = importlib.util.module_from_spec(spec)
        sys.modules["likeness"] = loaded
        spec.loader.exec_module(loaded)
    return importlib.import_module(f"likeness.nodes.{module}")


def _columns(seen: Sequence[Any]) -> dict[str, np.ndarray]:
    """Every measure, the head's angles and the distances of different photos' faces, as arrays."""
    columns = {name: np.array([one.measures[name] for one in seen]) for name in seen[0].measures}
    for angle in ("yaw", "pitch", "roll"):
        columns[angle] = np.array([getattr(one.face.pose, angle) for one in seen])
    columns["eyes_per_width"] = columns["eyes_apart"] / columns["face_width"]
    rows = np.stack([one.embedding for one in seen])
    upper = np.triu_indices(len(rows), 1)
    if upper[0].size:
        columns["apart"] = np.linalg.norm(rows[upper[0]] - rows[upper[1]], axis=1)
        bits = np.stack([one.pattern for one in seen])
        columns["pattern_bits"] = (bits[upper[0]] != bits[upper[1]]).sum(1)
    return columns


if __name__ == "__main__":
    main()
