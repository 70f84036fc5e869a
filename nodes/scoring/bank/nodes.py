"""The node that makes a bank of other people's faces for any recogniser."""

from __future__ import annotations

import json
from pathlib import Path

from comfy_api.latest import io, ui

from ... import runtime
from ...errors import LikenessError
from ...faces.recognise import backends
from ...media.decoding import is_photo
from ...schema import ImpostorBankType, schema
from ..calibration.calibration import MINIMUM_BANK
from .bank import ImpostorBank, Skipped, cached_name, make_bank, read_bank, shipped, write_bank

BANK_FACES = "likeness_faces"  # below the host's models folder


class LikenessImpostorBank(io.ComfyNode):
    """Make a bank of other people's faces, or take the one that travels with the pack."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessImpostorBank", feature="scoring", display_name="Likeness Impostor Bank",
            description="Takes a folder of photos of many other people, one photo each, and gives "
                        "their face embeddings without names, from which Likeness Score states how "
                        "many strangers would pass for the subject. Made once per folder content "
                        "and recogniser, then read from output/likeness/banks.",
            inputs=[
                io.String.Input(
                    "folder", default="",
                    tooltip="A folder of photos below the input folder, or below "
                            f"models/{BANK_FACES}; at least {MINIMUM_BANK} people, never "
                            "the subject, best of the subject's own age and origin. Empty takes "
                            "the bank that comes with the pack, for its own recognisers."),
                io.Combo.Input(
                    "backend", options=backends.ids(), default=backends.BOTH,
                    tooltip="The recogniser that will judge. " + backends.choices_text()),
            ],
            outputs=[
                ImpostorBankType.Output(display_name="bank",
                                        tooltip="For the input `bank` of Likeness Score."),
                io.String.Output(display_name="report",
                                 tooltip="JSON: recogniser, number of people, where the bank lies, "
                                         "photos that were left out and why."),
            ])

    @classmethod
    def fingerprint_inputs(cls, folder, backend):
        try:
            files = bank_files(folder) if folder.strip() else []
        except (LikenessError, TypeError, AttributeError):  # linked inputs arrive as None
            return float("nan")  # unknown: run again
        return [backend, *((path.name, path.stat().st_size, path.stat().st_mtime_ns)
                           for path in files)]

    @classmethod
    def execute(cls, folder, backend):
        bank, path, skipped = obtain(folder, backend)
        data = {"backend": backend, "people": len(bank.embeddings), "source": bank.source,
                "rights": bank.rights, "file": str(path) if path else None,
                "enough": len(bank.embeddings) >= MINIMUM_BANK,
                "skipped": [{"name": photo.name, "reason": photo.text} for photo in skipped]}
        text = json.dumps(data, indent=1)
        return io.NodeOutput(bank, text, ui=ui.PreviewText(text))


def obtain(folder: str, backend: str) -> tuple[ImpostorBank, Path | None, tuple[Skipped, ...]]:
    """The bank of a folder and where it lies; photos are skipped only when it is made.

    Raises:
        LikenessError: an empty name with a recogniser that has no bank, a folder that is missing,
            lies outside or holds no photos, or fewer than two faces.
    """
    backends.backend(backend)
    if not folder.strip():
        bank = shipped(backend)
        if bank is None:
            raise LikenessError(f"No bank for {backend} comes with the pack; name a `folder` of "
                                "photos of many other people.")
        return bank, None, ()
    files = bank_files(folder)
    path = runtime.output_directory() / "likeness" / "banks" / cached_name(files, backend)
    if path.is_file():
        return read_bank(path), path, ()
    bank, skipped = make_bank(files, backend, f"{len(files)} photos of the user's",
                              "the user's own", runtime.progress_callback(len(files)))
    write_bank(path, bank)
    return bank, path, skipped


def bank_files(folder: str) -> list[Path]:
    """The photos right inside a folder below the input folder or the model folder for faces.

    Raises:
        LikenessError: it lies outside of both, is in neither, or holds no photos.
    """
    name = folder.strip()
    bases = (runtime.input_directory(), runtime.models_directory() / BANK_FACES)
    for base in bases:
        place = runtime.contained(base, name)
        if place.is_dir():
            files = sorted(path for path in place.iterdir() if is_photo(path))
            if files:
                return files
            raise LikenessError(f"The folder `{name}` in {base} holds no photo; put in jpg, png, "
                                "webp, bmp, tif, heic, avif or gif files.")
    places = " and in ".join(str(base) for base in bases)
    raise LikenessError(f"The folder `{name}` is not in {places}; put photos of many other people "
                        "there or correct the name.")


NODES: list[type[io.ComfyNode]] = [LikenessImpostorBank]
