"""The likeness report: what was measured, with what, and where the pictures lie."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..faces import backends
from ..files import write_whole
from ..sockets import Verdict
from .calibration import SIGMAS, Calibration
from .score import Score, Yardstick

FORMAT = 1


@dataclass(frozen=True, eq=False)
class LikenessReport:
    """What a REPORT socket carries."""

    subject: str
    backend: str
    scores: tuple[Score, ...]  # ranked, best first
    calibration: Calibration
    files: tuple[Path, ...]  # absolute, in the order of `scores`; empty when nothing was saved
    data: dict[str, Any]  # what the JSON file says

    @property
    def accepted(self) -> int:
        """How many pictures are `keep`; in the ranking they come first."""
        return sum(score.verdict is Verdict.KEEP for score in self.scores)


def build(ranked: Sequence[Score], measure: Yardstick, files: Sequence[Path] = (),
          places: dict[str, str] | None = None) -> LikenessReport:
    """Write down a ranking.

    Args:
        ranked: from `rank`.
        files: absolute paths of the saved pictures in the same order, or none.
        places: further entries, such as where the report and the sheet lie.
    """
    known = backends.backend(measure.backend)
    counts = Counter(score.verdict.value for score in ranked)
    data = {
        "format": FORMAT,
        "subject": measure.subject.name,
        "trigger": measure.subject.trigger,
        "backend": {"id": known.id, "title": known.title, "licence": known.licence},
        **_yardstick(measure),
        "counts": {verdict.value: counts[verdict.value] for verdict in Verdict},
        "images": [_entry(place, score, files[place - 1] if files else None)
                   for place, score in enumerate(ranked, 1)],
        **(places or {}),
    }
    return LikenessReport(measure.subject.name, measure.backend, tuple(ranked),
                          measure.calibration, tuple(files), data)


def _yardstick(measure: Yardstick) -> dict[str, Any]:
    calibration = measure.calibration
    spread = calibration.spread
    return {
        "spread": None if spread is None else {
            "photos": len(spread.similarities),
            "low": _round(spread.low),
            "median": _round(spread.median),
            "high": _round(max(spread.similarities)),
            "similarities": [_round(value) for value in spread.similarities]},
        "thresholds": {
            "keep_from": _round(calibration.keep_from),
            "reject_below": _round(calibration.reject_below),
            "rule": f"keep from max(cut, median - {SIGMAS:g} sigma) of the subject's own "
                    "leave-one-out similarities; reject below the recogniser's same-person cut",
            "note": calibration.note},
        "held_out_photos": len(measure.subject.held_out),
    }


def _entry(place: int, score: Score, file: Path | None) -> dict[str, Any]:
    face = score.face
    return {
        "rank": place,
        "index": score.index,
        "file": None if file is None else str(file),
        "status": score.status,
        "verdict": score.verdict.value,
        "score": _round(score.score),
        "score_held_out": _round(score.held_out),
        "percentile": _round(score.percentile, 1),
        "faces": score.faces,
        "face_box": None if face is None else [round(float(edge), 1) for edge in face.box],
        "yaw": None if face is None else round(face.pose.yaw, 1),
        "pitch": None if face is None else round(face.pose.pitch, 1),
        "roll": None if face is None else round(face.pose.roll, 1),
        "reason": score.text,
    }


def _round(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(float(value), digits)


def next_number(folder: Path, stem: str) -> int:
    """One more than the highest number among `stem_00001.*` in a folder."""
    found = (re.fullmatch(rf"{re.escape(stem)}_(\d+)", path.stem)
             for path in folder.glob(f"{stem}_*"))
    return max((int(match[1]) for match in found if match), default=0) + 1


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write a report, whole or not at all."""
    text = json.dumps(data, indent=1, allow_nan=False)
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_png(path: Path, picture: Image.Image) -> None:
    """Write a picture, whole or not at all."""
    write_whole(path, lambda partial: picture.save(partial, format="PNG"))
