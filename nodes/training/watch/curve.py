"""A run as pictures: its curves, and what it showed at each look."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .monitor import Look, Shot

_LOSS, _FAINT, _LIKENESS, _COPY, _KEPT = "#1f4e8c", "#b8c4d6", "#2a8a4a", "#c0392b", "#e2a028"
_QUARTERS = ("clean", "", "", "noise")

_TILE, _GAP, _SIDE, _FOOT = 192, 8, 150, 22  # pixels
_ROWS, _COLUMNS = 16, 8  # what a sheet shows at most
_GROUND, _TEXT, _DIM, _GOLD = (18, 20, 24), (236, 238, 241), (168, 174, 184), (226, 160, 40)


def smoothed(losses: Sequence[float]) -> np.ndarray:
    """Mean over a window of a tenth of the run, each step with those before it."""
    values = np.asarray(losses, dtype=np.float64)
    window = max(1, len(values) // 10)
    total = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (total[ends] - total[starts]) / (ends - starts)


def draw(losses: Sequence[float], title: str, looks: Sequence[Look] = (),
         quarters: Sequence[float | None] = (), kept: int | None = None,
         reason: str = "") -> np.ndarray:
    """Plot a run's losses, raw and smoothed, and what its looks found, as (H, W, 3) uint8.

    Single losses say little: each belongs to another photo and noise level.

    Args:
        quarters: mean loss by quarter of the noise levels, from clean to noise; None: no step
            was there.
        kept: the step whose state is the result.
        reason: why the run ended; stands below the title.
    """
    # Takes most of a second to import, and only a finished run needs it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7 if looks else 4.5), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle("\n".join([title, *textwrap.wrap(reason, 92)]), fontsize=11)
    grid = figure.add_gridspec(2 if looks else 1, 2 if quarters else 1,
                               width_ratios=(4, 1) if quarters else None)
    above = figure.add_subplot(grid[0, 0])
    _draw_losses(above, losses)
    axes = [above]
    if looks:
        axes.append(figure.add_subplot(grid[1, 0], sharex=above))
        _draw_looks(axes[1], looks)
    if quarters:
        _draw_quarters(figure.add_subplot(grid[0, 1]), quarters)
    for each in axes:
        if kept is not None:
            each.axvline(kept, color=_KEPT, linewidth=1.4, linestyle="--",
                         label=f"kept: step {kept}")
        each.grid(alpha=0.25)
        each.legend(frameon=False, fontsize=8)
    axes[-1].set_xlabel("step")
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _draw_losses(axes: Any, losses: Sequence[float]) -> None:
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, losses, linewidth=0.6, color=_FAINT, label="step")
    axes.plot(steps, smoothed(losses), linewidth=1.8, color=_LOSS, label="mean")
    axes.set_ylabel("loss")


def _draw_looks(axes: Any, looks: Sequence[Look]) -> None:
    """The medians as lines with a gap where no picture could be scored, each picture as a dot."""
    steps = [look.step for look in looks]
    for name, values, shots, colour in (
            ("held-out likeness" if all(look.held_out for look in looks) else "likeness",
             [look.likeness for look in looks], "likeness", _LIKENESS),
            ("copy-paste", [look.copy for look in looks], "copy", _COPY)):
        dots = [(look.step, getattr(shot, shots)) for look in looks for shot in look.shots
                if getattr(shot, shots) is not None]
        axes.scatter(*np.array(dots).reshape(-1, 2).T, s=7, color=colour, alpha=0.35, linewidths=0)
        axes.plot(steps, np.array(values, dtype=float), marker="o", markersize=4, color=colour,
                  label=name)
    blind = [look.step for look in looks if look.likeness is None]
    if blind:
        axes.scatter(blind, [0] * len(blind), marker="x", color="black", label="nothing scored")
    axes.set_ylabel("likeness, copy-paste")


def _draw_quarters(axes: Any, quarters: Sequence[float | None]) -> None:
    heights = [0.0 if value is None else value for value in quarters]
    axes.bar(range(len(heights)), heights, color=_LOSS, width=0.7)
    names = _QUARTERS if len(heights) == len(_QUARTERS) else range(1, len(heights) + 1)
    axes.set_xticks(range(len(heights)), names)
    axes.set_title("loss by noise level", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, axis="y")


def sheet(looks: Sequence[Look], kept: int | None = None) -> np.ndarray:
    """Lay the pictures of looks out, one row each, as (H, W, 3) uint8; the kept row is marked.

    Of many looks an even choice is shown, the kept and the last one always.

    Raises:
        ValueError: no looks.
    """
    if not looks:
        raise ValueError("There are no looks to show.")
    chosen = _chosen(looks, kept)
    columns = min(_COLUMNS, max(len(look.shots) for look in chosen))
    step = _TILE + _FOOT + _GAP
    canvas = Image.new("RGB", (_SIDE + columns * (_TILE + _GAP), len(chosen) * step + _GAP),
                       _GROUND)
    pen = ImageDraw.Draw(canvas)
    for row, look in enumerate(chosen):
        top = _GAP + row * step
        _draw_label(pen, look, top, look.step == kept)
        for column, shot in enumerate(look.shots[:columns]):
            _draw_shot(canvas, pen, shot, _SIDE + column * (_TILE + _GAP), top)
    return np.ascontiguousarray(np.asarray(canvas))


def _chosen(looks: Sequence[Look], kept: int | None) -> list[Look]:
    places = set(np.linspace(0, len(looks) - 1, min(len(looks), _ROWS)).round().astype(int))
    best = [place for place, look in enumerate(looks) if look.step == kept]
    if best and best[0] not in places:
        # In the place of its nearest neighbour, never of the last.
        places.remove(min(places - {len(looks) - 1}, key=lambda place: abs(place - best[0])))
        places.add(best[0])
    return [looks[place] for place in sorted(places)]


def _draw_label(pen: ImageDraw.ImageDraw, look: Look, top: int, kept: bool) -> None:
    if kept:
        pen.rectangle((0, top, 4, top + _TILE), _GOLD)
    lines = [f"step {look.step}", f"likeness {_number(look.likeness)}",
             f"copy-paste {_number(look.copy)}", f"{look.scored} of {len(look.shots)} scored"]
    if kept:
        lines.append("kept")
    for number, line in enumerate(lines):
        pen.text((14, top + 24 * number), line, _TEXT if number == 0 else _DIM,
                 ImageFont.load_default(18 if number == 0 else 14))


def _draw_shot(canvas: Image.Image, pen: ImageDraw.ImageDraw, shot: Shot, left: int,
               top: int) -> None:
    font = ImageFont.load_default(14)
    pixels = shot.picture()
    if pixels is None:
        pen.rectangle((left, top, left + _TILE, top + _TILE), None, _DIM)
        pen.text((left + _TILE / 2, top + _TILE / 2), "deleted", _DIM, font, anchor="mm")
    else:
        picture = Image.fromarray(pixels)
        picture.thumbnail((_TILE, _TILE), Image.Resampling.LANCZOS)
        canvas.paste(picture, (left + (_TILE - picture.width) // 2,
                               top + (_TILE - picture.height) // 2))
    text = _number(shot.likeness) if shot.likeness is not None else shot.status.replace("_", " ")
    pen.text((left + _TILE / 2, top + _TILE + 3), text, _DIM, font, anchor="ma")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
