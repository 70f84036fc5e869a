"""Makes the banks of other people's faces that travel with the pack, one per recogniser.

    python -m launcher.makers.impostor_bank PORTRAITS [--source WORDS] [--rights WORDS]

PORTRAITS holds one photo per person, of people who let the pack use it, and `portraits.csv` with
the columns file and gender: the shipped banks were made from official portraits, works of the US
government. What is written are embeddings in an order that no list of names has, the same in every
bank, and who of them are women and men. Nothing that ships calls it.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import importlib
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from ..tiny.models import import_comfyui

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "official portraits of members of the United States Congress, taken in 2021, one each"
RIGHTS = "works of the US government, public domain; embeddings only, unnamed and shuffled"
HARMLESS = 1e-3  # of similarity; people differ by a hundred times as much
KINDS = {".jpg", ".jpeg", ".png"}


def main() -> None:
    """Write nodes/scoring/bank/banks/<recogniser>.safetensors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("portraits", type=Path)
    parser.add_argument("--source", default=SOURCE)
    parser.add_argument("--rights", default=RIGHTS)
    options = parser.parse_args()
    bank_module, backends, embed = _modules()
    files = sorted(path for path in options.portraits.iterdir() if path.suffix.lower() in KINDS)
    joint, skipped = bank_module.make_bank(
        files, backends.BOTH, options.source, options.rights,
        groups=_groups(files, options.portraits / "portraits.csv"))
    for photo in skipped:
        print(f"{photo.name}: {photo.text}")
    for part, rows in zip(backends.parts_of(backends.BOTH),
                          embed.split_parts(joint.embeddings, backends.BOTH), strict=True):
        bank = dataclasses.replace(joint, backend=part, embeddings=rows,
                                   weights=bank_module.weights_key(part))
        path = bank_module.BANKS / f"{part}.safetensors"
        with tempfile.TemporaryDirectory() as place:
            trial = Path(place) / path.name
            bank_module.write_bank(trial, bank)
            _check_precision(bank, bank_module.read_bank(trial))
        bank_module.write_bank(path, bank)
        print(f"{len(rows)} people, {path.stat().st_size} bytes in {path}")
        _say_scale(part, bank, embed)


def _groups(files: list[Path], people: Path) -> dict[str, list[bool]]:
    """Who of the people belong together, in the order of the files."""
    with people.open(encoding="utf-8") as file:
        told = {row["file"]: row["gender"] for row in csv.DictReader(file)}
    return {"women": [told[path.name] == "female" for path in files],
            "men": [told[path.name] == "male" for path in files]}


def _say_scale(part: str, bank: Any, embed: Any) -> None:
    """Print what `Part` in backends.py states of strangers."""
    rows = bank.embeddings
    alike = [embed.similarity(rows[i], rows[j], part)
             for i in range(len(rows)) for j in range(i)]
    mean = sum(alike) / len(alike)
    deviation = (sum((one - mean) ** 2 for one in alike) / len(alike)) ** 0.5
    print(f"{part}: {len(alike)} pairs of strangers, mean {mean:.4f}, deviation {deviation:.4f}")


def _modules() -> tuple[ModuleType, ModuleType, ModuleType]:
    """The bank's module, the list of recognisers, and the embedding."""
    import_comfyui(Path(os.environ.get("COMFYUI_PATH") or ROOT / ".host" / "ComfyUI"))
    spec = importlib.util.spec_from_file_location(
        "likeness", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules["likeness"] = module
    spec.loader.exec_module(module)
    bank, *recognise = (importlib.import_module(f"likeness.nodes.{name}") for name in (
        "scoring.bank.bank", "faces.recognise.backends", "faces.recognise.embed"))
    return bank, *recognise


def _check_precision(made: Any, stored: Any) -> None:
    """Refuse half precision where it would change what a bank says."""
    lost = max(float(abs(made.to(row) - stored.to(row)).max()) for row in made.embeddings)
    usual = float(made.to(made.embeddings[0])[1:].std())
    print(f"Half precision moves a similarity by at most {lost:.1e}; people differ by {usual:.1e}.")
    if lost > HARMLESS:
        raise SystemExit("Half precision is too coarse for these embeddings.")


if __name__ == "__main__":
    main()
