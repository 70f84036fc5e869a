"""The node that loads photos, or a set of them that was saved."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from comfy_api.latest import io, ui

from ... import runtime
from ...errors import LikenessError
from ...media.images import told_of_reading
from ...media.photo_files import photos_in
from ...schema import PhotoSetType, schema
from ...sockets import Photo, PhotoSet
from ..curate.overrides import FILE as VERDICTS
from ..files.left_out import left_out
from ..files.load import fingerprint, list_photos, read_photos
from ..files.side_files import kohya_photos, side_files, with_side_files
from .reading import LoadedSet, is_saved, read_saved, set_files

_SAVED = "output/likeness/"  # a folder that begins so lies in the host's output directory


class LikenessLoadPhotos(io.ComfyNode):
    """Load a person's photos from the input directory."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessLoadPhotos", feature="dataset", display_name="Likeness Load Photos",
            description="Takes a folder or a list of uploaded files below the host's input "
                        "directory and gives the photos of one person in a stable order, turned "
                        "upright. A file that cannot be read gets a verdict with the reason. A "
                        "folder that Save Photos wrote comes back with all that was known.",
            inputs=[
                io.String.Input(
                    "folder", default="",
                    tooltip="A folder below the input directory, such as `anna`; its photos are "
                            "read, whatever their names end in, those of sub-folders are not, "
                            "except those of a kohya training folder. `output/likeness/anna` "
                            "is a set that Save Photos wrote. Leave it empty when `files` is "
                            "used."),
                io.String.Input(
                    "files", default="", multiline=True,
                    tooltip="Uploaded photos instead of a folder: one file name per line, "
                            "relative to the input directory, as the upload returned it. Leave "
                            "it empty when `folder` is used."),
                io.Boolean.Input(
                    "side_files", default=True, optional=True,
                    tooltip="Take captions from photo.txt or photo.caption beside photo.jpg, and "
                            "masks from masks/photo.png or photo-masklabel.png. Switch it off "
                            "when such text files mean something else. Sets from Save Photos "
                            "always come whole."),
            ],
            outputs=[
                PhotoSetType.Output(display_name="photos",
                                    tooltip="The photos, not judged yet; goes into Curate Photos. "
                                            "Those of a saved set have their verdicts and can go "
                                            "straight into Subject."),
                io.Int.Output(display_name="count", tooltip="How many files there are, broken ones "
                                                            "included."),
                io.String.Output(display_name="report", tooltip="JSON: file, size in pixels, "
                                                                "caption, mask and what is wrong, "
                                                                "per photo; and what lies there "
                                                                "and was left out."),
            ])

    @classmethod
    def validate_inputs(cls, folder, files):
        if folder is None or files is None:  # linked: known only when the node runs
            return True
        try:
            if saved_folder(folder, files) is None:
                photo_files(folder, files)
        except LikenessError as err:
            return str(err)
        return True

    @classmethod
    def fingerprint_inputs(cls, folder, files, side_files=True):
        try:
            saved = saved_folder(folder, files)
            return fingerprint(set_files(saved) if saved else _all_files(folder, files))
        except (LikenessError, TypeError, AttributeError):  # linked inputs arrive as None
            return float("nan")  # unknown: run again

    @classmethod
    def execute(cls, folder, files, side_files=True):
        saved, others = saved_folder(folder, files), {}
        if saved is not None:
            loaded = read_saved(saved, folder.strip(),
                                runtime.progress_callback(len(set_files(saved))))
        else:
            paths, names = photo_files(folder, files)
            photos = read_photos(paths, names, folder.strip(),
                                 runtime.progress_callback(len(paths)))
            loaded = _told(_with_side_files(photos) if side_files else LoadedSet(photos))
            others = left_out(_place(folder.strip()), paths, side_files) if folder.strip() else {}
        photos = loaded.photos
        text = json.dumps({
            "folder": photos.folder, "saved_set": saved is not None,
            "photos": [_entry(photo, loaded.notes.get(photo.name, ""))
                       for photo in photos.photos],
            "missing": {name: note for name, note in loaded.notes.items()
                        if name not in {photo.name for photo in photos.photos}},
            "left_out": others,
        }, indent=1)
        return io.NodeOutput(photos, len(photos.photos), text, ui=ui.PreviewText(text))


def _entry(photo: Photo, note: str) -> dict[str, Any]:
    return {"file": str(photo.file), "name": photo.name, "size": [photo.width, photo.height],
            "verdict": photo.verdict.value if photo.verdict else None,
            "reasons": [reason.text for reason in photo.reasons], "caption": photo.caption,
            "mask": str(photo.mask) if photo.mask else None, "note": note}


def _with_side_files(photos: PhotoSet) -> LoadedSet:
    found = [with_side_files(photo) for photo in photos.photos]
    return LoadedSet(dataclasses.replace(photos, photos=tuple(photo for photo, _ in found)),
                     {photo.name: note for photo, note in found if note})


def _told(loaded: LoadedSet) -> LoadedSet:
    """With notes on what reading changes of a photo."""
    notes = dict(loaded.notes)
    for photo in loaded.photos.photos:
        said = told_of_reading(photo.file) if photo.sha256 else ""
        if said:
            notes[photo.name] = f"{notes.get(photo.name, '')} {said}".strip()
    return dataclasses.replace(loaded, notes=notes)


def _all_files(folder: str, files: str) -> list[Path]:
    paths = photo_files(folder, files)[0]
    verdicts = [place / VERDICTS for place in dict.fromkeys(path.parent for path in paths)]
    return paths + side_files(paths) + verdicts


def saved_folder(folder: str, files: str) -> Path | None:
    """The folder of a saved set that the widgets name; None when they name other photos.

    Raises:
        LikenessError: `folder` leaves the host's input directory or its output/likeness.
    """
    folder = folder.strip()
    if not folder or files.strip():
        return None
    place = _place(folder)
    return place if is_saved(place) else None


def _place(folder: str) -> Path:
    if folder.replace("\\", "/").startswith(_SAVED):
        return runtime.contained(runtime.output_directory() / "likeness", folder[len(_SAVED):])
    return runtime.contained(runtime.input_directory(), folder)


def photo_files(folder: str, files: str) -> tuple[list[Path], list[str]]:
    """The files that the widgets name, and their labels.

    Raises:
        LikenessError: nothing or both named; outside the input directory; missing; no photos.
    """
    base = runtime.input_directory()
    names = list(dict.fromkeys(line.strip() for line in files.splitlines() if line.strip()))
    folder = folder.strip()
    if bool(folder) == bool(names):
        given = "both are given" if folder else "both are empty"
        raise LikenessError(f"Give either `folder` or `files`; {given}.")
    if folder:
        place = _place(folder)
        paths = kohya_photos(place)
        if paths and not photos_in(place):
            return paths, [path.relative_to(place).as_posix() for path in paths]
        paths = list_photos(place, folder)
        return paths, [path.name for path in paths]
    paths = [runtime.contained(base, name) for name in names]
    for path, name in zip(paths, names, strict=True):
        if not path.is_file():
            raise LikenessError(f"The file `{name}` does not exist in {base}; upload it first or "
                                "correct the name.")
    return paths, names


NODES: list[type[io.ComfyNode]] = [LikenessLoadPhotos]
