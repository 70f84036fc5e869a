"""Faces in views of a photo: the surroundings of one at the size that a measure needs."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..faces.boxes import crop_round
from ..faces.turned import scale_face, shift_face
from ..media.views import PhotoPixels, View
from ..sockets import Face
from .tones import luma

LARGEST = 512  # pixels of face: no training picture shows one with more


class Need(NamedTuple):
    """What a measure needs to see of a face."""

    least: int  # pixels of the face's longer side, unless the photo has fewer
    margin: float  # round the face on each side, as a share of its longer side


# What looks at a face reduced to a fixed size needs twice that size, so that the filter that
# reduces it decides what is left of the detail: at 512 pixels themselves the factor of enlargement
# comes out up to 14 % higher, at 750 up to 8 %.
DETAIL = Need(1024, 0.25)
FEATURES = Need(300, 0.9)  # eyes, hands, light, and the recogniser's chip of a tilted face
LANDMARKS = Need(171, 0.8)  # for a network that sees 256 pixels of a square 1.5 times as wide


@dataclass(frozen=True, eq=False)
class Near:
    """A face in a view of its photo that holds its surroundings."""

    view: View
    face: Face  # in pixels of the view

    @property
    def pixels(self) -> np.ndarray:
        """The view's pixels (h, w, 3) uint8 RGB."""
        return self.view.pixels

    @functools.cached_property
    def light(self) -> np.ndarray:
        """The luma of all the view's pixels (h, w) float32, which several measures ask for."""
        return luma(self.pixels)

    @functools.cached_property
    def face_light(self) -> np.ndarray:
        """The luma of the face alone (s, s) float32, s no more than `LARGEST`."""
        crop, _ = crop_round(self.light, self.face.box, margin=0.0)
        side = min(crop.shape[0], LARGEST)
        return np.asarray(Image.fromarray(crop).resize((side, side), Image.Resampling.LANCZOS))


def near(photo: PhotoPixels, face: Face, need: Need) -> Near:
    """A photo's face with its surroundings, as far as the photo reaches, at the size needed."""
    x0, y0, x1, y1 = face.box
    side = max(face.size)
    room = need.margin * side
    view = photo.part((x0 - room, y0 - room, x1 + room, y1 + room), side / need.least)
    return Near(view, within(view, face))


def within(view: View, face: Face) -> Face:
    """A photo's face as it lies in a view."""
    if view.shrunk == 1 and view.corner == (0, 0):
        return face
    moved = shift_face(face, -view.corner[0], -view.corner[1])
    return scale_face(moved, 1 / view.shrunk, 1 / view.shrunk)


def in_photo(view: View, face: Face) -> Face:
    """A view's face as it lies in the photo."""
    if view.shrunk == 1 and view.corner == (0, 0):
        return face
    return shift_face(scale_face(face, view.shrunk, view.shrunk), *view.corner)
