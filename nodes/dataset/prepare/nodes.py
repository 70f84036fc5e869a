"""The node that turns a Subject's reference photos into a cached training set."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
from comfy_api.latest import io, ui
from PIL import Image

from ... import made_files, runtime
from ...brackets import literal_tokens
from ...cache_limit import files_of, hold, limit_cache
from ...errors import LikenessError
from ...media.images import to_image
from ...schema import SubjectType, TrainingSetType, schema
from ...tensors import fingerprint, text_fingerprint
from ..caption.caption import DEFAULT_TEMPLATE
from ..caption.given import photo_captions, side_car_captions, typed_captions
from .cache import Encoders
from .crop import FRAMINGS
from .masks import MASKS
from .prepare import PreparedPhoto, PrepareSettings, prepare, report

_MEGABYTE = 2 ** 20


class LikenessPrepareTraining(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            "LikenessPrepareTraining", feature="dataset", display_name="Likeness Prepare Training",
            description="Takes a Subject; cuts each reference photo round the face, captions it "
                        "with the trigger, weights the face and encodes everything once. Out comes "
                        "a training set that lies on disk and is reused while nothing changes.",
            inputs=[
                SubjectType.Input("subject", tooltip="Whose reference photos train; held-out "
                                                     "photos stay out."),
                io.Vae.Input("vae", tooltip="The VAE of the model that will be trained."),
                io.Clip.Input("clip", tooltip="The text encoder of the model that will be "
                                              "trained; it encodes the captions."),
                io.Int.Input("resolution", default=1024, min=64, max=4096, step=64,
                             tooltip="Pixels: the square root of the largest crop area. Use 512 "
                                     "for SD1.5, 1024 for SDXL, SD3 and FLUX; lower saves memory."),
                io.Combo.Input("framing", options=list(FRAMINGS), default="head and shoulders",
                               tooltip="How much round the face is kept. Tighter learns the face "
                                       "faster, wider keeps the body's proportions."),
                io.String.Input("caption_template", default=DEFAULT_TEMPLATE, multiline=True,
                                tooltip="Words for every photo; each line is one more caption "
                                        "of it, and training draws among them. Fields: {subject}, "
                                        "{trigger}, {class}, {framing}, {pose}, {expression}. What "
                                        "is named here is not learned as part of the person."),
                io.String.Input("captions", default="", multiline=True, optional=True,
                                tooltip="Your own captions in place of the template: one \"file "
                                        "name: caption\" per line, the same name again for another "
                                        "caption, or a JSON object. The fields of the template "
                                        "work here too. Empty: the photo's own caption (from "
                                        "Caption Photos or Load Photos), else the template."),
                io.Boolean.Input("caption_files", default=False, optional=True,
                                 tooltip="Take captions from photo.txt or photo.caption beside "
                                         "photo.jpg where such a file lies; switch it on for "
                                         "folders captioned by other tools. What stands in "
                                         "`captions` comes first, then these files, then the "
                                         "photo's own caption, then the template."),
                io.Int.Input("shuffle", default=0, min=0, max=16, optional=True,
                             tooltip="How many other orders of each caption's comma separated "
                                     "parts are encoded too. 0 is off; 2 to 4 keep the model from "
                                     "learning the order, at as many more text encodings."),
                io.Int.Input("keep_parts", default=1, min=0, max=32, optional=True,
                             tooltip="Parts at the start of a caption that stay in place when it "
                                     "is shuffled; 1 keeps the part with the trigger in front."),
                io.Boolean.Input("mirror", default=False, optional=True,
                                 tooltip="Adds each photo mirrored as one more. A face is not "
                                         "symmetric and mirrored photos teach another face, so it "
                                         "is off; only for very few photos."),
                io.Combo.Input("mask", options=list(MASKS), default="face oval", optional=True,
                               tooltip="What counts as face in the loss: the oval from chin to "
                                       "hairline, that with ears and hair round it, or everything "
                                       "alike. Choose the margin when the hair should be learned. "
                                       "A photo's own mask takes the place of the face's."),
                io.Float.Input("mask_grow", default=0.0, min=-0.4, max=1.0, step=0.05,
                               optional=True,
                               tooltip="Widens the mask by this share of the face's size, or "
                                       "narrows it below 0. Without effect when `mask` is none."),
                io.Int.Input("cache_limit_mb", default=4096, min=0, max=1048576, step=256,
                             optional=True,
                             tooltip="Megabytes that this person's prepared files may take; the "
                                     "longest unused go first, those of training sets that "
                                     "ComfyUI still holds never. Raise it when you switch between "
                                     "settings often."),
                io.Boolean.Input("level_eyes", default=False, optional=True,
                                 tooltip="Turns each photo so that the eyes are level before it is "
                                         "cut. Only the photo's own pixels are used: the crop "
                                         "shrinks where its corners would lie outside. Heads "
                                         "tilted in all photos alike are a reason to use it."),
            ],
            outputs=[
                TrainingSetType.Output(display_name="training_set",
                                       tooltip="Latents, face masks and text encodings, cached on "
                                               "disk; goes into Train."),
                io.Image.Output(display_name="crops",
                                tooltip="The crops as they train, face weight shown bright."),
                io.String.Output(display_name="report",
                                 tooltip="JSON: crop, bucket, captions, pose and share of face per "
                                         "photo, and what the cache takes."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, caption_files=False, **_):
        # Which text files lie beside the photos is not known before the subject is.
        lost = made_files.losses(runtime.running_node())
        return lost if caption_files is False else float("nan")

    @classmethod
    def execute(cls, subject, vae, clip, resolution, framing, caption_template, captions="",
                caption_files=False, shuffle=0, keep_parts=1, mirror=False, mask="face oval",
                mask_grow=0.0, cache_limit_mb=4096, level_eyes=False):
        settings = PrepareSettings(resolution, framing, caption_template, shuffle, keep_parts,
                                   mirror, mask, mask_grow, level_eyes)
        folder = runtime.output_directory() / "likeness" / subject.folder_name / "training_set"
        given = typed_captions(captions, subject)
        if caption_files:
            given = given.joined(side_car_captions(subject.references))
        given = given.joined(photo_captions(subject.references))
        training_set, prepared = prepare(subject, settings, _encoders(vae, clip), folder,
                                         runtime.progress_callback(len(subject.references)), given)
        runtime.unload(clip.patcher)  # everything it has to say is on disk now
        files = files_of(training_set)
        hold(training_set, files)
        made_files.remember(runtime.running_node(), files)
        cache = limit_cache(folder, files, cache_limit_mb * _MEGABYTE)
        sheet = to_image(np.stack([_thumbnail(entry) for entry in prepared]))
        text = json.dumps({**report(training_set, prepared, given), "folder": str(folder),
                           "cache": dataclasses.asdict(cache)}, indent=2)
        shown = ui.PreviewImage(sheet, cls=cls).as_dict() | ui.PreviewText(text).as_dict()
        return io.NodeOutput(training_set, sheet, text, ui=shown)


def _encoders(vae, clip) -> Encoders:
    if clip is None:
        raise LikenessError("This checkpoint has no text encoder; connect a CLIP loader to "
                            "Prepare Training.")
    if vae is None:
        raise LikenessError("This checkpoint has no VAE; connect a VAE loader to Prepare Training.")

    def encode_text(text: str):
        return clip.encode_from_tokens_scheduled(literal_tokens(clip, text))

    return Encoders(vae.encode, encode_text,
                    image_key=fingerprint(vae.first_stage_model.state_dict()),
                    text_key=text_fingerprint(clip))


def _thumbnail(entry: PreparedPhoto, side: int = 384) -> np.ndarray:
    """A crop on a square canvas, dimmed where the loss weighs little."""
    height, width = entry.pixels.shape[:2]
    mask = np.asarray(Image.fromarray(entry.mask).resize((width, height)))
    lit = np.uint8(entry.pixels * (0.45 + 0.55 * np.clip(mask, 0, 1))[..., None])
    picture = Image.fromarray(lit)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (side, side), (24, 24, 28))
    canvas.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return np.asarray(canvas)


NODES: list[type[io.ComfyNode]] = [LikenessPrepareTraining]
