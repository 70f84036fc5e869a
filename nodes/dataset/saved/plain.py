"""Photos as trainers see them, which know neither a camera's turn mark nor colour profiles."""

from __future__ import annotations

import numpy as np

from ...media.decoding import opened, told_of_size
from ...media.images import read_picture

_FORMATS = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}
_LISTED = {form for suffix in (*_FORMATS.values(), ".jpeg") for form in (suffix, suffix.upper())}


def plain_suffix(data: bytes, suffix: str) -> str:
    """The suffix under which sd-scripts reads a photo's file as it is read here.

    Empty when it would not: the photo is turned by EXIF, has other colours than sRGB, is
    transparent, very large, or of a format that sd-scripts does not list.

    Raises:
        OSError: the file cannot be read.
    """
    with opened(data) as picture:
        if picture.format not in _FORMATS or told_of_size(picture):
            return ""
        form, plain = picture.format, np.asarray(picture.convert("RGB"))
    if not np.array_equal(plain, np.asarray(read_picture(data))):
        return ""
    return suffix if suffix in _LISTED else _FORMATS[form]
