"""What a curation says as data and as files: the report, its key, and the sheet beside it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...files import write_whole
from ...quality.rules import Rules, explained
from ...sockets import Photo, PhotoSet, Verdict
from .curate import count_rules
from .people import comparison_sentences, identity_sentence, people_of

_SHOWN = 200  # photos whose entries a node shows; the files hold all


def report(photos: PhotoSet, rules: Rules, notes: Sequence[str] = ()) -> dict[str, Any]:
    """The curation as JSON data: one entry per photo, counts, who is on them, the limits.

    Args:
        notes: further sentences, such as on verdicts given for photos that are gone.
    """
    counts = Counter(photo.verdict for photo in photos.photos)
    people = people_of(photos.photos)
    said = [*comparison_sentences(photos.photos, people), identity_sentence(people)]
    return {
        "folder": photos.folder,
        "summary": " ".join(filter(None, said)),
        "notes": list(notes),
        "kept": counts[Verdict.KEEP],
        "unsure": counts[Verdict.UNSURE],
        "rejected": counts[Verdict.REJECT],
        "overridden": [photo.name for photo in photos.photos if photo.overridden],
        "by_rule": count_rules(photos),
        "people": [list(names) for names in people.groups],
        "doubtful": list(people.doubtful),
        "photos": [_entry(photo) for photo in photos.photos],
        "rules": asdict(rules),
        "limits": explained(rules),
    }


def shown(data: dict[str, Any]) -> dict[str, Any]:
    """The report as a node shows it: with very many photos, those that are not kept come first."""
    if len(data["photos"]) <= _SHOWN:
        return data
    entries = sorted(data["photos"], key=lambda entry: entry["verdict"] == Verdict.KEEP.value)
    kept = [{"name": entry["name"], "verdict": entry["verdict"], "reasons": entry["reasons"]}
            for entry in entries[:_SHOWN]]
    more = f"{len(entries) - _SHOWN} further photos are in the report's file."
    people = [names[:_SHOWN] for names in data["people"][:_SHOWN]]
    return {**data, "people": people, "photos": kept, "notes": [*data["notes"], more]}


def key_of(photos: PhotoSet, rules: Rules) -> str:
    """A short name for this curation: the same photos under the same rules give the same.

    Verdicts given by hand count too.
    """
    named = [(photo.name, photo.sha256) for photo in photos.photos]
    by_hand = [(photo.name, photo.verdict.value) for photo in photos.photos if photo.overridden]
    text = json.dumps([named, asdict(rules), *([by_hand] if by_hand else [])], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_report(path: Path, text: str, sheet: np.ndarray) -> None:
    """Write the report and, beside it, the contact sheet (H, W, 3) uint8 as a PNG.

    Raises:
        LikenessError: the disk is full or the folder cannot be written.
    """
    picture = Image.fromarray(sheet)
    write_whole(path.with_suffix(".png"), lambda partial: picture.save(partial, format="PNG"))
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def _entry(photo: Photo) -> dict[str, Any]:
    return {
        "file": str(photo.file),
        "name": photo.name,
        "verdict": photo.verdict.value if photo.verdict else None,
        "overridden": photo.overridden,
        "reasons": [{"rule": reason.rule, "text": reason.text, "verdict": reason.verdict.value}
                    for reason in photo.reasons],
        "size": [photo.width, photo.height],
        "box": [round(edge, 1) for edge in photo.face.box] if photo.face else None,
        "face": _which_face(photo),
        "measures": {name: round(value, 4) for name, value in photo.measures.items()},
        "pose": {name: round(angle, 1) for name, angle in asdict(photo.face.pose).items()}
        if photo.face else None,
    }


def _which_face(photo: Photo) -> str | None:
    """Which of several faces was judged, in words; None without a face."""
    if photo.face is None:
        return None
    count, rank = int(photo.measures.get("faces", 1)), int(photo.measures.get("face_rank", 1))
    if count == 1:
        return "the only one"
    if rank == 1:
        return f"the largest of {count}"
    return f"number {rank} of {count} by size, the one most like the other photos"
