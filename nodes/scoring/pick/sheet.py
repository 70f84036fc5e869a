"""The sheet of a choice: what was picked, and why each of the others was not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ...media.lettering import fit, font, wrap
from ..drawing import CARD, FAINT, GROUND, INK, VERDICTS, paste
from ..score.report import LikenessReport
from ..score.score import Score
from .pick import Choice

CELL, CAPTION, GAP, HEADER = 240, 92, 14, 84  # pixels
COLUMNS = 6
SHOWN = 120  # pictures; of more the first of the ranking


def draw_picks(choices: Sequence[Choice], report: LikenessReport,
               pictures: Sequence[np.ndarray]) -> np.ndarray:
    """The picked pictures first, then the others with the reason, as (H, W, 3) uint8.

    Args:
        choices: of the report's pictures, best first.
        pictures: (H, W, 3) uint8 RGB by their number in the batch.
    """
    scores = {score.index: score for score in report.scores}
    shown = sorted(choices, key=lambda choice: not choice.picked)[:SHOWN]
    columns = min(COLUMNS, max(3, len(shown)))
    rows = math.ceil(len(shown) / columns)
    width = GAP + columns * (CELL + GAP)
    sheet = Image.new("RGB", (width, HEADER + rows * (CELL + CAPTION + GAP)), GROUND)
    draw = ImageDraw.Draw(sheet)
    picked = sum(choice.picked for choice in choices)
    draw.text((GAP, 12), fit(draw, f"Picked for {report.subject}", 28, width - 2 * GAP), INK,
              font=font(28))
    more = f", the first {SHOWN} shown" if len(choices) > SHOWN else ""
    draw.text((GAP, 52), f"{picked} of {len(choices)} pictures{more}; judged by {report.backend}",
              FAINT, font=font(16))
    for place, choice in enumerate(shown):
        row, column = divmod(place, columns)
        corner = (GAP + column * (CELL + GAP), HEADER + row * (CELL + CAPTION + GAP))
        _draw_card(sheet, draw, corner, place + 1, choice, scores[choice.index],
                   pictures[choice.index])
    return np.ascontiguousarray(np.asarray(sheet))


def _draw_card(sheet: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], place: int,
               choice: Choice, score: Score, pixels: np.ndarray) -> None:
    left, top = corner
    colour = VERDICTS["keep" if choice.picked else "reject"]
    draw.rectangle((left, top, left + CELL - 1, top + CELL + CAPTION - 1), CARD)
    paste(sheet, pixels, (left, top, left + CELL, top + CELL))
    draw.rectangle((left, top + CELL, left + CELL - 1, top + CELL + 3), colour)
    if choice.picked:
        draw.rectangle((left, top, left + 34, top + 26), colour)
        draw.text((left + 17, top + 13), str(place), GROUND, font=font(17), anchor="mm")
    line = top + CELL + 9
    value = "-" if score.score is None else f"{score.score:.2f}"
    draw.text((left + 8, line), value, INK, font=font(20))
    draw.text((left + CELL - 8, line + 2), "picked" if choice.picked else choice.rule, colour,
              font=font(16), anchor="ra")
    text = f"image {choice.index + 1}. {choice.text}"
    for number, words in enumerate(wrap(draw, text, 13, CELL - 16, 3)):
        draw.text((left + 8, line + 27 + 17 * number), words, FAINT, font=font(13))
