"""The node that scores pictures against a subject, ranks them and saves them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image

from ... import made_files, runtime
from ...errors import LikenessError
from ...faces.recognise import backends
from ...incoming import require_pictures
from ...media.images import to_image, to_uint8
from ...schema import ImpostorBankType, ReportType, SubjectType, schema
from ...sockets import Subject
from ..bank.bank import ImpostorBank
from . import report as reports
from .axes import Axes, measure_axes
from .judges import NONE, SecondOpinion, second_opinion
from .prompt import Clip, prompt_fit
from .report import LikenessReport
from .score import MAX_YAW, SEVERAL, Score, Yardstick, rank, score_pictures, yardstick
from .sheet import draw_sheet

SUBJECT_FIELD = "%subject%"  # in a save prefix: the subject's folder name


class LikenessScore(io.ComfyNode):
    """Score, rank and save pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessScore", feature="scoring", display_name="Likeness Score",
            description="Measures how much each picture looks like the subject, says keep, unsure "
                        "or reject with the rates at which strangers pass and true pictures are "
                        "missed, and beside likeness always what is copied from a photo, how "
                        "diverse the batch is, how well it follows the prompt and how good the "
                        "faces are. Ranks and saves the pictures, and writes a sheet and a JSON "
                        "report. A picture without a face gets a status and never a number.",
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="The pictures to score, in any order."),
                SubjectType.Input("subject", tooltip="Whom they should look like."),
                io.Combo.Input(
                    "backend", options=backends.ids(), default=backends.BOTH,
                    tooltip="The face recogniser that judges: two together, and the report says "
                            "where they disagree. One alone should not be the one that the face "
                            "adapter or an identity loss used, or it praises its own work. "
                            + backends.choices_text()),
                io.Combo.Input(
                    "several_faces", options=list(SEVERAL), default="largest",
                    tooltip="Which face counts when a picture has several: the largest, the one "
                            "most like the subject, none (the picture stays unscored), or stop "
                            "with an error."),
                io.Float.Input(
                    "max_yaw", default=MAX_YAW, min=5.0, max=90.0, step=1.0,
                    tooltip="Degrees a head may be turned aside and still be scored. Recognisers "
                            "are unreliable beyond about 35; raise it only to look at profiles."),
                io.String.Input(
                    "save_prefix", default=f"likeness/{SUBJECT_FIELD}/headshot",
                    tooltip="Where the pictures are saved below the output folder, best first; "
                            f"{SUBJECT_FIELD} becomes the subject's name. Empty saves no pictures; "
                            "sheet and report are always written."),
                ImpostorBankType.Input(
                    "bank", optional=True,
                    tooltip="Other people's faces from Likeness Impostor Bank, to state how many "
                            "strangers pass. The judges that come with the pack bring 535 of "
                            "their own; connect one for another recogniser, or one of people "
                            "like the subject."),
                io.Combo.Input(
                    "second_backend", options=[NONE, *backends.ids()], default=NONE, optional=True,
                    tooltip="A second recogniser that judges the same faces; the report shows "
                            "where both differ. Choose one that had no part in making the "
                            "pictures. " + backends.choices_text()),
                io.ClipVision.Input(
                    "clip_vision", optional=True,
                    tooltip="The vision tower of a full CLIP (CLIP-L or CLIP-G), to measure how "
                            "well the pictures follow `prompt`; also counts how many different "
                            "pictures CLIP sees."),
                io.Clip.Input(
                    "clip", optional=True,
                    tooltip="The text encoder of the same CLIP, from a file that holds its text "
                            "projection. Not one that was trained on the subject."),
                io.String.Input(
                    "prompt", default="", multiline=True, optional=True,
                    tooltip="What the pictures were asked to show. The trigger counts as the class "
                            "noun. Needed when `clip_vision` and `clip` are connected."),
            ],
            outputs=[
                io.Image.Output(display_name="sheet", tooltip="The ranked contact sheet."),
                io.Image.Output(display_name="ranked", tooltip="The pictures, best first."),
                io.Int.Output(display_name="accepted",
                              tooltip="How many are `keep`; they are the first of `ranked`."),
                io.String.Output(display_name="json",
                                 tooltip="The report: for each picture file, status, score, "
                                         "percentile, verdict; the thresholds; where it lies."),
                ReportType.Output(display_name="report", tooltip="The same for other nodes."),
            ])

    @classmethod
    def fingerprint_inputs(cls, **_) -> str:
        return made_files.losses(runtime.running_node())

    @classmethod
    def execute(cls, images, subject, backend, several_faces, max_yaw, save_prefix, bank=None,
                second_backend=NONE, clip_vision=None, clip=None, prompt=""):
        require_pictures(images, "images")
        measures = yardsticks(subject, backend, second_backend, bank)
        towers = both_towers(clip_vision, clip)
        pictures = [to_uint8(image) for image in images]
        progress = runtime.progress_callback(len(pictures) * len(measures))
        scores = score_pictures(pictures, measures[0], several_faces, max_yaw, progress)
        second = None
        if len(measures) > 1:
            second = second_opinion(pictures, scores, backend, measures[1],
                                    lambda done: progress(len(pictures) + done))
        fit = None
        if towers is not None:
            fit = prompt_fit(images, towers, prompt, subject, runtime.throw_if_cancelled)
        axes = measure_axes(pictures, scores, measures[0], fit,
                            lambda done: runtime.throw_if_cancelled())
        ranked = rank(scores)
        order = [score.index for score in ranked]
        saved = save_pictures(images[order], subject.folder_name, save_prefix, cls)
        report, sheet, shown = write_report(ranked, measures[0], axes, second,
                                            [pictures[i] for i in order], saved)
        made_files.remember(runtime.running_node(),
                            [*report.files, Path(report.data["report"]),
                             Path(report.data["sheet"])])
        text = json.dumps(report.data, indent=1)
        return io.NodeOutput(to_image(np.asarray(sheet)), images[order], report.accepted, text,
                             report, ui={"images": [shown, *saved],
                                         **ui.PreviewText(text).as_dict()})


def yardsticks(subject: Subject, backend: str, second_backend: str,
               bank: ImpostorBank | None) -> list[Yardstick]:
    """The subject by one judge or two; the bank goes to the judge it was made for.

    Raises:
        LikenessError: an unknown recogniser, the same one twice, or a bank for neither.
    """
    judges = [backend] if second_backend == NONE else [backend, second_backend]
    if len(set(judges)) < len(judges):
        raise LikenessError(f"Both judges are {backend}; choose another `second_backend`, or "
                            f"{NONE}.")
    if bank is not None and bank.backend not in judges:
        raise LikenessError(f"The connected bank was made with {bank.backend}, which does not "
                            f"judge here; make one with {' or '.join(judges)}.")
    return [yardstick(subject, judge, bank if bank and bank.backend == judge else None)
            for judge in judges]


def both_towers(clip_vision: object, clip: object) -> Clip | None:
    """Both towers of CLIP, or neither.

    Raises:
        LikenessError: only one is connected.
    """
    if (clip_vision is None) != (clip is None):
        missing = "clip" if clip is None else "clip_vision"
        raise LikenessError(f"`{missing}` is not connected; to measure how well the pictures "
                            "follow the prompt connect both towers of one CLIP, or neither.")
    return None if clip is None else Clip(clip_vision, clip)


def save_pictures(images: torch.Tensor, folder_name: str, prefix: str,
                  cls: type[io.ComfyNode]) -> list[dict[str, str]]:
    """Save the ranked pictures as PNG with their workflow; none when the prefix is empty."""
    if not prefix.strip():
        return []
    prefix = prefix.replace(SUBJECT_FIELD, folder_name)
    folder = runtime.contained(runtime.output_directory(), prefix).parent
    before = set(folder.glob("*.png"))
    try:
        return ui.ImageSaveHelper.get_save_images_ui(images, prefix, cls).results
    except OSError as err:
        for partial in set(folder.glob("*.png")) - before:
            partial.unlink(missing_ok=True)
        raise LikenessError(f"The pictures could not be saved below output/{prefix}: {err}; free "
                            "some disk space or choose another `save_prefix`.") from err


def write_report(ranked: list[Score], measure: Yardstick, axes: Axes,
                 second: SecondOpinion | None, pictures: list[np.ndarray],
                 saved: list[dict[str, str]]) -> tuple[LikenessReport, Image.Image, dict[str, str]]:
    """Write sheet and report below output/likeness/<subject>; the last is the sheet's place."""
    output = runtime.output_directory()
    subfolder = Path("likeness") / measure.subject.folder_name
    number = reports.next_number(output / subfolder, "scores")
    file = output / subfolder / f"scores_{number:05}.json"
    report = reports.build(
        ranked, pictures, measure, axes,
        [output / place["subfolder"] / place["filename"] for place in saved],
        {"report": str(file), "sheet": str(file.with_suffix(".png"))}, second)
    sheet = draw_sheet(report, pictures)
    reports.write_png(file.with_suffix(".png"), sheet)
    reports.write_json(file, report.data)
    return report, sheet, {"filename": f"{file.stem}.png", "subfolder": subfolder.as_posix(),
                           "type": "output"}


NODES: list[type[io.ComfyNode]] = [LikenessScore]
