"""The node that cuts photos to lists of pictures, for captioners and any other node."""

from __future__ import annotations

import json

import numpy as np
from comfy_api.latest import io, ui
from PIL import Image

from ... import runtime
from ...errors import LikenessError
from ...media.images import reread_photo, to_image, to_mask
from ...schema import PhotoSetType, schema
from ..caption.describe import chosen_photos
from .crop import FRAMINGS, cut, cut_mask, make_buckets
from .level import frame
from .masks import MASKS, photo_mask

_SHOWN = 384  # pixels


class LikenessCropPhotos(io.ComfyNode):
    """Cut the kept photos round the face, as lists."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LikenessCropPhotos", feature="dataset", display_name="Likeness Crop Photos",
            description="Takes curated photos and gives the kept ones as lists of pictures, masks, "
                        "names and captions, cut round the face without ever cutting it. Wire the "
                        "pictures through any captioner into Caption Photos.",
            is_output_node=True,
            inputs=[
                PhotoSetType.Input("photos", tooltip="The judged photos from Curate Photos."),
                io.Combo.Input("framing", options=list(FRAMINGS), default="head and shoulders",
                               tooltip="How much round the face is kept: head, head and "
                                       "shoulders, the body down to the hips, or the whole photo. "
                                       "A captioner sees most in the whole photo."),
                io.Int.Input("resolution", default=1024, min=64, max=4096, step=64,
                             tooltip="Pixels: the square root of the largest area. Sides are "
                                     "multiples of 64. A captioner needs no more than 768; every "
                                     "picture is held in memory (12 MB at 1024)."),
                io.Boolean.Input("level_eyes", default=False,
                                 tooltip="Turns each photo so that the eyes are level. Only its "
                                         "own pixels are used: the crop shrinks where corners "
                                         "would lie outside, and near an edge the photo is turned "
                                         "less far. Switch it on for tilted heads."),
                io.Combo.Input("mask", options=list(MASKS), default="face oval",
                               tooltip="What the masks show: the face from chin to hairline, that "
                                       "with ears and hair round it, or everything. A photo's own "
                                       "mask takes the place of the face's."),
                io.Boolean.Input("include_unsure", default=False,
                                 tooltip="Also take photos that the curation called unsure. Set "
                                         "it alike in Caption Photos."),
            ],
            outputs=[
                io.Image.Output(display_name="images", is_output_list=True,
                                tooltip="A list of pictures, one per photo, each of its own "
                                        "size."),
                io.Mask.Output(display_name="masks", is_output_list=True,
                               tooltip="A list of masks of the same sizes, white where the face "
                                       "is."),
                io.String.Output(display_name="names", is_output_list=True,
                                 tooltip="A list of the photos' names in the same order."),
                io.String.Output(display_name="captions", is_output_list=True,
                                 tooltip="A list of the captions that the photos carry; empty "
                                         "texts where there is none."),
                io.String.Output(display_name="report",
                                 tooltip="JSON: region, size, turn in degrees and enlargement of "
                                         "each crop."),
            ])

    @classmethod
    def execute(cls, photos, framing, resolution, level_eyes, mask, include_unsure):
        if mask not in MASKS:
            raise LikenessError(f"`mask` must be one of {', '.join(MASKS)}, got {mask}.")
        chosen = chosen_photos(photos, include_unsure)
        progress, buckets = runtime.progress_callback(len(chosen)), make_buckets(resolution)
        images, masks, entries, shown = [], [], [], []
        for done, photo in enumerate(chosen, start=1):
            crop = frame(photo, framing, buckets, level_eyes)
            pixels = cut(reread_photo(photo.file, photo.name), crop)
            images.append(to_image(pixels))
            masks.append(to_mask(cut_mask(photo_mask(photo, mask), crop, *crop.bucket)))
            shown.append(_thumbnail(pixels))
            entries.append({"name": photo.name, "box": [round(edge, 1) for edge in crop.box],
                            "size": list(crop.bucket), "turn": round(crop.turn, 1),
                            "enlargement": round(crop.enlargement, 3)})
            progress(done)
        text = json.dumps({"framing": framing, "photos": entries}, indent=1)
        preview = ui.PreviewImage(to_image(np.stack(shown)), cls=cls).as_dict()
        return io.NodeOutput(images, masks, [photo.name for photo in chosen],
                             [photo.caption for photo in chosen], text,
                             ui=preview | ui.PreviewText(text).as_dict())


def _thumbnail(pixels: np.ndarray) -> np.ndarray:
    """A crop on a square canvas: previews of one batch share a size."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((_SHOWN, _SHOWN), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (_SHOWN, _SHOWN), (24, 24, 28))
    canvas.paste(picture, ((_SHOWN - picture.width) // 2, (_SHOWN - picture.height) // 2))
    return np.asarray(canvas)


NODES: list[type[io.ComfyNode]] = [LikenessCropPhotos]
