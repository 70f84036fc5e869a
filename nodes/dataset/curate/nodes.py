"""The node that judges photos."""

from __future__ import annotations

import json

from comfy_api.latest import io, ui

from ... import runtime
from ...media.images import to_image
from ...quality.rules import SEVERAL, Rules
from ...schema import PhotoSetType, schema
from .curate import curate
from .overrides import read_overrides
from .report import key_of, report, shown, write_report
from .sheet import curation_sheet

_DEFAULTS = Rules()
# A face is unsure from this much below the distance at which it is somebody else.
_UNSURE_BAND = round(_DEFAULTS.stranger[1] - _DEFAULTS.stranger[0], 4)


class LikenessCuratePhotos(io.ComfyNode):
    """Judge every photo and say why."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessCuratePhotos", feature="dataset", display_name="Likeness Curate Photos",
            description="Takes photos, finds the face in each and says keep, unsure or reject "
                        "with the reason: no face, several faces, too small, cut off, dark, "
                        "bright, blurred, enlarged, strongly compressed, covered, scribbled "
                        "on, drawn, eyes closed, turned aside, the same shot twice, somebody "
                        "else. Your own verdicts stand above it. Gives the judged photos, a "
                        "contact sheet and a JSON report.",
            is_output_node=True,
            inputs=[
                PhotoSetType.Input("photos", tooltip="The photos from Load Photos."),
                io.Int.Input(
                    "min_face", default=_DEFAULTS.min_face, min=16, max=2048,
                    tooltip="Pixels: how wide a face must be; judged by the distance of the eyes, "
                            "0.45 of it, which turning the head does not change. Up to a quarter "
                            "narrower is unsure, below that rejected. Raise it to 256 for "
                            "training at 1024, lower it when only small photos exist."),
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
                    tooltip="What to do with a photo where another face is at least 40 % as wide "
                            "as the person's: reject it, call it unsure, use the largest face "
                            "whoever it is, or use the subject, the face like those of the other "
                            "photos."),
                io.Float.Input(
                    "max_distance", default=_DEFAULTS.stranger[1], min=0.2, max=1.5, step=0.01,
                    tooltip="How far a face may be from the centre of the other photos' faces "
                            "(dlib's and MobileFaceNet's embeddings together, on dlib's scale) "
                            "before it is somebody else; from "
                            f"{_UNSURE_BAND:g} below it is unsure. One person's photos lie at 0.2 "
                            "to 0.5, other people from 0.6; raise it when the person's looks "
                            "changed much over the years."),
                io.Int.Input(
                    "duplicate_bits", default=_DEFAULTS.duplicate_bits, min=-1, max=32,
                    tooltip="Of the 64 bits of the aligned face's perceptual hash, how many may "
                            "differ in two photos of the same shot. Re-crops differ in 2 to 8, "
                            "other shots in 16 and more, and their embeddings and poses must "
                            "be close too. Mirror images count; -1 keeps duplicates."),
                io.Int.Input(
                    "training_size", default=0, min=0, max=4096, step=64, optional=True,
                    tooltip="Pixels: the side of the training pictures, when whole photos are "
                            "trained on. `min_face` then asks for the face as it is after the "
                            "photo was brought to that size. Leave it at 0 when photos are cut to "
                            "the head or the shoulders."),
                io.String.Input(
                    "overrides", default="", multiline=True, optional=True,
                    tooltip="Your own verdicts, which stand above the judge's: one line per photo "
                            "as `IMG_31.jpg: keep`, `unsure` or `reject`, with a reason behind it "
                            "if you like. The same lines in a file verdicts.txt beside the photos "
                            "count in every workflow; what stands here wins."),
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
                duplicate_bits, training_size=0, overrides=""):
        rules = Rules(min_face=min_face, min_sharpness=min_sharpness,
                      soft_sharpness=soft_sharpness, several_faces=several_faces,
                      stranger=(round(max_distance - _UNSURE_BAND, 4), max_distance),
                      duplicate_bits=duplicate_bits, training_size=training_size)
        own = read_overrides(overrides, photos.photos)
        judged = curate(photos, rules, runtime.progress_callback(len(photos.photos)), own,
                        runtime.throw_if_cancelled)
        file = runtime.output_directory() / "likeness" / f"curation-{key_of(judged, rules)}.json"
        data = {**report(judged, rules, own.notes), "report": str(file)}
        sheet = curation_sheet(judged, data["summary"])
        text = json.dumps(data, indent=1)
        write_report(file, text, sheet)
        saved = {"filename": f"{file.stem}.png", "subfolder": "likeness", "type": "output"}
        preview = ui.PreviewText(json.dumps(shown(data), indent=1))
        return io.NodeOutput(judged, to_image(sheet), text, len(judged.kept),
                             ui={"images": [saved]} | preview.as_dict())


NODES: list[type[io.ComfyNode]] = [LikenessCuratePhotos]
