"""The node that turns a Subject's reference photos into a cached training set."""

from __future__ import annotations

import json

import numpy as np
from comfy_api.latest import io, ui
from PIL import Image

from .. import runtime
from ..errors import LikenessError
from ..images import to_image
from ..schema import SubjectType, TrainingSetType, schema
from ..tensors import fingerprint, patch_fingerprint
from .cache import Encoders, PreparedPhoto, PrepareSettings, prepare, report
from .caption import DEFAULT_TEMPLATE
from .crop import FRAMINGS


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
                                tooltip="Words for every photo. Fields: {subject}, {trigger}, "
                                        "{class}, {framing}, {pose}, {expression}. What is named "
                                        "here is not learned as part of the person."),
            ],
            outputs=[
                TrainingSetType.Output(display_name="training_set",
                                       tooltip="Latents, face masks and text encodings, cached on "
                                               "disk; goes into Train."),
                io.Image.Output(display_name="crops",
                                tooltip="The crops as they train, face weight shown bright."),
                io.String.Output(display_name="report", tooltip="JSON: crop, bucket, caption and "
                                                                "share of face per photo."),
            ],
        )

    @classmethod
    def execute(cls, subject, vae, clip, resolution, framing, caption_template):
        settings = PrepareSettings(resolution, framing, caption_template)
        folder = runtime.output_directory() / "likeness" / subject.folder_name / "training_set"
        training_set, prepared = prepare(subject, settings, _encoders(vae, clip), folder,
                                         runtime.progress_callback(len(subject.references)))
        sheet = to_image(np.stack([_thumbnail(entry) for entry in prepared]))
        text = json.dumps({**report(prepared), "folder": str(folder)}, indent=2)
        shown = ui.PreviewImage(sheet, cls=cls).as_dict() | ui.PreviewText(text).as_dict()
        return io.NodeOutput(training_set, sheet, text, ui=shown)


def _encoders(vae, clip) -> Encoders:
    if clip is None:
        raise LikenessError("This checkpoint has no text encoder; connect a CLIP loader to "
                            "Prepare Training.")
    if vae is None:
        raise LikenessError("This checkpoint has no VAE; connect a VAE loader to Prepare Training.")

    def encode_text(text: str):
        return clip.encode_from_tokens_scheduled(clip.tokenize(text))

    return Encoders(vae.encode, encode_text,
                    image_key=fingerprint(vae.first_stage_model.state_dict()),
                    text_key=_text_key(clip))


def _text_key(clip) -> str:
    """Name a text encoder by all that decides its encoding.

    Clones with another end layer (CLIP Set Last Layer) or a LoRA share their weights.
    """
    settings = {name: getattr(clip, name, None)
                for name in ("layer_idx", "tokenizer_options", "use_clip_schedule")}
    return json.dumps([fingerprint(clip.cond_stage_model.state_dict()),
                       patch_fingerprint(clip.patcher), settings], sort_keys=True, default=repr)


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
