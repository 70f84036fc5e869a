"""Contact sheets: every photo in a coloured frame, with its face, name, verdict and reason."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ...media.images import read_picture
from ...media.lettering import fit_name, font, wrap
from ...sockets import Photo, PhotoSet, Verdict

_PICTURE = 320  # pixels: the square on a card that holds the photo
_INSET = 9  # keeps the photo clear of the rounded frame
_FOOT = 46  # below the photo, beside the lines of text
_LINE = 17
_LEAST, _PARAGRAPH = 3, 6  # lines that every card has room for; lines of one reason
_GAP = 14
_HEAD = 54
_TITLE, _NOTE = 28, 18  # heights of a line
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
    text: str  # below; each of its lines begins anew
    dimmed: bool = False


def curation_sheet(photos: PhotoSet, note: str = "") -> np.ndarray:
    """Draw the verdict and the reasons of every photo: (H, W, 3) uint8.

    Of very many photos those that are not kept come first and the rest is left out: a sheet of
    thousands of pictures fits neither in memory nor on a screen.

    Args:
        note: a sentence below the title.
    """
    listed = list(photos.photos)
    counts = [sum(photo.verdict is verdict for photo in listed) for verdict in _COLOURS]
    title = "{} photo{}:  {} keep,  {} unsure,  {} reject".format(
        len(listed), "" if len(listed) == 1 else "s", *counts)
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
    text = "\n".join(dict.fromkeys(reason.text for reason in worst)) or _praise(photo)
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
    width = columns * (_PICTURE + _GAP) + _GAP
    titles, notes = _lines(title, 22, width - 2 * _GAP), _lines(note, 15, width - 2 * _GAP)
    head = _HEAD + _TITLE * (len(titles) - 1) + _NOTE * len(notes)
    lines = [_lines(card.text, 14, _PICTURE - 26) for card in cards]
    # A row is as high as its longest text.
    rows = [_PICTURE + _FOOT + _LINE * max(_LEAST, *map(len, lines[first:first + columns]))
            for first in range(0, len(cards), columns)]
    sheet = Image.new("RGB", (width, head + sum(rows) + _GAP * (len(rows) + 1)), _GROUND)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(titles):
        draw.text((_GAP + 2, _HEAD // 2 + 4 + _TITLE * number), line, _TEXT, font(22), anchor="lm")
    for number, line in enumerate(notes, start=len(notes) * -1):
        draw.text((_GAP + 2, head + 2 + _NOTE * number), line, _FAINT, font(15), anchor="lm")
    for number, card in enumerate(cards):
        row, column = divmod(number, columns)
        corner = _GAP + column * (_PICTURE + _GAP), head + sum(rows[:row]) + row * _GAP
        _draw_card(sheet, draw, card, lines[number], corner, rows[row])
    return np.ascontiguousarray(np.asarray(sheet))


def _lines(text: str, size: int, room: int) -> list[str]:
    """A text in lines of so many pixels; each of its own lines begins anew."""
    draw = ImageDraw.Draw(Image.new("L", (1, 1)))
    return [line for part in text.splitlines() for line in wrap(draw, part, size, room, _PARAGRAPH)]


def _draw_card(sheet: Image.Image, draw: ImageDraw.ImageDraw, card: Card, lines: Sequence[str],
               corner: tuple[int, int], height: int) -> None:
    x, y = corner
    frame = (x, y, x + _PICTURE - 1, y + height - 1)
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
    for number, line in enumerate(lines):
        draw.text((x + 13, top + 36 + _LINE * number), line, _TEXT, font(14))


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
