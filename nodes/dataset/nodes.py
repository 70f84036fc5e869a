"""The nodes from photo files to a subject; Prepare Training lies in prepare_nodes.py."""

from __future__ import annotations

import json
from pathlib import Path

from comfy_api.latest import io, ui

from .. import runtime
from ..errors import LikenessError
from ..images import to_image
from ..schema import PhotoSetType, SubjectType, schema
from . import curate as curation
from . import subject as subjects
from .judge import SEVERAL, Rules
from .load import fingerprint, list_photos, read_photos
from .prepare_nodes import NODES as PREPARE
from .sheet import curation_sheet

_DEFAULTS = Rules()
# A face is unsure from this much below the distance at which it is somebody else.
_UNSURE_BAND = round(_DEFAULTS.stranger[1] - _DEFAULTS.stranger[0], 4)


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


class LikenessCuratePhotos(io.ComfyNode):
    """Judge every photo and say why."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessCuratePhotos", feature="dataset", display_name="Likeness Curate Photos",
            description="Takes photos, finds the face in each and says keep, unsure or reject "
                        "with the reason: no face, several faces, too small, cut off, dark, "
                        "bright, blurred, turned aside, the same shot twice, somebody else. "
                        "Gives the judged photos, a contact sheet and a JSON report.",
            is_output_node=True,
            inputs=[
                PhotoSetType.Input("photos", tooltip="The photos from Load Photos."),
                io.Int.Input(
                    "min_face", default=_DEFAULTS.min_face, min=16, max=2048,
                    tooltip="Pixels: how wide a face must be. Up to a quarter narrower is unsure, "
                            "below that rejected. Raise it to 256 for training at 1024, lower it "
                            "when only small photos exist."),
                io.Float.Input(
                    "min_sharpness", default=_DEFAULTS.min_sharpness, min=0.0, max=1000.0,
                    step=5.0,
                    tooltip="Variance of the Laplacian on the face at 256 pixels; less is "
                            "rejected as blurred. Sharp photos have 200 and more, visibly blurred "
                            "ones below 40."),
                io.Float.Input(
                    "soft_sharpness", default=_DEFAULTS.soft_sharpness, min=0.0, max=1000.0,
                    step=5.0,
                    tooltip="The same measure; between `min_sharpness` and this a photo is "
                            "unsure. Lower it for old or low-resolution photos."),
                io.Combo.Input(
                    "several_faces", options=list(SEVERAL), default=_DEFAULTS.several_faces,
                    tooltip="What to do with a photo whose second face is at least 40 % as wide "
                            "as the largest: reject it, call it unsure, or use the largest face."),
                io.Float.Input(
                    "max_distance", default=_DEFAULTS.stranger[1], min=0.2, max=1.5, step=0.01,
                    tooltip="How far a face may be from the centre of the other photos' faces "
                            "(L2 distance of dlib embeddings) before it is somebody else; from "
                            "0.07 below it is unsure. One "
                            "person's photos lie at 0.2 to 0.5, other people from 0.6; raise it "
                            "when the person's looks changed much over the years."),
                io.Int.Input(
                    "duplicate_bits", default=_DEFAULTS.duplicate_bits, min=-1, max=32,
                    tooltip="Of the 64 bits of the aligned face's perceptual hash, how many may "
                            "differ in two photos of the same shot. Re-crops differ in 2 to 8, "
                            "other shots in 16 and more, and their embeddings must be close "
                            "too; -1 keeps duplicates."),
            ],
            outputs=[
                PhotoSetType.Output(display_name="photos", tooltip="The same photos with verdicts, "
                                                                   "reasons, faces and measures."),
                io.Image.Output(display_name="sheet", tooltip="The contact sheet with the verdict "
                                                              "on each photo."),
                io.String.Output(display_name="report",
                                 tooltip="JSON: verdict, reasons, measures and head pose per "
                                         "photo, counts, the limits; also written to "
                                         "output/likeness/curation-<key>.json, with "
                                         "the sheet beside it."),
                io.Int.Output(display_name="kept", tooltip="How many photos are kept."),
            ])

    @classmethod
    def execute(cls, photos, min_face, min_sharpness, soft_sharpness, several_faces, max_distance,
                duplicate_bits):
        rules = Rules(min_face=min_face, min_sharpness=min_sharpness,
                      soft_sharpness=soft_sharpness, several_faces=several_faces,
                      stranger=(round(max_distance - _UNSURE_BAND, 4), max_distance),
                      duplicate_bits=duplicate_bits)
        judged = curation.curate(photos, rules, runtime.progress_callback(len(photos.photos)))
        sheet = curation_sheet(judged)
        file = (runtime.output_directory() / "likeness"
                / f"curation-{curation.key_of(judged, rules)}.json")
        text = json.dumps({**curation.report(judged, rules), "report": str(file)}, indent=1)
        curation.write_report(file, text, sheet)
        sheet = to_image(sheet)
        shown = ui.PreviewImage(sheet, cls=cls).as_dict() | ui.PreviewText(text).as_dict()
        return io.NodeOutput(judged, sheet, text, len(judged.kept), ui=shown)


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
    LikenessLoadPhotos, LikenessCuratePhotos, LikenessSubject, *PREPARE]
