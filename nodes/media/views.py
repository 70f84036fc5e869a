"""A photo's pixels at the sizes that are asked for, decoded no further than those need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image

from .decoding import DAMAGED, opened
from .images import to_rgb

SMALLEST, LARGEST_STEP = 1000, 8  # pixels of a reduced photo's shorter side; libjpeg's last step
# Half a JPEG's sides take half of a decoding, a quarter of them a third. A face mostly needs the
# whole decoding after all, which halves would only come on top of.
_DRAFTS_FROM = 4
_PLAIN = ("RGB", "L", "CMYK")  # modes whose parts can be brought to sRGB one by one
# EXIF orientation -> whether the sides are swapped, and which axes of the stored picture run back.
_STORED = {1: (False, False, False), 2: (False, True, False), 3: (False, True, True),
           4: (False, False, True), 5: (True, False, False), 6: (True, False, True),
           7: (True, True, True), 8: (True, True, False)}

Region = tuple[int, int, int, int]  # x0, y0, x1, y1


@dataclass(frozen=True, eq=False)
class View:
    """A part of a photo with `shrunk` times fewer pixels a side.

    `corner` is where its upper left one lies in the photo, x and y in pixels of the photo; before
    the edge by less than one pixel of the view where the photo's side is no multiple of `shrunk`.
    """

    pixels: np.ndarray  # (h, w, 3) uint8 RGB
    corner: tuple[int, int] = (0, 0)
    shrunk: int = 1


class PhotoPixels:
    """A photo, upright and in sRGB, of which parts and reduced copies are taken.

    Args:
        source: an (H, W, 3) uint8 RGB array, or the bytes of a picture file.

    Raises:
        RefusedError: the file has too many pixels, or its reader is missing.
        OSError: it cannot be read or decoded, whatever Pillow's reader raised.
    """

    def __init__(self, source: np.ndarray | bytes) -> None:
        self._source = _Array(source) if isinstance(source, np.ndarray) else _File(source)
        width, height = self._source.size
        self._swapped, self._back_x, self._back_y = _STORED.get(
            self._source.orientation, _STORED[1])
        self.width, self.height = (height, width) if self._swapped else (width, height)
        shrunk = step_within(min(width, height) / SMALLEST)
        self._whole = self._cut((0, 0, width, height), shrunk)

    @property
    def whole(self) -> View:
        """All of the photo, reduced as far as its shorter side keeps `SMALLEST` pixels."""
        return self._whole

    def part(self, box: tuple[float, float, float, float], most: float) -> View:
        """At least what a box x0, y0, x1, y1 shows, as far as it lies in the photo.

        Args:
            most: how many times fewer pixels a side will do; below 1 counts as 1.
        """
        if self._whole.shrunk <= step_within(most):
            return self._whole
        x0, y0 = (int(np.clip(np.floor(edge), 0, side - 1))
                  for edge, side in zip(box[:2], (self.width, self.height), strict=True))
        x1, y1 = (int(np.clip(np.ceil(edge), first + 1, side)) for edge, first, side
                  in zip(box[2:], (x0, y0), (self.width, self.height), strict=True))
        return self._cut(self._turned((x0, y0, x1, y1)), step_within(most))

    def _cut(self, region: Region, shrunk: int) -> View:
        """A part of the stored picture, upright; its edges are moved to whole pixels of the view.
        """
        width, height = self._source.size
        x0, y0 = (edge // shrunk * shrunk for edge in region[:2])
        x1, y1 = (-(-edge // shrunk) * shrunk for edge in region[2:])
        pixels = self._source.cut((x0, y0, min(x1, width), min(y1, height)), shrunk)
        left, top, _, _ = self._turned((x0, y0, x1, y1), upright=True)
        return View(pixels, (left, top), shrunk)

    def _turned(self, region: Region, upright: bool = False) -> Region:
        """Where a region of the upright photo lies in the stored picture, or the other way."""
        x0, y0, x1, y1 = region
        if self._swapped and not upright:
            x0, y0, x1, y1 = y0, x0, y1, x1
        width, height = self._source.size
        if self._back_x:
            x0, x1 = width - x1, width - x0
        if self._back_y:
            y0, y1 = height - y1, height - y0
        return (y0, x0, y1, x1) if self._swapped and upright else (x0, y0, x1, y1)


def step_within(most: float) -> int:
    """The largest of the steps 1, 2, 4 and 8 that is no more than this; 1 at least."""
    step = 1
    while 2 * step <= min(most, LARGEST_STEP):
        step *= 2
    return step


class _Array:
    """An upright picture in memory."""

    orientation = 1

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels, self.size = pixels, (pixels.shape[1], pixels.shape[0])

    def cut(self, region: Region, shrunk: int) -> np.ndarray:
        x0, y0, x1, y1 = region
        part = np.ascontiguousarray(self._pixels[y0:y1, x0:x1])
        if shrunk == 1:
            return part
        return np.ascontiguousarray(np.asarray(Image.fromarray(part).reduce(shrunk)))


class _File:
    """A picture as its file holds it: perhaps turned, and of other colours."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        try:
            with opened(data) as picture:
                self.size = picture.size
            first = step_within(min(self.size) / SMALLEST)
            self._decode(first if first >= _DRAFTS_FROM else 1)
        except DAMAGED as err:
            raise _told(err) from err

    def cut(self, region: Region, shrunk: int) -> np.ndarray:
        try:
            if shrunk < self._drafted:
                self._decode(shrunk)
            box = tuple(-(-edge // self._drafted) for edge in region)
            step = shrunk // self._drafted
            part = self._picture.crop(box) if step == 1 else self._picture.reduce(step, box)
            return np.ascontiguousarray(np.asarray(to_rgb(part, self._profile)))
        except DAMAGED as err:
            raise _told(err) from err

    def _decode(self, shrunk: int) -> None:
        """Decode the file; with so many times fewer pixels a side where it is a JPEG."""
        with opened(self._data, reduced=shrunk) as picture:
            picture.load()
            profile = picture.info.get("icc_profile")
            if (picture.mode in _PLAIN and "transparency" not in picture.info
                    and picture.format != "TIFF"):  # which Pillow turns upright by itself
                self.orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
                self._picture, self._profile = picture, profile
            else:
                self.orientation = 1
                self._picture, self._profile = to_rgb(picture, profile), None
                self.size = self._picture.size
        self._drafted = max(round(max(self.size) / max(self._picture.size)), 1)


def _told(err: Exception) -> OSError:
    return err if isinstance(err, OSError) else OSError(str(err) or type(err).__name__)
