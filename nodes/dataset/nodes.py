"""The first and the last node from photo files to a subject, and the list of all of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from comfy_api.latest import io, ui

from .. import runtime
from ..errors import LikenessError
from ..images import to_image
from ..schema import PhotoSetType, SubjectType, schema
from ..sockets import Photo, PhotoSet
from . import subject as subjects
from .caption_nodes import NODES as CAPTION
from .coach_nodes import NODES as COACH
from .crop_nodes import NODES as CROP
from .curate_nodes import NODES as CURATE
from .load import EXTENSIONS, fingerprint, list_photos, read_photos
from .overrides import FILE as VERDICTS
from .prepare_nodes import NODES as PREPARE
from .save_nodes import NODES as SAVE
from .saved import LoadedSet, is_saved, read_saved, set_files
from .side_files import kohya_photos, side_files, with_side_files

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
                    tooltip="A folder below the input directory, such as `anna`; its jpg, png, "
                            "webp, bmp, tif and heic files are read, those of sub-folders are "
                            "not, except those of a kohya training folder. `output/likeness/anna` "
                            "is a set that Save Photos wrote. Leave it empty when `files` is "
                            "used."),
                io.String.Input(
                    "files", default="", multiline=True,
                    tooltip="Uploaded photos instead of a folder: one file name per line, "
                            "relative to the input directory, as the upload returned it. Leave "
                            "it empty when `folder` is used."),
                io.Boolean.Input(
                    "side_files", default=True, optional=True,
                    tooltip="Take captions from photo.txt beside photo.jpg and masks from "
                            "masks/photo.png where they lie. Switch it off when such text files "
                            "mean something else. Sets from Save Photos always come whole."),
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
                                                                "per photo."),
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
        saved = saved_folder(folder, files)
        if saved is not None:
            loaded = read_saved(saved, folder.strip(),
                                runtime.progress_callback(len(set_files(saved))))
        else:
            paths, names = photo_files(folder, files)
            photos = read_photos(paths, names, folder.strip(),
                                 runtime.progress_callback(len(paths)))
            loaded = _with_side_files(photos) if side_files else LoadedSet(photos)
        photos = loaded.photos
        text = json.dumps({
            "folder": photos.folder, "saved_set": saved is not None,
            "photos": [_entry(photo, loaded.notes.get(photo.name, ""))
                       for photo in photos.photos],
            "missing": {name: note for name, note in loaded.notes.items()
                        if name not in {photo.name for photo in photos.photos}},
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
        if paths and not any(path.suffix.lower() in EXTENSIONS for path in place.iterdir()):
            return paths, [path.relative_to(place).as_posix() for path in paths]
        paths = list_photos(place, folder)
        return paths, [path.name for path in paths]
    paths = [runtime.contained(base, name) for name in names]
    for path, name in zip(paths, names, strict=True):
        if not path.is_file():
            raise LikenessError(f"The file `{name}` does not exist in {base}; upload it first or "
                                "correct the name.")
    return paths, names


class LikenessSubject(io.ComfyNode):
    """Make the subject that travels through the graph."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessSubject", feature="dataset", display_name="Likeness Subject",
            description="Takes curated photos and gives the subject: the words for this person, "
                        "the reference photos that train, the held-out photos that only judge, "
                        "face embeddings, how much the person's own photos differ, and the mean "
                        "face mesh. Needs at least two usable photos.",
            inputs=[
                PhotoSetType.Input("photos", tooltip="The judged photos from Curate Photos."),
                io.String.Input("name", default="subject",
                                tooltip="Names the person in files and reports; a folder of that "
                                        "name is made below output/likeness."),
                io.String.Input("trigger", default="ohwx",
                                tooltip="One word that will mean this person in prompts. Take one "
                                        "that means nothing else to the text encoder."),
                io.String.Input("class_noun", default="person",
                                tooltip="What the subject is: person, man, woman, girl, boy. It "
                                        "follows the trigger in captions and prompts."),
                io.Int.Input("held_out", default=2, min=0, max=50,
                             tooltip="How many photos never train nor are injected, spread over "
                                     "the head's angles; likeness to them is reported by "
                                     "itself. At least one photo remains to train; 2 to 4 of "
                                     "10 are enough, 0 trains on all."),
                io.Boolean.Input("include_unsure", default=False,
                                 tooltip="Also use photos that the curation called unsure. Turn "
                                         "it on when too few are kept and the sheet looks fine."),
            ],
            outputs=[
                SubjectType.Output(display_name="subject", tooltip="The person, for every node "
                                                                   "that asks for a subject."),
                io.Image.Output(display_name="sheet", tooltip="The reference and held-out photos."),
                io.String.Output(display_name="report",
                                 tooltip="JSON: words, files of both parts, similarity of each "
                                         "photo to the others."),
            ])

    @classmethod
    def execute(cls, photos, name, trigger, class_noun, held_out, include_unsure):
        settings = subjects.SubjectSettings(name, trigger, class_noun, held_out, include_unsure)
        usable = subjects.usable_photos(photos, include_unsure)
        subject = subjects.make_subject(photos, settings, runtime.progress_callback(len(usable)))
        sheet = to_image(subjects.subject_sheet(subject))
        text = json.dumps(subjects.report(subject, settings), indent=1)
        shown = ui.PreviewImage(sheet, cls=cls).as_dict() | ui.PreviewText(text).as_dict()
        return io.NodeOutput(subject, sheet, text, ui=shown)


NODES: list[type[io.ComfyNode]] = [
    LikenessLoadPhotos, *CURATE, *COACH, *CROP, *CAPTION, *SAVE, LikenessSubject, *PREPARE]
