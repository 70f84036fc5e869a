"""What a sweep's pictures say: each cell's score, and the curves over the columns."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..calibration.calibration import Calibration
from ..score.copying import Originals, copying, originals
from ..score.diversity import correlations
from ..score.report import FORMAT as REPORT_FORMAT
from ..score.report import rounded, yardstick_entry
from ..score.score import MAX_YAW, Yardstick, score_pictures
from .knee import Point, Recommendation, best_model, recommend
from .sweep import Grid, Store

PROMPT, VARIETY, COMPOSITION, NOTHING = "clip_t", "variety", "composition", "none"
FORMULAS = {
    PROMPT: "CLIP-T: mean cosine of the CLIP embeddings of picture and prompt, the person's word "
            "replaced by the class noun (DreamBooth, arXiv 2208.12242)",
    VARIETY: "mean of 1 - max(0, correlation at 32 x 32 pixels) over pairs of pictures of two "
             "prompts with one seed: a model that has collapsed shows the same for every prompt "
             "(after DreamBooth's DIV, arXiv 2208.12242)",
    COMPOSITION: "mean of max(0, correlation at 32 x 32 pixels) with the picture of strength 0, "
                 "prompt and seed being the same: how much of the model's own picture is left",
    NOTHING: "not measured: connect `clip_vision`, enter two prompts, or sweep from strength 0",
}

_ROUNDS = 200  # of fitting columns and prompts in turn


@dataclass(frozen=True, eq=False)
class Judge:
    """Who measures the cells."""

    measure: Yardstick
    several: str = "most like the subject"
    max_yaw: float = MAX_YAW

    @functools.cached_property
    def key(self) -> str:
        """Changes with everything that a cell's figures depend on beside its pixels."""
        calibration, subject = self.measure.calibration, self.measure.subject
        digest = hashlib.sha256(repr((
            REPORT_FORMAT, self.measure.backend, self.several, self.max_yaw,
            calibration.keep_from, calibration.reject_below,
            *([(photo.sha256, photo.face and photo.face.box) for photo in photos]
              for photos in (subject.references, subject.held_out)))).encode())
        # Limits are made from the spread and the bank; files that are gone take no part in copies.
        for rows in (self.measure.photos, [self._known.limit or 0.0],
                     *(pattern for _, pattern in self._known.patterns)):
            digest.update(np.ascontiguousarray(rows, np.float32).tobytes())
        return digest.hexdigest()[:16]

    @functools.cached_property
    def _known(self) -> Originals:
        return originals(self.measure)

    def figures(self, pixels: np.ndarray) -> dict[str, Any]:
        """Measure one picture (H, W, 3) uint8 RGB, as JSON; no number without a face."""
        score, = score_pictures([pixels], self.measure, self.several, self.max_yaw)
        copy = copying(pixels, score, self._known)
        return {"judge": self.key, "status": score.status, "verdict": score.verdict.value,
                "score": rounded(score.score), "score_held_out": rounded(score.held_out),
                "percentile": rounded(score.percentile, 1),
                "copied": None if copy is None else copy.copied,
                "judges": [{"backend": opinion.backend, "score": rounded(opinion.score),
                            "verdict": opinion.verdict.value} for opinion in score.opinions],
                "judges_differ": score.disputed,
                "yaw": None if score.face is None else round(score.face.pose.yaw, 1),
                "reason": score.text}


@dataclass(frozen=True, eq=False)
class Result:
    """A finished sweep."""

    grid: Grid
    figures: tuple[Mapping[str, Any], ...]  # in the order of the cells
    flexibility: np.ndarray  # (cells,) NaN where it cannot be measured
    kind: str  # which of `FORMULAS`
    points: tuple[Point, ...]  # one per column
    choice: Recommendation
    calibration: Calibration

    def of(self, column: int, row: int | None = None) -> list[int]:
        """Numbers of the cells of a column, or of one prompt in it."""
        return [index for index, cell in enumerate(self.grid.cells)
                if cell.column == column and row in (None, cell.row)]


def measure_cells(grid: Grid, store: Store, judge: Judge,
                  on_cell: Callable[[int], None] = lambda done: None) -> list[dict[str, Any]]:
    """Every cell's figures; those of another judge are measured anew on the stored picture."""
    found = []
    for done, cell in enumerate(grid.cells, 1):
        figures = store.figures(cell, judge.key)
        if figures is None:
            figures = judge.figures(store.read(cell))
            store.write_figures(cell, figures)
        found.append(figures)
        on_cell(done)
    return found


def conclude(grid: Grid, figures: Sequence[Mapping[str, Any]], pictures: Sequence[np.ndarray],
             calibration: Calibration, cosines: np.ndarray | None = None) -> Result:
    """Draw the curves and choose.

    Args:
        figures: of each cell.
        pictures: (H, W, 3) uint8 RGB of each cell.
        cosines: CLIP-T of each cell; None: no CLIP is there to ask.
    """
    kind, flexibility = _flexibility(grid, pictures, cosines)
    likeness = np.array([np.nan if each["score"] is None else each["score"] for each in figures])
    (alike, sure), (free, surely) = (_curve(grid, likeness),
                                     _flexibility_curve(grid, kind, flexibility))
    points = tuple(Point(column.strength, alike[place][0], free[place][0], alike[place][1],
                         free[place][1]) for place, column in enumerate(grid.columns))
    if grid.strengths:
        choice = recommend(points, min(sure, surely))
    else:
        choice = best_model([column.label for column in grid.columns], points, sure)
    return Result(grid, tuple(figures), flexibility, kind, points, choice, calibration)


def _flexibility(grid: Grid, pictures: Sequence[np.ndarray],
                 cosines: np.ndarray | None) -> tuple[str, np.ndarray]:
    if cosines is not None:
        return PROMPT, np.asarray(cosines, np.float64)
    if len(grid.prompts) > 1:
        return VARIETY, _variety(grid, pictures)
    plain = [place for place, column in enumerate(grid.columns) if column.strength == 0]
    if grid.strengths and plain and len(grid.columns) > 1:
        return COMPOSITION, _composition(grid, pictures, plain[0])
    return NOTHING, np.full(len(pictures), np.nan)


def _variety(grid: Grid, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """How much each picture differs from those of the other prompts with its column and seed."""
    values = np.full(len(grid.cells), np.nan)
    for place in range(len(grid.columns)):
        for seed in grid.seeds:
            numbers = [index for index, cell in enumerate(grid.cells)
                       if (cell.column, cell.seed) == (place, seed)]
            apart = 1 - correlations([pictures[index] for index in numbers]).clip(0)
            values[numbers] = apart.sum(1) / (len(numbers) - 1)
    return values


def _composition(grid: Grid, pictures: Sequence[np.ndarray], plain: int) -> np.ndarray:
    numbers = {(cell.column, cell.row, cell.seed): index for index, cell in enumerate(grid.cells)}
    return np.array([max(0.0, float(correlations(
        [pictures[index], pictures[numbers[plain, cell.row, cell.seed]]])[0, 1]))
        for index, cell in enumerate(grid.cells)])


def _curve(grid: Grid, values: np.ndarray,
           apart: float = 1.0) -> tuple[list[tuple[float | None, float]], int]:
    """Mean and standard error of each column, and the errors' degrees of freedom.

    Prompts differ more than strengths do, and the hard ones lose their faces first, so that a plain
    mean would rise by what is missing. So the mean is that of the additive model value = column +
    prompt and seed, fitted by least squares, and the error that of its residuals. A column of which
    less than half is known has none: (None, 0).

    Args:
        apart: by how much the values hang together; multiplies the error.
    """
    table = values.reshape(len(grid.columns), -1)
    known = np.isfinite(table)
    known &= (2 * known.sum(1) >= known.shape[1])[:, None]
    filled = np.where(known, table, 0.0)
    rows, across = known.sum(1), known.sum(0)
    columns, cells = np.zeros(len(rows)), np.zeros(len(across))
    for _ in range(_ROUNDS):  # each step is the least squares of one side given the other
        columns = (filled - known * cells).sum(1) / np.maximum(rows, 1)
        cells = (filled - known * columns[:, None]).sum(0) / np.maximum(across, 1)
    rest = known * (filled - columns[:, None] - cells)
    freedom = int(known.sum() - (rows > 0).sum() - (across > 0).sum() + 1)
    sigma = float(np.sqrt((rest ** 2).sum() / freedom)) if freedom > 0 else 0.0
    typical = float(cells[across > 0].mean()) if across.any() else 0.0
    return [(float(column + typical), apart * sigma / float(np.sqrt(count)))
            if count else (None, 0.0) for column, count in zip(columns, rows, strict=True)
            ], max(freedom, 0)


def _flexibility_curve(grid: Grid, kind: str,
                       values: np.ndarray) -> tuple[list[tuple[float | None, float]], int]:
    """The curve of flexibility, with an error that knows which values hang together."""
    if kind != VARIETY:
        return _curve(grid, values)
    if len(grid.prompts) == 2:  # both say the same, so there is one value a seed
        return _curve(grid, values.reshape(len(grid.columns), 2, -1).mean(1).ravel())
    # The mean over pairs has up to twice the error of the mean of as many single values
    # (Hoeffding 1948, doi 10.1214/aoms/1177730196).
    return _curve(grid, values, apart=2.0)


def report(result: Result, store: Store, judge: Judge, made: int) -> dict[str, Any]:
    """A sweep as JSON.

    Args:
        made: how many cells this call has sampled; the others lay on disk.
    """
    grid, choice = result.grid, result.choice
    return {
        "format": 1, "kind": "likeness_sweep", "subject": judge.measure.subject.name,
        "backend": judge.measure.backend, "folder": str(store.folder),
        "axis": "strength" if grid.strengths else "model",
        "best": choice.best, "knee": choice.knee, "advice": choice.text,
        "cells": len(grid.cells), "sampled": made, "reused": len(grid.cells) - made,
        "likeness": "mean similarity of the scored pictures to the robust centre of the subject's "
                    "photos",
        "flexibility": FORMULAS[result.kind], "flexibility_kind": result.kind,
        **yardstick_entry(judge.measure),
        "columns": [_column(result, place) for place in range(len(grid.columns))],
        "prompts": list(grid.prompts),
        "pictures": [{"label": grid.columns[cell.column].label,
                      "strength": grid.columns[cell.column].strength,
                      "prompt": cell.row, "seed": cell.seed, "file": str(store.picture(cell)),
                      "flexibility": _number(flexible),
                      **{name: value for name, value in figures.items() if name != "judge"}}
                     for cell, figures, flexible in zip(grid.cells, result.figures,
                                                        result.flexibility, strict=True)],
    }


def _column(result: Result, place: int) -> dict[str, Any]:
    point, column = result.points[place], result.grid.columns[place]
    cells = [result.figures[index] for index in result.of(place)]
    heights = result.choice.heights
    return {"label": column.label, "strength": column.strength,
            "likeness": rounded(point.likeness), "likeness_error": rounded(point.likeness_error),
            "flexibility": rounded(point.flexibility),
            "flexibility_error": rounded(point.flexibility_error),
            "height": rounded(heights[place]) if heights else None,
            "pictures": len(cells),
            "scored": sum(cell["status"] == "scored" for cell in cells),
            "keep": sum(cell["verdict"] == "keep" for cell in cells),
            "judges_differ": sum(bool(cell.get("judges_differ")) for cell in cells),
            "copies": sum(bool(cell["copied"]) for cell in cells)}


def _number(value: float) -> float | None:
    return rounded(value) if np.isfinite(value) else None
