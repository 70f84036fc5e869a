"""The likeness report: what was measured, with what, and where the pictures lie."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...faces.recognise import backends
from ...files import write_whole
from ...sockets import Subject, Verdict
from ..calibration.calibration import DOUBT_RATE, FAR_SIGMAS, KEEP_RATE, SIGMAS, Calibration
from ..calibration.rates import Rate
from .axes import Axes, FaceQuality
from .copying import Copying
from .judges import SecondOpinion
from .prompt import mean
from .score import Score, Yardstick

FORMAT = 2


@dataclass(frozen=True, eq=False)
class LikenessReport:
    """What a REPORT socket carries."""

    subject: str
    backend: str
    scores: tuple[Score, ...]  # ranked, best first
    calibration: Calibration
    files: tuple[Path, ...]  # absolute, in the order of `scores`; empty when nothing was saved
    data: dict[str, Any]  # what the JSON file says
    axes: Axes
    prints: tuple[str, ...]  # `picture_print` of each picture, in the order of `scores`
    second: SecondOpinion | None = None

    @property
    def accepted(self) -> int:
        """How many pictures are `keep`; in the ranking they come first."""
        return sum(score.verdict is Verdict.KEEP for score in self.scores)


def build(ranked: Sequence[Score], pictures: Sequence[np.ndarray], measure: Yardstick, axes: Axes,
          files: Sequence[Path] = (), places: dict[str, str] | None = None,
          second: SecondOpinion | None = None) -> LikenessReport:
    """Write down a ranking.

    Args:
        ranked: from `rank`.
        pictures: (H, W, 3) uint8 RGB in the same order.
        axes: from `measure_axes` on the same batch: likeness is never reported alone.
        files: absolute paths of the saved pictures in the same order, or none.
        places: further entries, such as where the report and the sheet lie.
        second: another recogniser's opinion.
    """
    counts = Counter(score.verdict.value for score in ranked)
    data = {
        "format": FORMAT,
        "subject": measure.subject.name,
        "trigger": measure.subject.trigger,
        "photos": photo_entries(measure.subject),
        "backend": _recogniser(measure.backend),
        **yardstick_entry(measure),
        "counts": {verdict.value: counts[verdict.value] for verdict in Verdict},
        "axes": axes_entry(axes),
        "judges": [_judge_entry(ranked, judge) for judge in measure.judges],
        "judges_differ": sum(score.disputed for score in ranked),
        "second_judge": None if second is None else _second_entry(ranked, second),
        "images": [_entry(place, score, files[place - 1] if files else None, measure, axes, second)
                   for place, score in enumerate(ranked, 1)],
        **(places or {}),
    }
    return LikenessReport(measure.subject.name, measure.backend, tuple(ranked),
                          measure.calibration, tuple(files), data, axes,
                          tuple(picture_print(pixels) for pixels in pictures), second)


def photo_entries(subject: Subject) -> dict[str, list[dict[str, str]]]:
    """Which photos a subject was made of, as JSON; by their hashes everything of them is found."""
    return {kind: [{"name": photo.name, "file": str(photo.file), "sha256": photo.sha256}
                   for photo in photos]
            for kind, photos in (("references", subject.references),
                                 ("held_out", subject.held_out))}


def picture_print(pixels: np.ndarray) -> str:
    """Tells a picture (H, W, 3) uint8 from every other."""
    return hashlib.sha256(str(pixels.shape).encode()
                          + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _recogniser(id: str) -> dict[str, str]:
    known = backends.backend(id)
    return {"id": known.id, "title": known.title, "licence": known.licence}


def yardstick_entry(measure: Yardstick) -> dict[str, Any]:
    """The subject's own spread, the limits with their error rates, and the bank, as JSON."""
    calibration = measure.calibration
    spread = calibration.spread
    rule = (f"keep from max(what {KEEP_RATE:.1%} of strangers reach, median - {SIGMAS:g} sigma) of "
            f"the subject's own leave-one-out similarities; reject below min(what {DOUBT_RATE:.0%} "
            f"of strangers reach, median - {FAR_SIGMAS:g} sigma)")
    if not calibration.from_bank:
        rule = (f"keep from max(cut, median - {SIGMAS:g} sigma) of the subject's own "
                "leave-one-out similarities; reject below the recogniser's same-person cut")
    return {
        "spread": None if spread is None else {
            "photos": len(spread.similarities),
            "low": rounded(spread.low),
            "median": rounded(spread.median),
            "high": rounded(max(spread.similarities)),
            "similarities": [rounded(value) for value in spread.similarities]},
        "thresholds": {
            "keep_from": rounded(calibration.keep_from),
            "reject_below": rounded(calibration.reject_below),
            "published_cut": rounded(calibration.cut),
            "rule": rule,
            "note": calibration.note,
            "keep": _rates(calibration, calibration.keep_from),
            "reject": _rates(calibration, calibration.reject_below)},
        "bank": _bank_entry(measure),
        "held_out_photos": len(measure.subject.held_out),
    }


def _rates(calibration: Calibration, limit: float | None) -> dict[str, Any]:
    """How many strangers reach a limit, and how many true pictures miss it."""
    return {"false_accepts": rate_entry(calibration.false_accepts(limit)),
            "false_accepts_with_left_out": rate_entry(
                calibration.false_accepts_of_everyone(limit)),
            "false_rejects": rate_entry(calibration.false_rejects(limit))}


def rate_entry(rate: Rate | None) -> dict[str, Any] | None:
    """An error rate as JSON; shares, not per cent."""
    return None if rate is None else {
        "rate": None if rate.estimate is None else float(f"{rate.estimate:.3g}"),
        "counted": rate.counted, "of": rate.of,
        "at_most": float(f"{rate.upper:.3g}"), "modelled": rate.modelled,
        "among": rate.among or None, "text": rate.text}


def _bank_entry(measure: Yardstick) -> dict[str, Any]:
    bank, calibration = measure.bank, measure.calibration
    if bank is None or calibration.impostors is None:
        return {"people": 0, "note": "No bank of other people's faces is there for this "
                "recogniser, so false accepts cannot be stated; make one with Likeness Impostor "
                "Bank from photos of other people and connect it to `bank`."}
    note = ""
    if not calibration.from_bank:
        note = "The bank has too few people for limits of its own."
    elif calibration.left_out:
        note = ("One of the bank's people is as alike as the subject's own photos and stands out "
                "from all others, so it was taken for the subject and left out; the rates with "
                "that person are in false_accepts_with_left_out.")
    return {"people": len(calibration.impostors.similarities), "source": bank.source,
            "most_alike": rounded(calibration.impostors.similarities[-1]), "note": note,
            "holds_for": "people like those of the bank; look-alikes and relatives pass more often"}


def axes_entry(axes: Axes) -> dict[str, Any]:
    """What stands beside likeness, of the whole batch, as JSON."""
    spread = axes.diversity
    prompt = axes.prompt
    with_reasons = sum(bool(quality and quality.reasons) for quality in axes.quality)
    known = [copy.copy_paste for copy in axes.copies if copy and copy.copy_paste is not None]
    return {
        "copy_paste": {"copies": axes.copied, "mean": rounded(mean(known)) if known else None,
                       "unread_photos": list(axes.originals.unread),
                       "closest_real_photos": rounded(axes.originals.closest),
                       "closer_than_real_from": rounded(axes.originals.limit)},
        "diversity": {"pictures": rounded(spread.pictures),
                      "effective_pictures": rounded(spread.effective, 2),
                      "effective_pictures_clip": rounded(spread.seen, 2),
                      "face_similarity": rounded(spread.faces),
                      "face_similarity_of_real_photos": rounded(spread.real_faces),
                      "narrower_than_real": spread.narrower_than_real},
        "prompt": None if prompt is None else {
            "clip_t": rounded(mean(prompt.cosines)), "prompt": prompt.prompt,
            "encoder": prompt.encoder},
        "face_quality": {"pictures_with_reasons": with_reasons},
    }


def _judge_entry(ranked: Sequence[Score], judge: Yardstick) -> dict[str, Any]:
    """One of several judges alone: its limits, and how many pictures it would keep."""
    said = [opinion for score in ranked for opinion in score.opinions
            if opinion.backend == judge.backend]
    counts = Counter(opinion.verdict.value for opinion in said)
    return {"backend": _recogniser(judge.backend), **yardstick_entry(judge),
            "counts": {verdict.value: counts[verdict.value] for verdict in Verdict}}


def _second_entry(ranked: Sequence[Score], second: SecondOpinion) -> dict[str, Any]:
    differing = [score.index for score in ranked if second.differs(score)]
    return {"backend": _recogniser(second.measure.backend), **yardstick_entry(second.measure),
            "verdicts_differ": len(differing), "differing_images": differing,
            "rank_correlation": rounded(second.agreement, 3)}


def _entry(place: int, score: Score, file: Path | None, measure: Yardstick, axes: Axes,
           second: SecondOpinion | None) -> dict[str, Any]:
    face, calibration = score.face, measure.calibration
    return {
        "rank": place,
        "index": score.index,
        "file": None if file is None else str(file),
        "status": score.status,
        "verdict": score.verdict.value,
        "score": rounded(score.score),
        "score_held_out": rounded(score.held_out),
        "score_best": rounded(score.near.best) if score.near else None,
        "score_mean": rounded(score.near.mean) if score.near else None,
        "percentile": rounded(score.percentile, 1),
        "above_strangers": rounded(score.above_strangers, 2),
        "false_accepts": rate_entry(calibration.false_accepts(score.score)),
        "copy_paste": _copy_entry(axes.copies[score.index]),
        "prompt": rounded(axes.prompt.cosines[score.index]) if axes.prompt else None,
        "face_quality": _quality_entry(axes.quality[score.index]),
        "judges": [{"backend": opinion.backend, "score": rounded(opinion.score),
                    "verdict": opinion.verdict.value} for opinion in score.opinions],
        "judges_differ": score.disputed,
        "second_judge": None if second is None else _opinion(score, second),
        "faces": score.faces,
        "face_box": None if face is None else [round(float(edge), 1) for edge in face.box],
        "yaw": None if face is None else round(face.pose.yaw, 1),
        "pitch": None if face is None else round(face.pose.pitch, 1),
        "roll": None if face is None else round(face.pose.roll, 1),
        "reason": score.text,
    }


def _copy_entry(copy: Copying | None) -> dict[str, Any] | None:
    return None if copy is None else {
        "copied": copy.copied, "value": rounded(copy.copy_paste), "gap": rounded(copy.gap),
        "nearest_photo": copy.nearest, "similarity": rounded(copy.similarity),
        "closer_than_real": copy.closer_than_real, "same_picture": copy.same_picture,
        "pixel_bits": copy.pixel_bits, "reason": copy.text}


def _quality_entry(quality: FaceQuality | None) -> dict[str, Any] | None:
    return None if quality is None else {
        **{name: rounded(value) for name, value in quality.measures.items()},
        "reasons": [{"rule": reason.rule, "text": reason.text, "verdict": reason.verdict.value}
                    for reason in quality.reasons]}


def _opinion(score: Score, second: SecondOpinion) -> dict[str, Any]:
    other = second.scores[score.index]
    return {"status": other.status, "verdict": other.verdict.value, "score": rounded(other.score),
            "percentile": rounded(other.percentile, 1),
            "above_strangers": rounded(other.above_strangers, 2),
            "differs": second.differs(score)}


def rounded(value: float | None, digits: int = 4) -> float | None:
    """A number for JSON; None stays."""
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
