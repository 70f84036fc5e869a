"""The node that picks the best pictures of a batch by rule."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image

from ... import made_files, runtime
from ...errors import LikenessError
from ...faces.recognise import backends
from ...incoming import require_pictures
from ...media.images import to_image, to_uint8
from ...schema import ImpostorBankType, ReportType, SubjectType, schema
from ...sockets import Subject
from ..bank.bank import ImpostorBank
from ..score import report as reports
from ..score.axes import measure_axes
from ..score.report import LikenessReport
from ..score.score import rank, score_pictures, yardstick
from . import pick as picks
from .pick import PickRules
from .sheet import draw_picks

WHEN_NONE = ("error", "best one")


class LikenessPick(io.ComfyNode):
    """Pick the best pictures of a batch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessPick", feature="scoring", display_name="Likeness Pick", is_output_node=True,
            description="Takes a batch of pictures and gives the best of those that meet the rules "
                        "(likeness, no copy of a photo, a good face, different from each other), "
                        "the others apart, a sheet with the reason for each and a JSON report.",
            inputs=[
                io.Image.Input("images", tooltip="The pictures to choose from."),
                SubjectType.Input("subject", tooltip="Whom they should look like."),
                *_rules(),
                io.Combo.Input("when_none", options=list(WHEN_NONE), default="error",
                               tooltip="When no picture may be picked: stop with the reasons, or "
                                       "pick the most alike one all the same; the report says "
                                       "so."),
                io.Combo.Input("backend", options=backends.ids(), default=backends.BOTH,
                               tooltip="The face recogniser that judges: two together, or one that "
                                       "did not inject the face. Not used where `report` is "
                                       "connected."),
                ReportType.Input("report", optional=True,
                                 tooltip="The report of a Likeness Score of the same pictures, so "
                                         "that they are not scored again. `images` may be in the "
                                         "order that was scored, or its `ranked` output."),
                ImpostorBankType.Input("bank", optional=True,
                                       tooltip="Other people's faces; connect the one that Score "
                                               "has, so that verdicts agree. Not used where "
                                               "`report` is connected."),
            ],
            outputs=[
                io.Image.Output(display_name="accepted", tooltip="The picked pictures, best "
                                                                 "first."),
                io.Image.Output(display_name="rejected",
                                tooltip="The others, best first. When there are none, what is "
                                        "connected here does not run."),
                io.Image.Output(display_name="sheet",
                                tooltip="All pictures, the picked ones first, with the reasons."),
                io.String.Output(display_name="json", tooltip="The rules, and for each picture "
                                                              "whether it was picked and why."),
                io.Int.Output(display_name="count", tooltip="How many were picked."),
            ])

    @classmethod
    def fingerprint_inputs(cls, **_) -> str:
        return made_files.losses(runtime.running_node())

    @classmethod
    def execute(cls, images, subject: Subject, count: int, verdict: str, min_score: float,
                min_percentile: float, copies: str, max_copy_paste: float, quality: str,
                min_difference: int, when_none: str, backend: str,
                report: LikenessReport | None = None,
                bank: ImpostorBank | None = None) -> io.NodeOutput:
        require_pictures(images, "images")
        for name, value, known in (("when_none", when_none, WHEN_NONE),
                                   ("copies", copies, ("reject", "allow"))):
            if value not in known:
                raise LikenessError(f"`{name}` must be one of {', '.join(known)}; got `{value}`.")
        rules = PickRules(count, verdict, min_score, min_percentile, copies == "allow",
                          max_copy_paste, quality, min_difference)
        given = [to_uint8(image) for image in images]
        order = list(range(len(given)))
        if report is None:
            report = scored(given, subject, backend, bank)
        else:
            _check_subject(report, subject)
            order = picks.order_of(report, given)
        pictures = [given[place] for place in order]
        choices = picks.pick(report.scores, report.axes,
                             picks.patterns_of(pictures, report.scores), rules)
        if not any(choice.picked for choice in choices):
            if when_none == "error":
                raise picks.none_left(choices)
            choices = picks.best_one(choices, report.scores, report.axes, rules)
        told, sheet, place = _write(choices, rules, report, pictures, subject)
        made_files.remember(runtime.running_node(), [Path(told["sheet"]), Path(told["report"])])
        taken = [order[choice.index] for choice in choices if choice.picked]
        left = [order[choice.index] for choice in choices if not choice.picked]
        text = json.dumps(told, indent=1)
        return io.NodeOutput(images[taken], images[left] if left else ExecutionBlocker(None),
                             to_image(sheet), text, len(taken),
                             ui={"images": [place], **ui.PreviewText(text).as_dict()})


def _rules() -> list[io.Input]:
    default = PickRules()
    return [
        io.Int.Input("count", default=4, min=0, max=4096,
                     tooltip="How many pictures to pick at most. 0 picks all that meet the "
                             "rules."),
        io.Combo.Input("verdict", options=list(picks.VERDICTS), default=default.verdict,
                       tooltip="Which verdicts of the score may be picked. `keep` is as alike as "
                               "the subject's own photos; `any scored` leaves it to the limits "
                               "below."),
        io.Float.Input("min_score", default=default.min_score, min=-1.0, max=1.0, step=0.01,
                       tooltip="Least similarity, in the recogniser's own measure; -1 asks for "
                               "none. Prefer `verdict` or `min_percentile`, which mean the same "
                               "for every person."),
        io.Float.Input("min_percentile", default=default.min_percentile, min=0.0, max=100.0,
                       step=1.0, tooltip="Least share of the subject's own photos, in per cent, "
                                         "that are less alike than the picture; 0 asks for none."),
        io.Combo.Input("copies", options=["reject", "allow"], default="reject",
                       tooltip="What to do with pictures that show a reference photo again rather "
                               "than the person."),
        io.Float.Input("max_copy_paste", default=default.max_copy_paste, min=-1.0, max=1.0,
                       step=0.05,
                       tooltip="Highest copy-paste value: 0 is as near to the nearest reference "
                               "as to the held-out photos, 1 the reference itself and asks for "
                               "nothing. Needs held-out photos."),
        io.Combo.Input("quality", options=list(picks.QUALITIES), default=default.quality,
                       tooltip="How good the face must be by the rules of curation (blur, light, "
                               "size, closed eyes): not even a doubt, no rejection, or anything."),
        io.Int.Input("min_difference", default=default.min_difference, min=0, max=64,
                     tooltip="Bits of 64 by which the face pictures of two picks must differ at "
                             "least; repeats of a shot differ by less than 10. 0 allows repeats."),
    ]


def scored(pictures: list[np.ndarray], subject: Subject, backend: str,
           bank: ImpostorBank | None = None) -> LikenessReport:
    """Score pictures as Likeness Score does, without writing anything."""
    measure = yardstick(subject, backend, bank)
    scores = score_pictures(pictures, measure,
                            on_item=runtime.progress_callback(len(pictures)))
    ranked = rank(scores)
    return reports.build(ranked, [pictures[score.index] for score in ranked], measure,
                         measure_axes(pictures, scores, measure,
                                      on_item=lambda done: runtime.throw_if_cancelled()))


def _check_subject(report: LikenessReport, subject: Subject) -> None:
    if report.subject != subject.name:
        raise LikenessError(f"The report is about `{report.subject}`, the subject is "
                            f"`{subject.name}`; connect those that belong together.")


def _write(choices: list[picks.Choice], rules: PickRules, report: LikenessReport,
           pictures: list[np.ndarray], subject: Subject) -> tuple[dict, np.ndarray, dict[str, str]]:
    """Write sheet and JSON below output/likeness/<subject>; the last is the sheet's place."""
    subfolder = f"likeness/{subject.folder_name}"
    folder = runtime.contained(runtime.output_directory(), subfolder)
    file = folder / f"picks_{reports.next_number(folder, 'picks'):05}.png"
    sheet = draw_picks(choices, report, pictures)
    told = {**picks.as_json(choices, rules, report), "sheet": str(file),
            "report": str(file.with_suffix(".json"))}
    reports.write_png(file, Image.fromarray(sheet))
    reports.write_json(file.with_suffix(".json"), told)
    return told, sheet, {"filename": file.name, "subfolder": subfolder, "type": "output"}


NODES: list[type[io.ComfyNode]] = [LikenessPick]
