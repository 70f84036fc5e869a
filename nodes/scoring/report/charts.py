"""The charts of a report's page, drawn from the JSON that other nodes give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..drawing import ACCENT, FAINT, INK, SECOND, VERDICTS, chart, legend, plain_axes

SIZE = (860, 380)  # pixels
_WORDS = {"yaw": "turn", "pitch": "chin", "light_side": "light from", "light_key": "brightness",
          "light_contrast": "contrast", "light_warmth": "colour"}


def coverage_chart(counts: Mapping[str, Mapping[str, int]]) -> np.ndarray:
    """How many photos show each kind of view, axis by axis: (H, W, 3) uint8."""
    with chart(*SIZE) as (figure, drawn):
        columns = 4
        rows = max(1, -(-len(counts) // columns))
        most = max([1, *map(len, counts.values())])
        highest = max([1, *(value for bins in counts.values() for value in bins.values())])
        for place, (axis, bins) in enumerate(counts.items()):
            axes = plain_axes(figure.add_subplot(rows, columns, place + 1))
            _bars(axes, _WORDS.get(axis, axis), bins, highest, most)
    return drawn[0]


def _bars(axes: Any, name: str, bins: Mapping[str, int], highest: int, most: int) -> None:
    """Bars of one height and scale on every axis: room for `highest` photos and `most` bins."""
    values = list(bins.values())
    axes.barh(range(len(values)), values, color=[ACCENT if value else FAINT for value in values],
              height=0.62)
    for place, value in enumerate(values):
        axes.text(value + 0.03 * highest, place, str(value), va="center", fontsize=8,
                  color=INK if value else VERDICTS["reject"])
    axes.set_yticks(range(len(values)), [part.replace("_", " ") for part in bins])
    axes.set_ylim(most - 0.5, -0.5)
    axes.set_xlim(0, 1.2 * highest)
    axes.set_xticks([])
    axes.grid(False)
    axes.tick_params(labelsize=8, length=0)
    axes.set_title(name, fontsize=10, color=INK, loc="left")


def training_chart(told: Mapping[str, Any], history: Mapping[str, Any] | None) -> np.ndarray:
    """The loss of every step and the likeness of every look: (H, W, 3) uint8."""
    steps = [] if history is None else history["steps"]
    looks = told.get("likeness") or []
    with chart(*SIZE) as (figure, drawn):
        wanted = [draw for draw, there in ((_loss, steps), (_looks, looks)) if there]
        if not wanted:
            figure.text(0.5, 0.5, "neither steps nor looks were kept", color=FAINT, ha="center")
        for place, draw in enumerate(wanted):
            axes = plain_axes(figure.add_subplot(len(wanted), 1, place + 1))
            draw(axes, steps if draw is _loss else looks)
            if told.get("kept_step"):
                axes.axvline(told["kept_step"], color=SECOND, linestyle="--", linewidth=1.2,
                             label=f"kept step {told['kept_step']}")
            axes.set_xlim(0, max(told["steps"], 1))
            axes.xaxis.get_major_locator().set_params(integer=True)
            legend(axes, loc="best")
    return drawn[0]


def _loss(axes: Any, steps: Sequence[Mapping[str, Any]]) -> None:
    xs = [step["step"] for step in steps]
    losses = np.array([step["loss"] for step in steps], np.float64)
    axes.plot(xs, losses, color=FAINT, linewidth=0.6, alpha=0.7)
    window = max(1, len(losses) // 10)
    total = np.cumsum(np.concatenate([[0.0], losses]))
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(0, ends - window)
    axes.plot(xs, (total[ends] - total[starts]) / (ends - starts), color=ACCENT, linewidth=1.8,
              label="loss, mean of a tenth of the run")
    axes.set_ylabel("loss")


def _looks(axes: Any, looks: Sequence[Mapping[str, Any]]) -> None:
    xs = [look["step"] for look in looks]
    for name, key, colour in (("likeness", "likeness", VERDICTS["keep"]),
                              ("copy-paste", "copy", VERDICTS["reject"])):
        values = np.array([look.get(key) for look in looks], dtype=np.float64)
        axes.plot(xs, values, color=colour, marker="o", markersize=4, linewidth=1.8, label=name)
    blind = [look["step"] for look in looks if look.get("likeness") is None]
    if blind:
        axes.scatter(blind, [0] * len(blind), marker="x", color=FAINT, label="nothing scored",
                     transform=axes.get_xaxis_transform(), clip_on=False)
    axes.set_ylabel("likeness, copy-paste")
    axes.set_xlabel("step")


def sweep_chart(told: Mapping[str, Any]) -> np.ndarray:
    """Likeness and flexibility over the columns of a sweep: (H, W, 3) uint8."""
    columns = told["columns"]
    xs = [column["strength"] for column in columns]
    with chart(*SIZE) as (figure, drawn):
        upper, lower = figure.subplots(2, 1, sharex=True)
        spread = told.get("spread")
        if spread is not None:
            upper.axhspan(spread["low"], spread["high"], color=VERDICTS["keep"], alpha=0.16,
                          linewidth=0, label="own photos")
        for axes, key, colour in ((upper, "likeness", ACCENT), (lower, "flexibility", SECOND)):
            plain_axes(axes).set_ylabel(key)
            values = np.array([column[key] for column in columns], dtype=np.float64)
            if np.isfinite(values).any():
                axes.errorbar(xs, values, yerr=[column[f"{key}_error"] or 0 for column in columns],
                              color=colour, marker="o", markersize=5, linewidth=2, capsize=3,
                              label=key)
            else:
                axes.text(0.5, 0.5, "nothing could be measured", transform=axes.transAxes,
                          ha="center", color=FAINT)
            if told["best"] is not None:
                axes.axvline(told["best"], color=INK, linestyle="-.", linewidth=1.2,
                             label="knee" if told["knee"] else "best")
            if axes.get_legend_handles_labels()[0]:
                legend(axes, loc="best")
        lower.set_xticks(xs, [column["label"] for column in columns])
        lower.set_xlabel(told["axis"])
    return drawn[0]
