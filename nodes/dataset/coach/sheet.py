"""The coach's page: photos by head pose, bars of what they show, and the shooting list."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from ...files import write_whole
from ...media.images import read_picture
from ...media.lettering import fit, font, wrap
from ...sockets import Photo, PhotoSet
from .coach import Advice
from .coverage import AXIS, NEEDS, Coverage

WIDTH, HEIGHT = 1240, 1754  # pixels: A4 at 150 dots per inch
_EDGE = 56
_PAPER, _INK, _FAINT, _LINE = "#ffffff", "#1b1f26", "#68707c", "#d5d9df"
_CELL_FILL, _GOOD, _WANT, _BAR = "#f3f5f7", "#2e8b57", "#c9680a", "#5b8fd6"
_CELL = (186, 148)
_GRID_TOP, _BARS_TOP, _LIST_TOP = 200, 742, 1124
_BAR_STEP = 26  # pixels from one bar to the next
_BARS = ("expression", "light_side", "light_contrast", "light_warmth", "distance")
# Of the turn, as on the shooting list: a head turned to its own right shows its left side.
_SIDES = {"profile_left": "full turn to your right",
          "three_quarter_left": "half turn to your right", "frontal": "frontal",
          "three_quarter_right": "half turn to your left",
          "profile_right": "full turn to your left"}
_OWN = {"light_side": {"left": "your right", "right": "your left"}}

Box = tuple[int, int, int, int]


def coach_page(advice: Advice, photos: PhotoSet,
               check: Callable[[], None] = lambda: None) -> np.ndarray:
    """Draw the advice on one page: (1754, 1240, 3) uint8 RGB.

    Args:
        check: called before each face that is drawn; may raise to cancel.
    """
    page = Image.new("RGB", (WIDTH, HEIGHT), _PAPER)
    draw = ImageDraw.Draw(page)
    _header(draw, advice, photos.folder)
    _grid(page, draw, advice.coverage, {photo.name: photo for photo in photos.photos}, check)
    _bars(draw, advice.coverage)
    _list(draw, advice)
    return np.ascontiguousarray(np.asarray(page))


def write_page(path: Path, page: np.ndarray) -> None:
    """Write a page (H, W, 3) uint8 as a PNG that prints at its size.

    Raises:
        LikenessError: the disk is full or the folder cannot be written.
    """
    picture = Image.fromarray(page)
    write_whole(path, lambda partial: picture.save(partial, format="PNG", dpi=(150, 150)))


def _header(draw: ImageDraw.ImageDraw, advice: Advice, folder: str) -> None:
    score, right = advice.coverage.diversity, WIDTH - _EDGE
    draw.text((_EDGE, 50), "Photo coach", _INK, font(38))
    count = advice.coverage.photos
    name = f"{count} photo{'' if count == 1 else 's'}" + (f" of {folder}" if folder else "")
    draw.text((_EDGE + 250, 78), fit(draw, name, 20, 540), _FAINT, font(20),
              anchor="lm")
    draw.text((right, 48), f"{score:.0f}", _INK, font(46), anchor="ra")
    draw.text((right, 100), "diversity of 100", _FAINT, font(16), anchor="ra")
    draw.rectangle((right - 220, 126, right, 136), _LINE)
    draw.rectangle((right - 220, 126, right - 220 + 2.2 * score, 136),
                   _GOOD if advice.done else _WANT)
    for number, line in enumerate(wrap(draw, advice.headline, 22, 840, 3)):
        draw.text((_EDGE, 110 + 28 * number), line, _GOOD if advice.done else _INK, font(22))


def _grid(page: Image.Image, draw: ImageDraw.ImageDraw, coverage: Coverage,
          photos: dict[str, Photo], check: Callable[[], None]) -> None:
    wanted = {(need.bins[0]): need.essential for need in NEEDS if need.axis in ("yaw", "pitch")}
    columns, rows = AXIS["yaw"].bins, AXIS["pitch"].bins
    wide, high = _CELL
    left = WIDTH - _EDGE - len(columns) * (wide + 8) + 8
    for column, part in enumerate(columns):
        middle = left + column * (wide + 8) + wide / 2
        draw.text((middle, _GRID_TOP), _SIDES[part.id], _INK, font(17), anchor="ma")
    for row, tilt in enumerate(rows):
        top = _GRID_TOP + 28 + row * (high + 8)
        draw.text((left - 16, top + high / 2), tilt.title, _INK, font(17), anchor="rm")
        for column, turn in enumerate(columns):
            x = left + column * (wide + 8)
            box = (x, top, x + wide, top + high)
            names = [name for name, bins in coverage.places.items()
                     if (bins["yaw"], bins["pitch"]) == (turn.id, tilt.id)]
            draw.rounded_rectangle(box, 8, _CELL_FILL)
            if names:
                _mosaic(page, draw, box, [photos[name] for name in names], check)
                continue
            key = turn.id if tilt.id == "level" else tilt.id if turn.id == "frontal" else ""
            # A row or column that other cells already supply is not asked for again.
            axis = "yaw" if tilt.id == "level" else "pitch"
            if key in wanted and not coverage.counts.get(axis, {}).get(key):
                _empty(draw, box, "needed" if wanted[key] else "welcome",
                       _WANT if wanted[key] else _FAINT)
    foot = _GRID_TOP + 28 + len(rows) * (high + 8)
    draw.text((left, foot + 2), "Left and right are your own; the columns run as in the picture. "
                                "Orange: needed.", _FAINT, font(15))


def _empty(draw: ImageDraw.ImageDraw, box: Box, word: str, colour: str) -> None:
    draw.rounded_rectangle(box, 8, None, colour, 2)
    draw.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), word, colour, font(18), anchor="mm")


def _mosaic(page: Image.Image, draw: ImageDraw.ImageDraw, box: Box,
            photos: Sequence[Photo], check: Callable[[], None]) -> None:
    """Fill a cell with up to six faces and say how many there are."""
    shown = photos[:6]
    columns = min(len(shown), 2 if len(shown) <= 4 else 3)
    rows = math.ceil(len(shown) / columns)
    wide, high = (box[2] - box[0] - 4) // columns, (box[3] - box[1] - 4) // rows
    for number, photo in enumerate(shown):
        check()
        row, column = divmod(number, columns)
        x, y = box[0] + 4 + column * wide, box[1] + 4 + row * high
        picture = _face_of(photo, (wide - 4, high - 4))
        if picture is not None:
            page.paste(picture, (x, y))
        else:
            draw.rectangle((x, y, x + wide - 5, y + high - 5), _LINE)
            draw.text((x + wide / 2 - 2, y + high / 2 - 2), "file changed", _FAINT,
                      font(17 if len(shown) == 1 else 10), anchor="mm")
    word = f"{len(photos)}"
    width = draw.textlength(word, font(17)) + 14
    draw.rounded_rectangle((box[2] - width - 6, box[3] - 30, box[2] - 6, box[3] - 6), 6, _GOOD)
    draw.text((box[2] - 6 - width / 2, box[3] - 18), word, _PAPER, font(17), anchor="mm")


def _face_of(photo: Photo, size: tuple[int, int]) -> Image.Image | None:
    """The head, cut to a size; None when the file is gone or was changed since."""
    try:
        data = photo.file.read_bytes()
        if hashlib.sha256(data).hexdigest() != photo.sha256:
            return None
        whole = read_picture(data, least=1024)
    except OSError:
        return None
    scale = whole.width / photo.width
    x0, y0, x1, y1 = (edge * scale for edge in photo.face.box)
    reach = 0.85 * max(x1 - x0, y1 - y0)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2 - 0.1 * (y1 - y0)
    area = (max(x - reach, 0), max(y - reach, 0), min(x + reach, whole.width),
            min(y + reach, whole.height))
    return ImageOps.fit(whole.crop(tuple(round(edge) for edge in area)), size,
                        Image.Resampling.LANCZOS, centering=(0.5, 0.35))


def _bars(draw: ImageDraw.ImageDraw, coverage: Coverage) -> None:
    axes = [axis for axis in _BARS if axis in coverage.counts]
    wanted = {(lack.need.axis, part): lack.need.bins for lack in coverage.missing
              for part in lack.need.bins}
    charts = []
    for axis in axes:
        names = {part.id: _OWN.get(axis, {}).get(part.id, part.title)
                 for part in AXIS[axis].bins}
        rows = [(name, coverage.counts[axis][part], _demand(part, wanted.get((axis, part)), names))
                for part, name in names.items()]
        charts.append((AXIS[axis].title, rows))
    if coverage.scenes:
        rows = [(f"place {number}", len(group), "")
                for number, group in enumerate(coverage.scenes[:4], start=1)]
        if len(coverage.scenes) > 4:
            rows.append((f"{len(coverage.scenes) - 4} more",
                         sum(map(len, coverage.scenes[4:])), ""))
        charts.append(("Backgrounds", rows))
    wide = (WIDTH - 2 * _EDGE + 24) // 3
    tops = [_BARS_TOP] * 3
    for number, (title, rows) in enumerate(charts):
        column = number % 3
        _bar_chart(draw, (_EDGE + column * wide, tops[column]), wide - 24, title, rows,
                   coverage.photos)
        tops[column] += max(180, 58 + _BAR_STEP * len(rows))


def _demand(part: str, needed: Sequence[str] | None, names: Mapping[str, str]) -> str:
    """What a missing part is called for; where any of several does, each names the others."""
    if needed is None:
        return ""
    others = [names[other] for other in needed if other != part]
    return f"this or {' or '.join(others)}" if others else "needed"


def _bar_chart(draw: ImageDraw.ImageDraw, corner: tuple[int, int], width: int, title: str,
               rows: Sequence[tuple[str, int, str]], total: int) -> None:
    """Draw a bar per row of (name, count, demand); a demand is written where the bar ends."""
    x, y = corner
    draw.text((x, y), title, _INK, font(18))
    first = x + 132
    for number, (name, count, demand) in enumerate(rows):
        line = y + 42 + _BAR_STEP * number
        draw.text((first - 8, line), name, _WANT if demand else _FAINT, font(15), anchor="rm")
        draw.rectangle((first, line - 7, x + width - 36, line + 7), _CELL_FILL)
        long = (x + width - 36 - first) * count / max(total, 1)
        if count:
            draw.rectangle((first, line - 7, first + max(long, 2), line + 7), _BAR)
        if demand:
            draw.text((first + long + 6, line), demand, _WANT, font(13), anchor="lm")
        draw.text((x + width - 28, line), str(count), _INK if count else _FAINT, font(15),
                  anchor="lm")


def _list(draw: ImageDraw.ImageDraw, advice: Advice) -> None:
    right, y = WIDTH - _EDGE, _LIST_TOP
    draw.line((_EDGE, y - 18, right, y - 18), _LINE, 2)
    title = "Shoot nothing more" if advice.done else "Shoot next"
    draw.text((_EDGE, y), title, _GOOD if advice.done else _INK, font(24))
    y += 40
    for number, shot in enumerate(advice.shots, start=1):
        draw.ellipse((_EDGE, y, _EDGE + 32, y + 32), _WANT)
        draw.text((_EDGE + 16, y + 16), str(number), _PAPER, font(18), anchor="mm")
        draw.text((right, y + 3), shot.rise, _GOOD, font(22), anchor="ra")
        for line in wrap(draw, shot.text, 18, right - _EDGE - 130, 2):
            draw.text((_EDGE + 46, y), line, _INK, font(18))
            y += 24
        why = fit(draw, shot.why.capitalize() + ".", 15, right - _EDGE - 130)
        draw.text((_EDGE + 46, y), why, _FAINT, font(15))
        y += 30
    if advice.reshoot:
        y += 8
        draw.text((_EDGE, y), "Take again", _INK, font(20))
        y += 30
        for again in advice.reshoot[:max((HEIGHT - 30 - y) // 24, 0)]:
            draw.text((_EDGE, y), fit(draw, again.text, 16, right - _EDGE), _INK,
                      font(16))
            y += 24
