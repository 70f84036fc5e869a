"""The node that makes the Subject."""

from __future__ import annotations

import json
from pathlib import Path

import comfy.sd1_clip
from comfy_api.latest import io, ui

from ... import runtime
from ...media.images import to_image
from ...schema import PhotoSetType, SubjectType, schema
from . import subject as subjects
from .trigger import trigger_warnings


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
                                         "photo to the others, and warnings about the trigger."),
            ])

    @classmethod
    def execute(cls, photos, name, trigger, class_noun, held_out, include_unsure):
        settings = subjects.SubjectSettings(name, trigger, class_noun, held_out, include_unsure)
        usable = subjects.usable_photos(photos, include_unsure)
        subject = subjects.make_subject(photos, settings, runtime.progress_callback(len(usable)))
        sheet = to_image(subjects.subject_sheet(subject))
        warnings = trigger_warnings(subject.trigger, _clip_vocabulary())
        text = json.dumps({**subjects.report(subject, settings), "warnings": warnings}, indent=1)
        shown = ui.PreviewImage(sheet, cls=cls).as_dict() | ui.PreviewText(text).as_dict()
        return io.NodeOutput(subject, sheet, text, ui=shown)


def _clip_vocabulary() -> dict[str, int]:
    """The tokens of every CLIP, which lie with the host's code and need no model."""
    path = Path(comfy.sd1_clip.__file__).with_name("sd1_tokenizer") / "vocab.json"
    return json.loads(path.read_text("utf-8"))


NODES: list[type[io.ComfyNode]] = [LikenessSubject]
