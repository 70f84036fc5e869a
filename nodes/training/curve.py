"""The loss curve as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def smoothed(losses: Sequence[float]) -> np.ndarray:
    """Mean over a window of a tenth of the run, each step with those before it."""
    values = np.asarray(losses, dtype=np.float64)
    window = max(1, len(values) // 10)
    total = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (total[ends] - total[starts]) / (ends - starts)


def draw(losses: Sequence[float], title: str) -> np.ndarray:
    """Plot a run's losses, raw and smoothed, as (H, W, 3) uint8.

    Single losses say little: each belongs to another photo and noise level.
    """
    # Takes most of a second to import, and only a finished run needs it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, losses, linewidth=0.6, color="#b8c4d6", label="step")
    axes.plot(steps, smoothed(losses), linewidth=1.8, color="#1f4e8c", label="mean")
    axes.set(xlabel="step", ylabel="loss", title=title)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
