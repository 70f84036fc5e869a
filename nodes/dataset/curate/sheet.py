"""Contact sheets: every photo in a coloured frame, with its face, name, verdict and reason."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ...media.images import read_picture
from ...media.lettering import fit, fit_name, font, wrap
from ...sockets import Photo, PhotoSet, Verdict

_PICTURE = 320  # pixels: the square on a card that holds the photo
_INSET = 9  # keeps the photo clear of the rounded frame
_FOOT = 92
_GAP = 14
_HEAD = 54
_NOTE = 18
_FRAME = 5
_MOST = 120  # cards of a curation
_UNREADABLE = "cannot be read"
_BY_HAND = {"by_hand", "not_overridden"}
_GROUND, _CARD, _TEXT, _FAINT = (18, 20, 24), (32, 35, 41), (236, 238, 241), (168, 174, 184)
GREEN, AMBER, RED, BLUE = (63, 185, 96), (226, 160, 40), (235, 84, 76), (84, 152, 240)
_COLOURS = {Verdict.KEEP: GREEN, Verdict.UNSURE: AMBER, Verdict.REJECT: RED}


@dataclass(frozen=True)
class Card:
    """One photo on a sheet."""

    photo: Photo
    label: str  # the word on the coloured badge
    colour: tuple[int, int, int]
    text: str  # up to three lines below
    dimmed: bool = False


def curation_sheet(photos: PhotoSet, note: str = "") -> np.ndarray:
    """Draw the verdict and the first reason of every photo: (H, W, 3) uint8.

    Of very many photos those that are not kept come first and the rest is left out: a sheet of
    thousands of pictures fits neither in memory nor on a screen.

    Args:
        note: a sentence below the title, cut to the sheet's width.
    """
    listed = list(photos.photos)
    counts = [sum(photo.verdict is verdict for photo in listed) for verdict in _COLOURS]
    title = "{} photos:  {} keep,  {} unsure,  {} reject".format(len(listed), *counts)
    if len(listed) > _MOST:
        title += f"  (the first {_MOST} that want a look)"
        listed = sorted(listed, key=_wants_no_look)[:_MOST]
    return draw_sheet([_card(photo) for photo in listed], title, note)


def _wants_no_look(photo: Photo) -> tuple[bool, bool]:
    return photo.verdict is Verdict.KEEP, photo.verdict is Verdict.REJECT


def _card(photo: Photo) -> Card:
    verdict = photo.verdict or Verdict.UNSURE
    label = verdict.value.upper()
    # The reason that decides first; a verdict by hand says its own, then what the judge found.
    worst = sorted(photo.reasons, key=lambda reason: (reason.rule not in _BY_HAND,
                                                      reason.verdict is not verdict))
    text = " ".join(reason.text for reason in worst[:2 if worst and worst[0].rule in _BY_HAND
                                                    else 1]) or _praise(photo)
    if photo.overridden:
        label += " BY HAND"
        if worst and worst[0].rule not in _BY_HAND:
            text = f"The judge said: {text}"
    return Card(photo, label, _COLOURS[verdict], text, dimmed=verdict is Verdict.REJECT)


def _praise(photo: Photo) -> str:
    width, yaw = photo.measures.get("face_width", 0.0), photo.face.pose.yaw if photo.face else 0.0
    side = "left" if yaw < 0 else "right"
    turned = ("facing the camera" if abs(yaw) < 8
              else f"turned {abs(yaw):.0f} degrees to the {side} of the picture")
    return f"Face {width:.0f} pixels wide, {turned}."


def draw_sheet(cards: Sequence[Card], title: str, note: str = "") -> np.ndarray:
    """Lay cards out in a grid under a title and perhaps a smaller line: (H, W, 3) uint8 RGB."""
    columns = max(1, min(6, math.ceil(math.sqrt(len(cards) * 1.4))))
    rows = math.ceil(len(cards) / columns)
    width = columns * (_PICTURE + _GAP) + _GAP
    head = _HEAD + (_NOTE if note else 0)
    height = head + rows * (_PICTURE + _FOOT + _GAP) + _GAP
    sheet = Image.new("RGB", (width, height), _GROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP + 2, _HEAD // 2 + 4), title, _TEXT, font(22), anchor="lm")
    if note:
        line = fit(draw, note, 15, width - 2 * _GAP)
        draw.text((_GAP + 2, _HEAD + 2), line, _FAINT, font(15), anchor="lm")
    for number, card in enumerate(cards):
        x = _GAP + number % columns * (_PICTURE + _GAP)
        y = head + number // columns * (_PICTURE + _FOOT + _GAP)
        _draw_card(sheet, draw, card, x, y)
    return np.ascontiguousarray(np.asarray(sheet))


def _draw_card(sheet: Image.Image, draw: ImageDraw.ImageDraw, card: Card, x: int, y: int) -> None:
    frame = (x, y, x + _PICTURE - 1, y + _PICTURE + _FOOT - 1)
    draw.rounded_rectangle(frame, 10, _CARD)
    _draw_photo(sheet, draw, card, x, y)
    draw.rounded_rectangle(frame, 10, None, card.colour, _FRAME)
    badge = font(17)
    wide = draw.textlength(card.label, badge) + 18
    top = y + _PICTURE
    draw.rounded_rectangle((x + 12, top + 8, x + 12 + wide, top + 30), 6, card.colour)
    draw.text((x + 21, top + 19), card.label, _GROUND, badge, anchor="lm")
    name = fit_name(draw, card.photo.name, 14, _PICTURE - wide - 44)
    draw.text((x + wide + 22, top + 19), name, _FAINT, font(14), anchor="lm")
    for number, line in enumerate(wrap(draw, card.text, 14, _PICTURE - 26, 3)):
        draw.text((x + 13, top + 36 + 17 * number), line, _TEXT, font(14))


def _draw_photo(sheet: Image.Image, draw: ImageDraw.ImageDraw, card: Card, x: int, y: int) -> None:
    picture = _thumbnail(card.photo)
    if isinstance(picture, str):
        draw.text((x + _PICTURE / 2, y + _PICTURE / 2), picture, _FAINT, font(20), anchor="mm")
        return
    if card.dimmed:
        picture = Image.blend(picture, Image.new("RGB", picture.size, _CARD), 0.35)
    left, top = x + (_PICTURE - picture.width) // 2, y + (_PICTURE - picture.height) // 2
    sheet.paste(picture, (left, top))
    if card.photo.face is not None:
        scale = picture.width / card.photo.width
        edges = [edge * scale for edge in card.photo.face.box]
        x0, x1 = (min(max(edge, 1), picture.width - 2) + left for edge in edges[::2])
        y0, y1 = (min(max(edge, 1), picture.height - 2) + top for edge in edges[1::2])
        draw.rectangle((x0, y0, x1, y1), None, card.colour, 2)


def _thumbnail(photo: Photo) -> Image.Image | str:
    """A small upright copy, or in a few words why there is none."""
    if not photo.sha256:
        return _UNREADABLE
    try:
        data = photo.file.read_bytes()
        if hashlib.sha256(data).hexdigest() != photo.sha256:
            return "was changed since"
        small = read_picture(data, least=2 * _PICTURE)
    except OSError:
        return _UNREADABLE
    side = _PICTURE - 2 * _INSET
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small
