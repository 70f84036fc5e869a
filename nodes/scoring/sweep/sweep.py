"""A drift sweep as data: which pictures it consists of, and where each lies on disk.

A cell is one picture: a strength (or a model), a prompt and a seed. Its file depends on all that
decides its pixels, so an interrupted sweep goes on, and a wider one makes only what is new.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import LikenessError
from ...files import write_whole
from ...media.images import read_photo
from ...sockets import Subject

FORMAT = 1
TRIGGERS, SUBJECTS = ("%trigger%", "{trigger}"), ("{subject}", "%subject%")


@dataclass(frozen=True)
class Column:
    """What stands across the sweep."""

    label: str
    strength: float  # of the LoRA; the number of the model where models are compared
    key: str  # tells it from other columns of the same folder


@dataclass(frozen=True)
class Cell:
    """One picture."""

    column: int
    row: int  # which prompt
    seed: int
    name: str  # of its files, without a suffix


@dataclass(frozen=True)
class Grid:
    """The pictures of a sweep, strength by strength."""

    columns: tuple[Column, ...]
    templates: tuple[str, ...]  # prompts as entered
    prompts: tuple[str, ...]  # with the person's words in place
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    strengths: bool  # whether the columns are strengths of one LoRA


def parse_strengths(text: str) -> tuple[float, ...]:
    """Read numbers between commas or blanks, ascending.

    Raises:
        LikenessError: none, a word that is no number, one beyond -4 to 4, or one twice.
    """
    words = [word for word in re.split(r"[,;\s]+", text) if word]
    if not words:
        raise LikenessError("`strengths` is empty; enter numbers such as 0, 0.4, 0.6, 0.8, 1.0.")
    values = []
    for word in words:
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not -4 <= value <= 4:  # nor nan
            raise LikenessError(f"`strengths` must be numbers from -4 to 4 between commas; got "
                                f"`{word}`.")
        values.append(value)
    if len(set(values)) < len(values):
        double = next(value for value in values if values.count(value) > 1)
        raise LikenessError(f"`strengths` names {double:g} twice; leave one out.")
    return tuple(sorted(values))


def parse_prompts(text: str) -> tuple[str, ...]:
    """Read one prompt a line.

    Raises:
        LikenessError: there is none, or one stands twice.
    """
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise LikenessError("`prompts` is empty; enter one prompt a line, such as `photo of "
                            "{subject}`.")
    for line in lines:
        if lines.count(line) > 1:
            raise LikenessError(f"`prompts` has `{line}` twice; raise `seeds` to get more pictures "
                                "of one prompt.")
    return lines


def filled(template: str, trigger: str, subject: Subject) -> str:
    """A prompt with the trigger alone, or the trigger and the class noun, in place."""
    for mark in TRIGGERS:
        template = template.replace(mark, trigger)
    for mark in SUBJECTS:
        template = template.replace(mark, f"{trigger} {subject.class_noun}".strip())
    return template


def make_grid(columns: Sequence[Column], templates: Sequence[str], trigger: str, subject: Subject,
              first_seed: int, seeds: int, most: int, strengths: bool,
              told: Callable[[str], str] = lambda prompt: "") -> Grid:
    """Cross columns, prompts and seeds.

    Args:
        told: what else a prompt's pictures depend on, beside its text.

    Raises:
        LikenessError: more than `most` cells, or two columns that are the same.
    """
    total = len(columns) * len(templates) * seeds
    if total > most:
        raise LikenessError(f"{len(columns)} columns x {len(templates)} prompts x {seeds} seeds "
                            f"are {total} pictures, more than `max_cells` ({most}); take fewer, or "
                            "raise it.")
    seen: dict[str, str] = {}
    for column in columns:
        if column.key in seen:
            raise LikenessError(f"`{seen[column.key]}` and `{column.label}` are the same model; "
                                "leave one out.")
        seen[column.key] = column.label
    prompts = tuple(filled(template, trigger, subject) for template in templates)
    numbers = tuple(range(first_seed, first_seed + seeds))
    shorts = [_short(prompt + told(prompt)) for prompt in prompts]
    cells = tuple(Cell(place, row, seed, f"{column.key}_{shorts[row]}_{seed}")
                  for place, column in enumerate(columns)
                  for row in range(len(prompts)) for seed in numbers)
    return Grid(tuple(columns), tuple(templates), prompts, numbers, cells, strengths)


def folder_key(*parts: Any) -> str:
    """The name of a sweep's folder: all that its pictures share."""
    return _digest([FORMAT, *parts])[:16]


def _short(text: str) -> str:
    return _digest(text)[:8]


def _digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


class Store:
    """The cells of one sweep folder: a PNG and a JSON each, written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def picture(self, cell: Cell) -> Path:
        """Where a cell's picture lies."""
        return self.folder / f"{cell.name}.png"

    def has(self, cell: Cell) -> bool:
        """Whether a cell has been made and its picture can be read."""
        try:
            with Image.open(self.picture(cell)) as picture:
                picture.verify()
        except (OSError, SyntaxError):  # Pillow's word for a damaged PNG
            return False
        return True

    def write(self, cell: Cell, pixels: np.ndarray) -> None:
        """Keep a cell's picture (H, W, 3) uint8 RGB."""
        write_whole(self.picture(cell), lambda partial: Image.fromarray(pixels).save(
            partial, format="PNG"))

    def read(self, cell: Cell) -> np.ndarray:
        """A cell's picture (H, W, 3) uint8 RGB.

        Raises:
            LikenessError: it is gone or damaged since.
        """
        try:
            return read_photo(self.picture(cell))
        except OSError as err:
            raise LikenessError(f"{self.picture(cell)} cannot be read any more ({err}); queue the "
                                "sweep again, so that it is made anew.") from err

    def write_figures(self, cell: Cell, figures: dict[str, Any]) -> None:
        """Keep what was measured on a cell."""
        text = json.dumps(figures, indent=1, allow_nan=False)
        write_whole(self.folder / f"{cell.name}.json",
                    lambda partial: partial.write_text(text, encoding="utf-8"))

    def figures(self, cell: Cell, judge: str) -> dict[str, Any] | None:
        """What a judge has measured on a cell; None: nothing, or it was another judge."""
        try:
            found = json.loads((self.folder / f"{cell.name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and found.get("judge") == judge else None
