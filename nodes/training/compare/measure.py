"""What one technique gives and costs: the same pictures as every other one, measured.

Two sets of pictures come from the same seeds: of the person, and of the class word alone. The
second tells what the technique did to everybody else: DreamBooth's language drift (Ruiz et al.
2022, arXiv 2208.12242) is a class word that has begun to look like the person.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import LikenessError
from ...faces.recognise import embed
from ...sockets import EMPTY, Subject
from ..watch.monitor import Judge, Look, Monitor, judge_for, look

_PICTURES = 4  # that a row keeps to be shown


@dataclass(frozen=True, eq=False)
class Technique:
    """One row of the table; a number is None where it could not be told."""

    label: str
    method: str = ""  # of the recipe; none: the model as it was
    likeness: float | None = None  # median to the photos that never train
    judges: Mapping[str, float] = field(default_factory=lambda: EMPTY)  # by each judge alone
    copy: float | None = None  # copy-paste of the nearest training photo
    diversity: float | None = None  # of the pictures' faces over that of the person's own photos
    class_likeness: float | None = None  # of pictures of the class word to the person
    faces: int = 0  # pictures in which a face could be compared
    pictures: int = 0
    bytes: int | None = None  # of all files that the run saved
    seconds: float | None = None  # of training
    peak_bytes: int | None = None  # of the card during training
    steps: int | None = None
    shown: tuple[np.ndarray, ...] = ()  # (H, W, 3) uint8 each

    def as_dict(self) -> dict[str, Any]:
        """Everything but the pictures, as plain values."""
        plain = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)
                 if entry.name != "shown"}
        return {**plain, "judges": dict(self.judges)}


def measure(label: str, model: Any, clip: Any, vae: Any, subject: Subject, monitor: Monitor,
            size: tuple[int, int], report: str = "", trigger: str = "",
            on_picture: Callable[[int, np.ndarray], None] = lambda done, pixels: None
            ) -> Technique:
    """Draw a monitor's pictures of the person and of the class word, and measure them.

    Args:
        size: width and height in pixels where the monitor names none.
        report: what Train told of its run; empty for a model that was not trained.
        trigger: what a prompt calls the person by, where it is not the subject's own trigger.

    Raises:
        LikenessError: the report is not Train's, or there is no VAE or text encoder.
        runtime.Interrupted: the user pressed cancel.
    """
    cost = cost_of(report)
    judge = judge_for(subject, monitor.backend)
    own = dataclasses.replace(subject, trigger=trigger.strip() or subject.trigger)
    seen = look(model, clip, vae, own, monitor, 0, judge, size, on_picture)
    others = look(model, clip, vae, dataclasses.replace(subject, trigger=""), monitor, 0, judge,
                  size, lambda done, pixels: on_picture(monitor.pictures + done, pixels))
    return technique(label, seen, others, judge, cost)


def technique(label: str, seen: Look, others: Look, judge: Judge,
              cost: Mapping[str, Any] = EMPTY) -> Technique:
    """The row of pictures of the person, and of others of their class.

    Args:
        label: empty for the technique's own name.
        cost: as `cost_of` gives it.
    """
    return Technique(
        label.strip() or cost.get("method") or "untrained", likeness=seen.likeness,
        judges=seen.judges, copy=seen.copy, diversity=_diversity(seen, judge),
        class_likeness=others.likeness, faces=seen.scored, pictures=len(seen.shots),
        shown=tuple(shot.pixels for shot in seen.shots[:_PICTURES]), **cost)


def cost_of(report: str) -> dict[str, Any]:
    """What a run cost, from Train's report; empty without one.

    Raises:
        LikenessError: it is something else.
    """
    if not report.strip():
        return {}
    try:
        told = json.loads(report)
        return {"method": told["method"], "bytes": sum(told["bytes"].values()),
                "seconds": told["training_seconds"], "peak_bytes": told["peak_bytes"],
                "steps": told["steps"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LikenessError("`report` is not a report of Train; connect Train's `report` output, "
                            "or nothing for a model that was not trained.") from None


def _diversity(seen: Look, judge: Judge) -> float | None:
    """Mean distance of two pictures' faces over that of two real photos of the person.

    1: as different as real photos are. None: fewer than two of either can be compared.
    """
    rows = [shot.embedding for shot in seen.shots if shot.embedding is not None]
    between = _mean_distance(rows, judge.backend)
    real = _mean_distance([*judge.training, *(judge.others if judge.held_out else ())],
                          judge.backend)
    return None if between is None or not real else round(between / real, 4)


def _mean_distance(rows: Sequence[np.ndarray], backend: str) -> float | None:
    pairs = [1 - embed.similarity(one, other, backend)
             for place, one in enumerate(rows) for other in rows[:place]]
    return statistics.fmean(pairs) if pairs else None
