"""The nodes that measure techniques on the same pictures and put them into one table."""

from __future__ import annotations

import json
import math
from typing import Any

from comfy_api.latest import io, ui
from PIL import Image

from ... import made_files, runtime
from ...errors import LikenessError
from ...files import write_whole
from ...media.images import to_image
from ...schema import ComparisonType, MonitorType, SubjectType, TrainingSetType, schema
from ...sockets import Subject, TrainingSet
from . import table
from .measure import Technique, measure

Rows = tuple[Technique, ...]


class LikenessMeasureTechnique(io.ComfyNode):
    """Measure one technique."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessMeasureTechnique", feature="training",
            display_name="Likeness Measure Technique", is_output_node=True,
            description="Draws the monitor's pictures with a model, of the person and of the class "
                        "word alone, and measures likeness, copy-paste, diversity and what became "
                        "of the class word. One node for each technique, one after the other; the "
                        "last goes into Compare Techniques.",
            inputs=[
                io.Model.Input("model", tooltip="From Train; or the model before training, for a "
                                                "row to compare with."),
                io.Clip.Input("clip", tooltip="From Train, so that a new word is found."),
                io.Vae.Input("vae", tooltip="The model's VAE."),
                SubjectType.Input("subject", tooltip="Whom the pictures should look like."),
                MonitorType.Input("monitor", tooltip="Which pictures: prompts, seeds, size, "
                                                     "sampling, recogniser. The same for all rows, "
                                                     "or they cannot be compared."),
                TrainingSetType.Input("training_set", tooltip="Gives the pictures' size where the "
                                                              "monitor names none."),
                io.String.Input("label", default="", tooltip="What the row is called. Empty: the "
                                                             "technique's own name."),
                io.String.Input("report", default="", optional=True, force_input=True,
                                tooltip="Train's report: file size, time and memory. Nothing for a "
                                        "model that was not trained."),
                io.String.Input("trigger", default="", optional=True, force_input=True,
                                tooltip="Train's trigger, where a new word was trained."),
                ComparisonType.Input("before", optional=True,
                                     tooltip="The rows above this one."),
            ],
            outputs=[ComparisonType.Output(display_name="comparison",
                                           tooltip="All rows so far, for the next row or for "
                                                   "Compare Techniques.")])

    @classmethod
    def execute(cls, model: Any, clip: Any, vae: Any, subject: Subject, monitor: Any,
                training_set: TrainingSet, label: str, report: str = "", trigger: str = "",
                before: Rows = ()) -> io.NodeOutput:
        progress = runtime.Progress(2 * monitor.pictures)
        row = measure(label, model, clip, vae, subject, monitor,
                      max((item.bucket for item in training_set.items), key=math.prod), report,
                      trigger, lambda done, pixels: progress.update(done, Image.fromarray(pixels)))
        if row.label in {other.label for other in before}:
            raise LikenessError(f"Two rows are called `{row.label}`; give one another `label`.")
        text = json.dumps(row.as_dict(), indent=1)
        return io.NodeOutput((*before, row), ui=ui.PreviewText(text).as_dict())


class LikenessCompareTechniques(io.ComfyNode):
    """Put measured techniques into one table."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessCompareTechniques", feature="training",
            display_name="Likeness Compare Techniques", is_output_node=True,
            description="The table of all techniques that Measure Technique has measured, as a "
                        "picture with what each has drawn, as Markdown and as JSON; saved beside "
                        "the subject's other reports.",
            inputs=[
                ComparisonType.Input("comparison", tooltip="From the last Measure Technique."),
                SubjectType.Input("subject", tooltip="Whose folder takes the table."),
            ],
            outputs=[
                io.Image.Output(display_name="sheet", tooltip="The table with pictures; the best "
                                                              "likeness and the least cost are "
                                                              "marked."),
                io.String.Output(display_name="table", tooltip="The table as Markdown."),
                io.String.Output(display_name="json", tooltip="Every figure, and where the files "
                                                              "lie."),
            ])

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> str:
        return made_files.losses(runtime.running_node())

    @classmethod
    def execute(cls, comparison: Rows, subject: Subject) -> io.NodeOutput:
        folder = runtime.contained(runtime.output_directory() / "likeness", subject.folder_name)
        number = 1
        while (folder / f"techniques_{number:05}.json").exists():
            number += 1
        picture = folder / f"techniques_{number:05}.png"
        sheet = table.draw(comparison)
        told = {"techniques": [row.as_dict() for row in comparison], "sheet": str(picture),
                "report": str(picture.with_suffix(".json"))}
        text = json.dumps(told, indent=1)
        write_whole(picture, lambda part: Image.fromarray(sheet).save(part, "PNG"))
        write_whole(picture.with_suffix(".json"), lambda part: part.write_text(text, "utf-8"))
        made_files.remember(runtime.running_node(), [picture, picture.with_suffix(".json")])
        written = table.markdown(comparison)
        shown = {"filename": picture.name, "type": "output",
                 "subfolder": folder.relative_to(runtime.output_directory()).as_posix()}
        return io.NodeOutput(to_image(sheet), written, text,
                             ui={"images": [shown], **ui.PreviewText(text).as_dict()})


NODES: list[type[io.ComfyNode]] = [LikenessMeasureTechnique, LikenessCompareTechniques]
