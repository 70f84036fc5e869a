"""A sweep as pictures: all cells in a grid, and the curves of likeness and flexibility."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ...media.lettering import fit, font, wrap
from ..drawing import (
    ACCENT,
    CARD,
    FAINT,
    GROUND,
    INK,
    SECOND,
    STATUS_WORDS,
    VERDICTS,
    chart,
    legend,
    paste,
    plain_axes,
)
from .figures import COMPOSITION, NOTHING, PROMPT, VARIETY, Result

GAP, SIDE, HEAD, FOOT = 8, 190, 34, 26  # pixels
TILES = ((60, 192), (200, 128), (10 ** 9, 96))  # up to so many cells, so large
CHART = (960, 640)
_NAMES = {PROMPT: "prompt adherence (CLIP-T)", VARIETY: "variety across prompts",
          COMPOSITION: "composition kept", NOTHING: "flexibility"}


def tile_size(cells: int) -> int:
    """The side of one picture in the grid."""
    return next(side for most, side in TILES if cells <= most)


def draw_grid(result: Result, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Columns across, prompts and their seeds down, the score under each: (H, W, 3) uint8."""
    grid, tile = result.grid, tile_size(len(pictures))
    rows = [(row, seed) for row in range(len(grid.prompts)) for seed in grid.seeds]
    across, down = tile + GAP, tile + FOOT + GAP
    canvas = Image.new("RGB", (SIDE + len(grid.columns) * across + GAP,
                               HEAD + len(rows) * down + GAP), GROUND)
    draw = ImageDraw.Draw(canvas)
    for place, column in enumerate(grid.columns):
        best = result.choice.best == column.strength
        text = fit(draw, f"{column.label}{' - best' if best else ''}", 16, tile)
        draw.text((SIDE + place * across + tile / 2, HEAD / 2), text,
                  SECOND if best else INK, font=font(16), anchor="mm")
    for number, (row, seed) in enumerate(rows):
        _draw_side(draw, grid.prompts[row], seed, HEAD + number * down, tile)
    where = {row: number for number, row in enumerate(rows)}
    for cell, figures, pixels in zip(grid.cells, result.figures, pictures, strict=True):
        corner = (SIDE + cell.column * across, HEAD + where[cell.row, cell.seed] * down)
        _draw_cell(canvas, draw, corner, tile, figures, pixels)
    return np.ascontiguousarray(np.asarray(canvas))


def _draw_side(draw: ImageDraw.ImageDraw, prompt: str, seed: int, top: int, tile: int) -> None:
    lines = wrap(draw, prompt, 14, SIDE - 2 * GAP, max(1, (tile - 24) // 18))
    for number, line in enumerate(lines):
        draw.text((GAP, top + 2 + 18 * number), line, INK, font=font(14))
    draw.text((GAP, top + 6 + 18 * len(lines)), f"seed {seed}", FAINT, font=font(12))


def _draw_cell(canvas: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], tile: int,
               figures: Mapping[str, Any], pixels: np.ndarray) -> None:
    left, top = corner
    colour = VERDICTS[figures["verdict"]]
    draw.rectangle((left, top, left + tile - 1, top + tile + FOOT - 1), CARD)
    paste(canvas, pixels, (left, top, left + tile, top + tile))
    draw.rectangle((left, top + tile, left + tile - 1, top + tile + 2), colour)
    scored = figures["score"] is not None
    text = f"{figures['score']:.2f}" if scored else STATUS_WORDS[figures["status"]]
    if figures["copied"]:
        text += " copy"
    draw.text((left + tile / 2, top + tile + 4 + (FOOT - 4) / 2), fit(draw, text, 14, tile - 4),
              INK if scored else FAINT, font=font(14), anchor="mm")


def draw_chart(result: Result) -> np.ndarray:
    """Likeness with the subject's own photos' band above, flexibility below: (H, W, 3) uint8."""
    with chart(*CHART) as (figure, drawn):
        figure.suptitle(_title(result), color=INK, fontsize=13)
        upper, lower = figure.subplots(2, 1, sharex=True)
        _draw_likeness(plain_axes(upper), result)
        _draw_flexibility(plain_axes(lower), result)
        _mark_columns(lower, result)
    return drawn[0]


def _title(result: Result) -> str:
    return "\n".join(textwrap.wrap(result.choice.text, 96))


def _across(result: Result) -> np.ndarray:
    return np.array([column.strength for column in result.grid.columns])


def _draw_likeness(axes: Any, result: Result) -> None:
    calibration, xs = result.calibration, _across(result)
    spread = calibration.spread
    if spread is not None:
        axes.axhspan(spread.low, max(spread.similarities), color=VERDICTS["keep"], alpha=0.16,
                     linewidth=0, label="own photos, each against the others")
        axes.axhline(spread.median, color=VERDICTS["keep"], linewidth=1, linestyle=":")
    for limit, verdict, name in ((calibration.keep_from, "keep", "keep from"),
                                 (calibration.reject_below, "reject", "reject below")):
        if limit is not None:
            axes.axhline(limit, color=VERDICTS[verdict], linewidth=1, linestyle="--",
                         label=f"{name} {limit:.2f}")
    dots = [(xs[cell.column], figures["score"]) for cell, figures
            in zip(result.grid.cells, result.figures, strict=True) if figures["score"] is not None]
    _draw_curve(axes, xs, [point.likeness for point in result.points],
                [point.likeness_error for point in result.points], dots, ACCENT, "likeness")
    blind = [x for x, point in zip(xs, result.points, strict=True) if point.likeness is None]
    if blind:
        axes.scatter(blind, [0] * len(blind), marker="x", color=FAINT, label="nothing scored",
                     transform=axes.get_xaxis_transform(), clip_on=False, zorder=4)
    axes.set_ylabel("similarity")
    _mark_best(axes, result)
    legend(axes, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3)


def _draw_flexibility(axes: Any, result: Result) -> None:
    xs = _across(result)
    dots = [(xs[cell.column], value) for cell, value
            in zip(result.grid.cells, result.flexibility, strict=True) if np.isfinite(value)]
    _draw_curve(axes, xs, [point.flexibility for point in result.points],
                [point.flexibility_error for point in result.points], dots, SECOND,
                _NAMES[result.kind])
    if not dots:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=FAINT)
    axes.set_ylabel(_NAMES[result.kind])
    _mark_best(axes, result)


def _draw_curve(axes: Any, xs: np.ndarray, values: Sequence[float | None],
                errors: Sequence[float], dots: Sequence[tuple[float, float]], colour: str,
                name: str) -> None:
    """A line with a gap where nothing was measured, and each picture as a dot."""
    heights = np.array([np.nan if value is None else value for value in values], np.float64)
    if not np.isfinite(heights).any():
        return
    if dots:
        axes.scatter(*np.array(dots).T, s=14, color=colour, alpha=0.45, linewidths=0, zorder=2)
    axes.errorbar(xs, heights, yerr=errors, color=colour, marker="o", markersize=5, linewidth=2,
                  capsize=3, elinewidth=1, label=name, zorder=3)


def _mark_best(axes: Any, result: Result) -> None:
    if result.choice.best is not None:
        axes.axvline(result.choice.best, color=INK, linewidth=1.2, linestyle="-.",
                     label="knee" if result.choice.knee else "best")


def _mark_columns(axes: Any, result: Result) -> None:
    columns = result.grid.columns
    axes.set_xticks(_across(result), [column.label for column in columns])
    axes.set_xlabel("strength" if result.grid.strengths else "model")
    axes.xaxis.label.set_color(FAINT)
    if not result.grid.strengths:
        axes.tick_params(axis="x", labelrotation=20)
