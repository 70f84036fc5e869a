"""The first and the last node from photo files to a subject, and the list of all of them."""

from __future__ import annotations

import json
from pathlib import Path

from comfy_api.latest import io, ui

from .. import runtime
from ..errors import LikenessError
from ..images import to_image
from ..schema import PhotoSetType, SubjectType, schema
from . import subject as subjects
from .coach_nodes import NODES as COACH
from .curate_nodes import NODES as CURATE
from .load import fingerprint, list_photos, read_photos
from .prepare_nodes import NODES as PREPARE


class LikenessLoadPhotos(io.ComfyNode):
    """Load a person's photos from the input directory."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessLoadPhotos", feature="dataset", display_name="Likeness Load Photos",
            description="Takes a folder or a list of uploaded files below the host's input "
                        "directory and gives the photos of one person in a stable order, turned "
                        "upright. A file that cannot be read gets a verdict with the reason.",
            inputs=[
                io.String.Input(
                    "folder", default="",
                    tooltip="A folder below the input directory, such as `anna`; its jpg, png, "
                            "webp, bmp, tif and heic files are read, those of sub-folders are "
                            "not. Leave it empty when `files` is used."),
                io.String.Input(
                    "files", default="", multiline=True,
                    tooltip="Uploaded photos instead of a folder: one file name per line, "
                            "relative to the input directory, as the upload returned it. Leave "
                            "it empty when `folder` is used."),
            ],
            outputs=[
                PhotoSetType.Output(display_name="photos",
                                    tooltip="The photos, not judged yet; goes into Curate Photos."),
                io.Int.Output(display_name="count", tooltip="How many files there are, broken ones "
                                                            "included."),
                io.String.Output(display_name="report", tooltip="JSON: file, size in pixels and "
                                                                "what is wrong, per photo."),
            ])

    @classmethod
    def validate_inputs(cls, folder, files):
        if folder is None or files is None:  # linked: known only when the node runs
            return True
        try:
            photo_files(folder, files)
        except LikenessError as err:
            return str(err)
        return True

    @classmethod
    def fingerprint_inputs(cls, folder, files):
        try:
            return fingerprint(photo_files(folder, files)[0])
        except (LikenessError, TypeError, AttributeError):  # linked inputs arrive as None
            return float("nan")  # unknown: run again

    @classmethod
    def execute(cls, folder, files):
        paths, names = photo_files(folder, files)
        photos = read_photos(paths, names, folder.strip(), runtime.progress_callback(len(paths)))
        text = json.dumps({"folder": photos.folder, "photos": [
            {"file": str(photo.file), "name": photo.name, "size": [photo.width, photo.height],
             "reasons": [reason.text for reason in photo.reasons]} for photo in photos.photos
        ]}, indent=1)
        return io.NodeOutput(photos, len(photos.photos), text, ui=ui.PreviewText(text))


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
        paths = list_photos(runtime.contained(base, folder), folder)
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
    LikenessLoadPhotos, *CURATE, *COACH, LikenessSubject, *PREPARE]
