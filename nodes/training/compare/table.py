"""Techniques as a table: in words for a page, and as a picture with what each has drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ...media.lettering import fit, font
from .measure import Technique

_GROUND, _BAND, _INK, _FAINT, _BEST = "#14161a", "#1f2329", "#f2f4f7", "#98a1ad", "#e0a526"
_TILE, _GAP, _HEAD, _NAME, _CELL = 132, 8, 44, 190, 124  # pixels
_SIZE = 17  # of the letters


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _size(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else (
        f"{value / 1e6:.1f} MB" if value >= 1e5 else f"{value / 1e3:.0f} KB")


def _time(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"


def _columns(rows: Sequence[Technique]) -> list[tuple[str, str, Callable[[Technique], Any],
                                                      Callable[[Any], str]]]:
    """Title, which end is best, what it reads and how it is written; empty columns are left out."""
    judges = sorted({name for row in rows for name in row.judges})
    columns = [("likeness", "most", lambda row: row.likeness, _plain)]
    columns += [(name, "most", lambda row, name=name: row.judges.get(name), _plain)
                for name in judges]
    columns += [
        # These have no best end: a model that has learned nothing would win.
        ("copy-paste", "", lambda row: row.copy, _plain),
        ("diversity", "", lambda row: row.diversity, _plain),
        ("class word", "", lambda row: row.class_likeness, _plain),
        ("faces", "", lambda row: f"{row.faces} of {row.pictures}", str),
        ("file", "least", lambda row: row.bytes, _size),
        ("training", "least", lambda row: row.seconds, _time),
        ("peak memory", "least", lambda row: row.peak_bytes, _size)]
    return [column for column in columns if any(column[2](row) is not None for row in rows)]


def markdown(rows: Sequence[Technique]) -> str:
    """The table as Markdown, one line for each technique."""
    columns = _columns(rows)
    lines = ["| technique | " + " | ".join(title for title, *_ in columns) + " |",
             "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        label = row.label.replace("|", "/")
        cells = [write(read(row)) for _, _, read, write in columns]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _best(rows: Sequence[Technique], end: str, read: Callable[[Technique], Any]) -> Any:
    """The best value of a column among those that were trained; None: there is no best."""
    known = [read(row) for row in rows if row.method and read(row) is not None]
    if not end or len(known) < 2:
        return None
    return max(known) if end == "most" else min(known)


def draw(rows: Sequence[Technique]) -> np.ndarray:
    """The table with the pictures of each technique, as (H, W, 3) uint8; the best are marked.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("There is no technique to show.")
    columns = _columns(rows)
    pictures = max(len(row.shown) for row in rows)
    left = _NAME + _CELL * len(columns) + _GAP
    canvas = Image.new("RGB", (left + pictures * (_TILE + _GAP) + _GAP,
                               _HEAD + len(rows) * (_TILE + _GAP)), _GROUND)
    pen = ImageDraw.Draw(canvas)
    for place, (title, *_) in enumerate(columns):
        pen.text((_NAME + _CELL * place + _CELL / 2, _HEAD / 2),
                 fit(pen, title, _SIZE, _CELL - 6), _FAINT, font(_SIZE), anchor="mm")
    best = [_best(rows, end, read) for _, end, read, _ in columns]
    for number, row in enumerate(rows):
        top = _HEAD + number * (_TILE + _GAP)
        pen.rectangle((0, top, canvas.width, top + _TILE), _BAND)
        middle = top + _TILE / 2
        pen.text((_GAP * 2, middle), fit(pen, row.label, _SIZE + 2, _NAME - 3 * _GAP), _INK,
                 font(_SIZE + 2), anchor="lm")
        for place, (_, _, read, write) in enumerate(columns):
            value = read(row)
            marked = row.method and best[place] is not None and value == best[place]
            pen.text((_NAME + _CELL * place + _CELL / 2, middle), write(value),
                     _BEST if marked else _INK, font(_SIZE), anchor="mm")
        for place, pixels in enumerate(row.shown):
            small = Image.fromarray(pixels)
            small.thumbnail((_TILE, _TILE), Image.Resampling.LANCZOS)
            canvas.paste(small, (left + place * (_TILE + _GAP) + (_TILE - small.width) // 2,
                                 top + (_TILE - small.height) // 2))
    return np.ascontiguousarray(np.asarray(canvas))
