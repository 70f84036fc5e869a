"""What the pages of scoring share: colours, thumbnails and charts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, ImageOps

GROUND, CARD, INK, FAINT, RULE = "#14161a", "#1f2329", "#f2f4f7", "#98a1ad", "#333942"
ACCENT, SECOND = "#5aa2ff", "#e0a526"
VERDICTS = {"keep": "#3ba55d", "unsure": "#e0a526", "reject": "#d64545"}
STATUS_WORDS = {"no_face": "no face", "several_faces": "several faces",
                "not_scoreable": "not scoreable", "scored": "scored"}
_DPI = 100


def paste(canvas: Image.Image, pixels: np.ndarray,
          box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Put a picture (H, W, 3) uint8 RGB into a box, whole and centred; answer where it lies."""
    left, top, right, bottom = box
    small = ImageOps.contain(Image.fromarray(pixels), (right - left, bottom - top),
                             Image.Resampling.LANCZOS)
    x = left + (right - left - small.width) // 2
    y = top + (bottom - top - small.height) // 2
    canvas.paste(small, (x, y))
    return x, y, x + small.width, y + small.height


@contextmanager
def chart(width: int, height: int) -> Iterator[tuple[Any, list[np.ndarray]]]:
    """A figure to draw on; when the block ends the list holds it as (height, width, 3) uint8."""
    # Takes most of a second to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, layout="constrained",
                    facecolor=CARD)
    canvas = FigureCanvasAgg(figure)
    drawn: list[np.ndarray] = []
    yield figure, drawn
    canvas.draw()
    drawn.append(np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]))


def plain_axes(axes: Any) -> Any:
    """Give axes the pages' colours."""
    axes.set_facecolor(CARD)
    for side, spine in axes.spines.items():
        spine.set_color(RULE)
        spine.set_visible(side in ("left", "bottom"))
    axes.tick_params(colors=FAINT, labelsize=10)
    axes.grid(color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
        label.set_color(FAINT)
        label.set_fontsize(11)
    return axes


def legend(axes: Any, **placed: Any) -> None:
    """Name what is drawn."""
    axes.legend(frameon=False, fontsize=10, labelcolor=INK, **placed)
