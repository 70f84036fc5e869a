"""What weighs in training: the user's own mask of a photo, or one drawn round the face."""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image

from ...errors import LikenessError
from ...faces.mesh import face_mask
from ...media.images import to_rgb
from ...sockets import Photo

# Kind of mask -> share of the face by which its oval grows; None: everything counts alike. The
# margin takes in ears, hair and chin, which say who somebody is too.
_MARGIN: dict[str, float | None] = {"face oval": 0.0, "face with margin": 0.35, "none": None}
MASKS = tuple(_MARGIN)
_RATIO = 0.02  # by which a mask's sides may differ from the photo's: rounding of a smaller copy


def photo_mask(photo: Photo, kind: str, grow: float = 0.0) -> np.ndarray:
    """The weight of each pixel of a photo with a face: (H, W) float32 in 0..1.

    Args:
        kind: one of `MASKS`. The photo's own mask takes the place of a face's, not of "none".
        grow: of the face's size, added to the kind's own margin; own masks stay as they are.

    Raises:
        LikenessError: the photo's own mask is gone, damaged, of another shape or black.
    """
    margin = _MARGIN[kind]
    if margin is None:
        return np.ones((photo.height, photo.width), np.float32)
    if photo.mask is not None:
        return read_mask(photo)
    return face_mask(photo.face, photo.height, photo.width, grow=margin + grow)


def mask_digest(photo: Photo) -> str:
    """SHA-256 of the file of the photo's own mask.

    Raises:
        LikenessError: it is gone or cannot be read.
    """
    try:
        return hashlib.sha256(photo.mask.read_bytes()).hexdigest()
    except OSError as err:
        raise _unreadable(photo, err) from err


def read_mask(photo: Photo) -> np.ndarray:
    """The photo's own mask at the photo's size: (H, W) float32 in 0..1.

    Raises:
        LikenessError: it is gone, damaged, of another shape or black.
    """
    name = f"The mask {photo.mask.name} of {photo.name}"
    try:
        with Image.open(photo.mask) as opened:
            picture = to_rgb(opened).convert("L")
    except (OSError, ValueError, SyntaxError) as err:
        raise _unreadable(photo, err) from err
    if abs(picture.width * photo.height / (picture.height * photo.width) - 1) > _RATIO:
        raise LikenessError(f"{name} is {picture.width} x {picture.height} pixels, the photo "
                            f"{photo.width} x {photo.height}; draw it over the whole photo.")
    if picture.size != (photo.width, photo.height):
        picture = picture.resize((photo.width, photo.height), Image.Resampling.BILINEAR)
    mask = np.asarray(picture, dtype=np.float32) / 255.0
    if not mask.max():
        raise LikenessError(f"{name} is black all over, so nothing of the photo would train; "
                            "paint white what shall train, or remove the mask.")
    return mask


def _unreadable(photo: Photo, err: Exception) -> LikenessError:
    reason = getattr(err, "strerror", None) or err
    return LikenessError(f"The mask {photo.mask.name} of {photo.name} cannot be read ({reason}); "
                         "save it again as PNG or remove it.")
