"""Makes the bank of other people's faces that travels with the pack.

    python -m launcher.makers.impostor_bank PORTRAITS [--source WORDS] [--rights WORDS]

PORTRAITS holds one photo per person, of people who let the pack use it: the shipped bank was made
from official portraits, works of the US government. What is written are embeddings alone, in an
order that no list of names has. Nothing that ships calls it.
"""

from __future__ import annotations

import argparse
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
    """Write nodes/scoring/banks/dlib.safetensors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("portraits", type=Path)
    parser.add_argument("--source", default=SOURCE)
    parser.add_argument("--rights", default=RIGHTS)
    options = parser.parse_args()
    bank_module = _bank_module()
    files = sorted(path for path in options.portraits.iterdir() if path.suffix.lower() in KINDS)
    bank, skipped = bank_module.make_bank(files, "dlib", options.source, options.rights)
    for photo in skipped:
        print(f"{photo.name}: {photo.text}")
    path = bank_module.BANKS / "dlib.safetensors"
    with tempfile.TemporaryDirectory() as place:
        trial = Path(place) / path.name
        bank_module.write_bank(trial, bank)
        _check_precision(bank, bank_module.read_bank(trial))
    bank_module.write_bank(path, bank)
    print(f"{len(bank.embeddings)} people, {path.stat().st_size} bytes in {path}")


def _bank_module() -> ModuleType:
    import_comfyui(Path(os.environ.get("COMFYUI_PATH") or ROOT / ".host" / "ComfyUI"))
    spec = importlib.util.spec_from_file_location(
        "likeness", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules["likeness"] = module
    spec.loader.exec_module(module)
    return importlib.import_module("likeness.nodes.scoring.bank.bank")


def _check_precision(made: Any, stored: Any) -> None:
    """Refuse half precision where it would change what a bank says."""
    lost = max(float(abs(made.to(row) - stored.to(row)).max()) for row in made.embeddings)
    usual = float(made.to(made.embeddings[0])[1:].std())
    print(f"Half precision moves a similarity by at most {lost:.1e}; people differ by {usual:.1e}.")
    if lost > HARMLESS:
        raise SystemExit("Half precision is too coarse for these embeddings.")


if __name__ == "__main__":
    main()
