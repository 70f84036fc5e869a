"""The nodes that select photos and say which to take next."""

from __future__ import annotations

import hashlib
import json

from comfy_api.latest import io, ui

from ... import made_files, runtime
from ...files import write_whole
from ...media.images import to_image
from ...schema import PhotoSetType, schema
from . import coach, select
from .sheet import coach_page, write_page


class LikenessSelectPhotos(io.ComfyNode):
    """Pick the photos that together show most."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessSelectPhotos", feature="dataset", display_name="Likeness Select Photos",
            description="Takes curated photos and picks the best ones by what they show together "
                        "(pose, expression, light, distance, place) and how good they are. The "
                        "others come out as rejected, with what they are like. Gives the photos, "
                        "a sheet and a JSON report.",
            is_output_node=True,
            inputs=[
                PhotoSetType.Input("photos", tooltip="The judged photos from Curate Photos."),
                io.Int.Input(
                    "count", default=20, min=1, max=5000,
                    tooltip="How many photos to pick; with fewer usable ones all are picked. 7 to "
                            "25 are good: more teach mostly what is known already."),
                io.Float.Input(
                    "quality_weight", default=0.3, min=0.0, max=2.0, step=0.05,
                    tooltip="How much a sharp, large, uncovered face counts against something not "
                            "shown yet. 0 looks at variety alone; raise it when soft photos are "
                            "picked."),
                io.Boolean.Input(
                    "include_unsure", default=False,
                    tooltip="Also pick from photos that the curation called unsure. They stay "
                            "unsure: turn on the same input of Subject as well."),
            ],
            outputs=[
                PhotoSetType.Output(display_name="photos",
                                    tooltip="All photos; those not picked are rejected by the "
                                            "rule not_selected, behind the curation's reasons."),
                io.Image.Output(display_name="sheet", tooltip="The picked photos in their order, "
                                                              "then those passed over, with why."),
                io.String.Output(display_name="report",
                                 tooltip="JSON: picked and passed photos with reason, gain, "
                                         "quality and the curation's verdict; the diversity of "
                                         "the picked ones."),
            ])

    @classmethod
    def execute(cls, photos, count, quality_weight, include_unsure):
        selection = select.select(photos, count, quality_weight, include_unsure,
                                  runtime.progress_callback(len(photos.photos)))
        sheet = to_image(select.selection_sheet(selection))
        text = json.dumps(select.report(selection, photos), indent=1)
        shown = ui.PreviewImage(sheet, cls=cls).as_dict() | ui.PreviewText(text).as_dict()
        return io.NodeOutput(selection.photos, sheet, text, ui=shown)


class LikenessCoach(io.ComfyNode):
    """Say which photos to take next."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessCoach", feature="dataset", display_name="Likeness Coach",
            description="Takes curated photos and says what they show of the person, how diverse "
                        "they are, and which photos to take next, in plain words and in the order "
                        "of what each would add. Gives a page to print, the advice, a JSON report "
                        "and the score.",
            is_output_node=True,
            inputs=[
                PhotoSetType.Input("photos", tooltip="The judged photos from Curate Photos or "
                                                     "Select Photos."),
                io.Boolean.Input(
                    "include_unsure", default=False,
                    tooltip="Also count photos that the curation called unsure, such as profiles; "
                            "set it as on Subject."),
            ],
            outputs=[
                io.Image.Output(display_name="page", tooltip="One page in A4 proportions: the "
                                                             "photos by head pose, bars, the "
                                                             "shooting list."),
                io.String.Output(display_name="advice", tooltip="The same advice in plain words."),
                io.String.Output(display_name="report",
                                 tooltip="JSON: coverage, missing parts, shots with what each "
                                         "adds, photos to take again, limits; also written to "
                                         "output/likeness/coach-<key>.json with the page beside "
                                         "it."),
                io.Float.Output(display_name="score",
                                tooltip="Diversity of the set: 0 for one photo however often "
                                        "repeated, 100 for eight and more that differ in "
                                        "everything; from 70 a complete set is done."),
            ])

    @classmethod
    def fingerprint_inputs(cls, **_) -> str:
        return made_files.losses(runtime.running_node())

    @classmethod
    def execute(cls, photos, include_unsure):
        advice = coach.advise(photos, include_unsure, runtime.throw_if_cancelled)
        page = coach_page(advice, photos, runtime.throw_if_cancelled)
        data = coach.report(advice, photos)
        key = hashlib.sha256(json.dumps([data, [photo.sha256 for photo in photos.photos]])
                             .encode()).hexdigest()[:12]
        file = runtime.output_directory() / "likeness" / f"coach-{key}.json"
        text = json.dumps({**data, "report": str(file)}, indent=1)
        write_page(file.with_suffix(".png"), page)
        write_whole(file, lambda partial: partial.write_text(text, encoding="utf-8"))
        made_files.remember(runtime.running_node(), [file, file.with_suffix(".png")])
        saved = {"filename": f"{file.stem}.png", "subfolder": "likeness", "type": "output"}
        shown = {"images": [saved]} | ui.PreviewText(advice.text).as_dict()
        return io.NodeOutput(to_image(page), advice.text, text, advice.coverage.diversity, ui=shown)


NODES: list[type[io.ComfyNode]] = [LikenessSelectPhotos, LikenessCoach]
