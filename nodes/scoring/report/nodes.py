"""The node that writes one page and one JSON for a whole run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image

from ... import made_files, runtime
from ...errors import LikenessError
from ...incoming import require_pictures
from ...media.images import read_photo, to_image, to_uint8
from ...schema import ReportType, SubjectType, schema
from ...sockets import Subject
from ..pick.pick import order_of
from ..score.report import LikenessReport, next_number, photo_entries, write_json, write_png
from .page import Material, draw_page

_TRAIN, _COACH, _SWEEP = "training_report", "coach_report", "sweep"
# What the JSON of each input must hold, and which output gives it.
_FROM = {_TRAIN: (("method", "steps", "recipe"), "`report` of Likeness Train"),
         _COACH: (("headline", "score", "coverage"), "`report` of Likeness Coach"),
         _SWEEP: (("columns", "advice", "flexibility"), "`json` of Likeness Sweep")}


class LikenessReportNode(io.ComfyNode):
    """Write a run's page."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessReport", feature="scoring", display_name="Likeness Report",
            is_output_node=True,
            description="Puts a whole run on one page and into one JSON: the photos used, what "
                        "they cover, the training curve, the strength sweep, the headshots ranked "
                        "with score, percentile and false-accept rate, the numbers and the "
                        "settings. What is not connected is left out.",
            inputs=[
                ReportType.Input("report", tooltip="The report of Likeness Score."),
                SubjectType.Input("subject", tooltip="Whom it is about; gives the photos."),
                io.String.Input("title", default="Likeness report",
                                tooltip="Stands on top of the page."),
                io.Image.Input("images", optional=True,
                               tooltip="The pictures that were scored, in their order or as "
                                       "`ranked`. Without them the files that Score has saved are "
                                       "shown."),
                io.String.Input(_TRAIN, default="", optional=True, force_input=True,
                                tooltip="`report` of Likeness Train: draws loss and looks and "
                                        "lists the recipe."),
                io.String.Input(_COACH, default="", optional=True, force_input=True,
                                tooltip="`report` of Likeness Coach: draws what the photos "
                                        "cover and what is missing."),
                io.String.Input(_SWEEP, default="", optional=True, force_input=True,
                                tooltip="`json` of Likeness Sweep: draws both curves and the "
                                        "advice."),
            ],
            outputs=[
                io.Image.Output(display_name="page", tooltip="The page, 1400 pixels wide."),
                io.String.Output(display_name="json",
                                 tooltip="Everything on the page as one JSON, and where both "
                                         "files lie."),
            ])

    @classmethod
    def fingerprint_inputs(cls, **_) -> str:
        return made_files.losses(runtime.running_node())

    @classmethod
    def execute(cls, report: LikenessReport, subject: Subject, title: str,
                images: torch.Tensor | None = None, training_report: str = "",
                coach_report: str = "", sweep: str = "") -> io.NodeOutput:
        if report.subject != subject.name:
            raise LikenessError(f"The report is about `{report.subject}`, the subject is "
                                f"`{subject.name}`; connect those that belong together.")
        told = {name: _parsed(name, text) for name, text in (
            (_TRAIN, training_report), (_COACH, coach_report), (_SWEEP, sweep))}
        material = Material(title.strip() or subject.name, subject, report,
                            _pictures(report, images), told[_TRAIN], _history(told[_TRAIN]),
                            told[_COACH], told[_SWEEP])
        page = draw_page(material)
        data, place = _write(material, page)
        made_files.remember(runtime.running_node(), [Path(data["page"]), Path(data["report"])])
        text = json.dumps(data, indent=1)
        return io.NodeOutput(to_image(page), text,
                             ui={"images": [place], **ui.PreviewText(text).as_dict()})


def _parsed(name: str, text: str) -> dict[str, Any] | None:
    """The JSON of an input; None when it is not connected.

    Raises:
        LikenessError: it is something else.
    """
    if not text or not text.strip():
        return None
    needed, source = _FROM[name]
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or any(key not in found for key in needed):
        raise LikenessError(f"`{name}` is not what {source} gives; connect that output, or "
                            "nothing.")
    return found


def _history(told: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Every step of a training run, from the file that its report names; None when it is gone."""
    if not told or not told.get("history"):
        return None
    output, file = runtime.output_directory(), Path(told["history"]).resolve()
    if output not in file.parents:
        raise LikenessError(f"The training report names {file}, which lies outside the output "
                            "folder; connect the `report` of Likeness Train itself.")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "steps" in found else None


def _pictures(report: LikenessReport, images: torch.Tensor | None) -> dict[int, np.ndarray]:
    """The scored pictures by number: those given, or else those that Score has saved."""
    if images is not None:
        given = [to_uint8(image) for image in require_pictures(images, "images")]
        order = order_of(report, given)
        return {index: given[place] for index, place in enumerate(order)}
    found = {}
    for score, file in zip(report.scores, report.files, strict=False):  # none when none was saved
        try:
            found[score.index] = read_photo(file)
        except OSError:
            continue  # the page says that there is no picture
    return found


def _write(material: Material, page: np.ndarray) -> tuple[dict[str, Any], dict[str, str]]:
    """Write page and JSON below output/likeness/<subject>; the last is the page's place."""
    subject = material.subject
    subfolder = f"likeness/{subject.folder_name}"
    folder = runtime.contained(runtime.output_directory(), subfolder)
    file = folder / f"report_{next_number(folder, 'report'):05}.png"
    data = {
        "format": 1, "kind": "likeness_report", "title": material.title, "subject": subject.name,
        "trigger": subject.trigger, "class_noun": subject.class_noun,
        "photos": photo_entries(subject),
        "score": material.report.data, "training": material.training,
        "coverage": material.coverage, "sweep": material.sweep,
        "page": str(file), "report": str(file.with_suffix(".json"))}
    write_png(file, Image.fromarray(page))
    write_json(file.with_suffix(".json"), data)
    return data, {"filename": file.name, "subfolder": subfolder, "type": "output"}


NODES: list[type[io.ComfyNode]] = [LikenessReportNode]
