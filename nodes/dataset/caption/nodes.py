"""The node that gives photos their captions and checks them."""

from __future__ import annotations

import json

from comfy_api.latest import io, ui

from ... import runtime
from ...media.images import to_image
from ...schema import PhotoSetType, schema
from ..curate.sheet import AMBER, GREEN, Card, draw_sheet
from . import describe as descriptions
from .caption import SUBJECT_WAYS
from .check import changeable
from .describe import EXISTING, ON_TRAIT, CaptionSettings, Described

_TEMPLATE = "photo of {subject}, {framing}, {pose}, {expression}, {light}"


class LikenessCaptionPhotos(io.ComfyNode):
    """Give every kept photo its caption."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessCaptionPhotos", feature="dataset", display_name="Likeness Caption Photos",
            description="Takes curated photos and gives them captions: from any captioner node, "
                        "from text files beside the photos, or from a template filled in for each "
                        "photo. Puts the trigger in and says which words keep the person from "
                        "being learned.",
            is_output_node=True, is_input_list=True,
            inputs=[
                PhotoSetType.Input("photos", tooltip="The judged photos from Curate Photos."),
                io.String.Input("trigger", default="ohwx",
                                tooltip="The one word that means this person, as in Subject. Take "
                                        "letters that are no word."),
                io.String.Input("class_noun", default="person",
                                tooltip="What the subject is, as in Subject: person, man, woman, "
                                        "girl, boy."),
                io.String.Input("template", default=_TEMPLATE, multiline=True,
                                tooltip="For photos without another caption; each line is one "
                                        "caption. Fields: {subject}, {trigger}, {class}, "
                                        "{framing}, {pose}, {expression}, {light}."),
                io.Combo.Input("subject_words", options=list(SUBJECT_WAYS),
                               default=SUBJECT_WAYS[0],
                               tooltip="Where trigger and class noun go in a caption that lacks "
                                       "the trigger: instead of the first word for somebody of "
                                       "the class (a man, the person), else in front; always in "
                                       "front; or nowhere, which is warned about."),
                io.Boolean.Input("side_cars", default=False,
                                 tooltip="Take captions from photo.txt or photo.caption beside "
                                         "photo.jpg where such a file lies; each line is one "
                                         "caption. A connected captioner comes first."),
                io.Combo.Input("existing", options=list(EXISTING), default=EXISTING[0],
                               tooltip="What becomes of captions that the photos carry already, "
                                       "from Load Photos: keep them unless a captioner or a text "
                                       "file gives another, or replace them by the template."),
                io.Combo.Input("on_trait", options=list(ON_TRAIT), default=ON_TRAIT[0],
                               tooltip="When a caption names what belongs to the person (hair or "
                                       "eye colour, beard, age ...) and would then not be "
                                       "learned: warn in the report, remove the words, or stop "
                                       "with an error."),
                io.String.Input("may_change", default="",
                                tooltip="Traits that prompts shall change later, so captions may "
                                        "name them: a comma separated list such as beard, hair "
                                        "colour."),
                io.Boolean.Input("include_unsure", default=False,
                                 tooltip="Also caption photos that the curation called unsure. Set "
                                         "it as in Crop Photos."),
                io.String.Input("captions", optional=True, force_input=True,
                                tooltip="One text per photo from any captioner (Florence-2, "
                                        "JoyCaption, WD14 ...) that was given the images of Crop "
                                        "Photos, in their order. An empty text leaves a photo to "
                                        "the other sources."),
            ],
            outputs=[
                PhotoSetType.Output(display_name="photos",
                                    tooltip="The photos with captions; for Subject, Save Photos."),
                io.Image.Output(display_name="sheet",
                                tooltip="Each photo with its caption, amber where something is "
                                        "wrong with it."),
                io.String.Output(display_name="report",
                                 tooltip="JSON: caption and its source per photo, warnings in one "
                                         "sentence each, and what was removed."),
            ])

    @classmethod
    def execute(cls, photos, trigger, class_noun, template, subject_words, side_cars, existing,
                on_trait, may_change, include_unsure, captions=None):
        # As a list node every input comes as a list; `captions` alone has more than one entry.
        settings = CaptionSettings(trigger[0], class_noun[0], template[0], subject_words[0],
                                   side_cars[0], existing[0], on_trait[0],
                                   changeable(may_change[0]), include_unsure[0])
        described = descriptions.describe(photos[0], captions, settings,
                                          runtime.progress_callback(len(photos[0].photos)))
        text = json.dumps(descriptions.report(described, settings), indent=1)
        sheet = to_image(_sheet(described))
        shown = ui.PreviewImage(sheet, cls=cls).as_dict() | ui.PreviewText(text).as_dict()
        return io.NodeOutput(described.photos, sheet, text, ui=shown)

    @classmethod
    def fingerprint_inputs(cls, side_cars=(False,), **_):
        # Which text files lie beside the photos is not known before the photos are.
        return float("nan") if side_cars is None or any(side_cars) else ""


def _sheet(described: Described):
    wrong = {name for finding in described.findings for name in finding.photos}
    cards = [Card(photo, described.sources[photo.name].upper(),
                  AMBER if photo.name in wrong else GREEN, photo.caption.splitlines()[0])
             for photo in described.photos.photos if photo.name in described.sources]
    return draw_sheet(cards, f"{len(cards)} captions,  {len(described.findings)} warnings")


NODES: list[type[io.ComfyNode]] = [LikenessCaptionPhotos]
