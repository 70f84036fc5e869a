"""Curation: every photo judged on its own and beside the others, with reasons and a report."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..files import write_whole
from ..quality.judge import judge
from ..quality.look import Seen, look
from ..quality.rules import Rules
from ..sockets import Photo, PhotoSet, Reason, Verdict

_SEVERITY = {Verdict.KEEP: 0, Verdict.UNSURE: 1, Verdict.REJECT: 2}
# Faces that these rules reject say little about who is in the picture.
_FACELESS = {"no_face", "too_small", "dark", "blurred", "unreadable"}


def curate(photos: PhotoSet, rules: Rules, on_photo: Callable[[int], None]) -> PhotoSet:
    """Give every photo a verdict and its reasons; never raises for what a photo shows.

    Args:
        on_photo: called with the number of finished photos; may raise to cancel.
    """
    seen: list[Seen | None] = []
    reasons: list[list[Reason]] = []
    for done, photo in enumerate(photos.photos, start=1):
        found, wrong = _examine(photo, rules)
        seen.append(found)
        reasons.append(wrong)
        on_photo(done)
    distances = _flag_strangers(seen, reasons, rules)
    _flag_duplicates(photos.photos, seen, reasons, rules)
    judged = [_judged(photo, found, wrong, distance) for photo, found, wrong, distance
              in zip(photos.photos, seen, reasons, distances, strict=True)]
    return replace(photos, photos=tuple(judged))


def verdict_of(reasons: list[Reason] | tuple[Reason, ...]) -> Verdict:
    """The worst of the reasons' verdicts; keep when there is none."""
    return max((reason.verdict for reason in reasons), key=_SEVERITY.__getitem__,
               default=Verdict.KEEP)


def _examine(photo: Photo, rules: Rules) -> tuple[Seen | None, list[Reason]]:
    unreadable = [reason for reason in photo.reasons if reason.rule == "unreadable"]
    if unreadable:
        return None, unreadable
    try:
        seen = look(photo.file, photo.sha256)
    except OSError as err:
        why = err.strerror or err
        return None, [Reason("unreadable", f"The file cannot be read any more ({why}); load the "
                                           "photos again.")]
    return seen, list(judge(seen, rules))


def _flag_strangers(seen: list[Seen | None], reasons: list[list[Reason]],
                    rules: Rules) -> list[float | None]:
    """Compare each face with the centre of the majority's others; return those distances."""
    distances: list[float | None] = [None] * len(seen)
    usable = [index for index, found in enumerate(seen) if found is not None
              and found.embedding is not None and not _faceless(reasons[index])]
    if len(usable) < 2:
        return distances
    rows = np.stack([seen[index].embedding for index in usable])
    majority = _majority(rows, rules)
    if majority is None:
        for index in usable:
            reasons[index].append(Reason(
                "somebody_else", "The photos show different people, none in a majority; load "
                "photos of one person.", Verdict.UNSURE))
        return distances
    for place, index in enumerate(usable):
        others = [row for row in majority if row != place]
        distance = float(np.linalg.norm(rows[place] - rows[others].mean(0)))
        distances[index] = distance
        unsure, reject = rules.stranger
        if distance > unsure:
            certain = distance > reject
            reasons[index].append(Reason(
                "somebody_else", f"{'This is' if certain else 'This may be'} somebody else: the "
                f"face is {distance:.2f} away from the other photos, "
                f"{reject if certain else unsure:.2f} is the limit.",
                Verdict.REJECT if certain else Verdict.UNSURE))
    return distances


def _faceless(reasons: list[Reason]) -> bool:
    return any(reason.rule in _FACELESS and reason.verdict is Verdict.REJECT for reason in reasons)


def _majority(rows: np.ndarray, rules: Rules) -> list[int] | None:
    """The group of alike faces among (N, D) that most photos show, or None when none stands out."""
    alike = np.linalg.norm(rows[:, None] - rows[None], axis=2) <= rules.stranger[1]
    leader = int(alike.sum(1).argmax())
    group = np.flatnonzero(alike[leader])
    rest = np.setdiff1d(np.arange(len(rows)), group)
    rival = int(alike[np.ix_(rest, rest)].sum(1).max()) if rest.size else 0
    large_enough = len(group) > max(rival, 1) and len(group) >= rules.majority * len(rows)
    return group.tolist() if large_enough else None


def _flag_duplicates(photos: tuple[Photo, ...], seen: list[Seen | None],
                     reasons: list[list[Reason]], rules: Rules) -> None:
    """Of shots that are the same but for crop, scale or light, keep the best one."""
    candidates = [index for index, found in enumerate(seen) if found is not None
                  and found.pattern is not None and verdict_of(reasons[index]) != Verdict.REJECT]
    # The best first, and kept before unsure.
    candidates.sort(key=lambda index: (_SEVERITY[verdict_of(reasons[index])],
                                       -_quality(photos[index], seen[index]), index))
    kept: list[int] = []
    for index in candidates:
        twin = next((other for other in kept if _same_shot(seen[index], seen[other], rules)), None)
        if twin is None:
            kept.append(index)
            continue
        reasons[index].append(Reason(
            "duplicate", f"The same shot as {photos[twin].name}, which is larger or sharper or "
                         "shows more."))


def _quality(photo: Photo, seen: Seen) -> float:
    """Rank shots of one moment: a larger and sharper face, then more of the scene round it."""
    sizes = seen.measures["face_width"], seen.measures["sharpness"], photo.width * photo.height
    return float(np.log(np.maximum(sizes, 1.0)) @ (1.0, 0.25, 0.1))


def _same_shot(a: Seen, b: Seen, rules: Rules) -> bool:
    bits = int((a.pattern != b.pattern).sum())
    distance = float(np.linalg.norm(a.embedding - b.embedding))
    return bits <= rules.duplicate_bits and distance < rules.duplicate_distance


def _judged(photo: Photo, seen: Seen | None, reasons: list[Reason],
            distance: float | None) -> Photo:
    measures = dict(seen.measures) if seen else {}
    if distance is not None:
        measures["distance"] = distance
    return replace(photo, verdict=verdict_of(reasons), reasons=tuple(reasons),
                   face=seen.face if seen else None, measures=measures,
                   embedding=seen.embedding if seen else None)


def report(photos: PhotoSet, rules: Rules) -> dict[str, Any]:
    """The curation as JSON data: one entry per photo, counts per verdict and rule, the limits."""
    counts = Counter(photo.verdict for photo in photos.photos)
    return {
        "folder": photos.folder,
        "photos": [_entry(photo) for photo in photos.photos],
        "kept": counts[Verdict.KEEP],
        "unsure": counts[Verdict.UNSURE],
        "rejected": counts[Verdict.REJECT],
        "by_rule": count_rules(photos),
        "rules": asdict(rules),
    }


def count_rules(photos: PhotoSet) -> dict[str, int]:
    """How many photos each rule spoke against, most first."""
    return dict(Counter(reason.rule for photo in photos.photos
                        for reason in photo.reasons).most_common())


def key_of(photos: PhotoSet, rules: Rules) -> str:
    """A short name for this curation: the same photos under the same rules give the same."""
    named = [(photo.name, photo.sha256) for photo in photos.photos]
    text = json.dumps([named, asdict(rules)], sort_keys=True)
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
        "reasons": [{"rule": reason.rule, "text": reason.text, "verdict": reason.verdict.value}
                    for reason in photo.reasons],
        "size": [photo.width, photo.height],
        "box": [round(edge, 1) for edge in photo.face.box] if photo.face else None,
        "measures": {name: round(value, 4) for name, value in photo.measures.items()},
        "pose": {name: round(angle, 1) for name, angle in asdict(photo.face.pose).items()}
        if photo.face else None,
    }
