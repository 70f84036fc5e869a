"""What a run says of a person, and the table of everybody."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..client.runs import Run

_HEAD = ("person", "status", "photos kept", "pictures", "keep", "best score", "minutes")


def figures(run: Run) -> dict[str, Any]:
    """Photos, pictures and scores from the reports of Curate and Score, where there are some."""
    found: dict[str, Any] = {}
    for node in run.outputs:
        try:
            report = json.loads(run.text(node))
        except ValueError:
            continue
        if not isinstance(report, dict):
            continue
        photos, images = report.get("photos"), report.get("images")
        if _judged(photos):
            verdicts = Counter(photo["verdict"] for photo in photos)
            found |= {"photos": len(photos), "photos_kept": verdicts["keep"]}
        if _judged(images) and all("score" in image for image in images):
            scores = [image["score"] for image in images if image["score"] is not None]
            verdicts = Counter(image["verdict"] for image in images)
            found |= {"pictures": len(images), "pictures_kept": verdicts["keep"],
                      "best_score": max(scores, default=None)}
    return found


def _judged(rows: Any) -> bool:
    return isinstance(rows, list) and bool(rows) and all(
        isinstance(row, dict) and "verdict" in row for row in rows)


def table(entries: Mapping[str, Any]) -> list[str]:
    """Lines of plain text, one for each person, columns aligned."""
    rows = [_HEAD]
    for name, entry in entries.items():
        told = entry.figures or {}
        score = told.get("best_score")
        rows.append((name, entry.status,
                     f"{told['photos_kept']} of {told['photos']}" if "photos" in told else "-",
                     str(told.get("pictures", "-")), str(told.get("pictures_kept", "-")),
                     "-" if score is None else f"{score:.2f}", f"{entry.seconds / 60:.1f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in rows]
