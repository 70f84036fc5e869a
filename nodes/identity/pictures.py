"""The aligned face pictures that FaceID Plus adapters see through CLIP vision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..errors import LikenessError
from ..faces.align import ARCFACE_112, align, five_points
from ..media.images import reread_photo, to_image
from ..sockets import Photo
from .adapter import AdapterWeights
from .blend import Pictures

_CROP = {768: 224, 2048: 256}  # text width -> side of the face crops the adapter was trained on


def arcface_template(size: int) -> np.ndarray:
    """The five ArcFace points (5, 2) for a square crop, as insightface's `norm_crop` scales them.

    Multiples of 112 scale the 112-pixel template, multiples of 128 the one with 8 pixels more on
    each side.

    Raises:
        ValueError: neither rule fits the size.
    """
    if size % 112 == 0:
        return ARCFACE_112 * (size / 112)
    if size % 128 == 0:
        return (ARCFACE_112 + np.float32([8, 0])) * (size / 128)
    raise ValueError(f"`size` must be a multiple of 112 or 128, got {size}.")


def face_crops(photos: Sequence[Photo], size: int) -> np.ndarray:
    """Cut the aligned face out of each photo: (N, size, size, 3) uint8 RGB.

    Raises:
        LikenessError: a photo has no face or cannot be read any more.
    """
    crops = []
    for photo in photos:
        if photo.face is None:
            raise LikenessError(f"`{photo.name}` has no known face to show to CLIP; leave it out.")
        pixels = reread_photo(photo.file, photo.name)
        crops.append(align(pixels, five_points(photo.face), arcface_template(size), size))
    return np.stack(crops)


def clip_pictures(clip_vision: Any, adapter: AdapterWeights, photos: Sequence[Photo]) -> Pictures:
    """Encode the face of each photo, and a blank picture, with a CLIP_VISION model.

    The blank is what training dropped pictures to: zero after CLIP's normalisation, hence the
    mean colour before it.

    Raises:
        LikenessError: the encoder's hidden states are not as wide as the adapter reads.
    """
    size = _CROP.get(adapter.context, 224)
    blank = torch.tensor(clip_vision.image_mean, dtype=torch.float32).expand(1, size, size, 3)
    references, nothing = (_hidden_states(clip_vision, image)
                           for image in (to_image(face_crops(photos, size)), blank))
    if references.shape[-1] != adapter.clip_width:
        raise LikenessError(f"The adapter reads CLIP features of width {adapter.clip_width}, the "
                            f"connected CLIP_VISION gives {references.shape[-1]}; connect the "
                            "encoder the adapter was made for (usually CLIP-ViT-H-14).")
    return Pictures(references, nothing)


def _hidden_states(clip_vision: Any, image: torch.Tensor) -> torch.Tensor:
    output = clip_vision.encode_image(image)
    return output["penultimate_hidden_states"].float().cpu()
