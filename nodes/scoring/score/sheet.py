"""The ranked contact sheet: every picture with its place, score and verdict, best first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from ...faces.recognise.backends import parts_of
from ...media.lettering import fit, font
from ...sockets import Verdict
from ..calibration.calibration import Calibration
from ..calibration.rates import percent
from ..drawing import CARD, FAINT, GROUND, INK, STATUS_WORDS, VERDICTS
from .prompt import mean
from .report import LikenessReport
from .score import Score

CELL = 256  # pixels, the picture's square
CAPTION = 82
GAP = 16
HEADER = 262
MINIMUM_COLUMNS, MAXIMUM_COLUMNS = 4, 8


def columns_for(count: int) -> int:
    """How many pictures stand in a row."""
    return min(max(MINIMUM_COLUMNS, math.ceil(math.sqrt(1.5 * count))), MAXIMUM_COLUMNS)


def sheet_size(count: int) -> tuple[int, int]:
    """Width and height in pixels of a sheet of `count` pictures."""
    columns = columns_for(count)
    rows = max(1, math.ceil(count / columns))
    return (GAP + columns * (CELL + GAP), HEADER + rows * (CELL + CAPTION + GAP))


def draw_sheet(report: LikenessReport, pictures: Sequence[np.ndarray]) -> Image.Image:
    """Draw the ranking.

    Args:
        report: whose scores are in ranked order.
        pictures: (H, W, 3) uint8 RGB in the same order.
    """
    width, height = sheet_size(len(pictures))
    sheet = Image.new("RGB", (width, height), GROUND)
    draw = ImageDraw.Draw(sheet)
    _draw_header(draw, report, width)
    columns = columns_for(len(pictures))
    for place, (score, pixels) in enumerate(zip(report.scores, pictures, strict=True)):
        row, column = divmod(place, columns)
        corner = (GAP + column * (CELL + GAP), HEADER + row * (CELL + CAPTION + GAP))
        _draw_card(sheet, draw, corner, place + 1, score, pixels)
        print_line = (corner[0] + 10, corner[1] + CELL + 58)
        text = fit(draw, _remark(report, score), 14, CELL - 20)
        draw.text(print_line, text, VERDICTS["unsure"], font=font(14))
    return sheet


def _draw_header(draw: ImageDraw.ImageDraw, report: LikenessReport, width: int) -> None:
    counts = Counter(score.verdict for score in report.scores)
    title = fit(draw, f"Likeness to {report.subject}", 30, width - 2 * GAP)
    draw.text((GAP, GAP), title, INK, font=font(30))
    left = GAP
    for verdict in Verdict:
        text = f"{counts[verdict]} {verdict.value}"
        draw.text((left, 60), text, VERDICTS[verdict.value], font=font(18))
        left += draw.textlength(text, font=font(18)) + 22
    judges = " and ".join(parts_of(report.backend))
    judged = f"judged by {judges}, against the subject's own photos"
    draw.text((left + 10, 60), judged, FAINT, font=font(18))
    _draw_ruler(draw, report.calibration, report.scores, (GAP, 108, width - GAP, 126))
    for row, text in enumerate((_errors(report), _others(report), _second(report))):
        draw.text((GAP, 188 + 22 * row), fit(draw, text, 15, width - 2 * GAP), INK,
                  font=font(15))


def _errors(report: LikenessReport) -> str:
    """How often the limit of keep is wrong."""
    calibration = report.calibration
    if calibration.keep_from is None:
        return f"No keep: {calibration.note}"
    strangers = calibration.false_accepts(calibration.keep_from)
    missed = calibration.false_rejects(calibration.keep_from)
    who = "" if strangers is None else f"{strangers.of} {strangers.among or 'people'}"
    let_in = ("how many strangers pass cannot be said without a bank of faces" if strangers is None
              else f"at most {percent(strangers.upper)} of strangers pass (by {who})"
              if strangers.estimate is None
              else f"{percent(strangers.estimate)} of strangers pass (at most "
              f"{percent(strangers.upper)} by {who})")
    lost = "" if missed is None else (
        f", {percent(missed.estimate)} of true pictures are missed (from {missed.of} photos)")
    return f"Keep: {let_in}{lost}."


def _others(report: LikenessReport) -> str:
    """The other axes of the batch."""
    axes, count = report.axes, len(report.scores)
    spread = axes.diversity
    parts = [f"Copies of photos: {axes.copied} of {count}"]
    if spread.effective is not None:
        parts.append(f"diversity: as {spread.effective:.1f} different pictures of {count}")
    if spread.narrower_than_real:
        parts.append("faces more alike than the real photos")
    parts.append("prompt: no CLIP connected" if axes.prompt is None else
                 f"prompt: CLIP-T {mean(axes.prompt.cosines):.3f}")
    faces = [quality for quality in axes.quality if quality is not None]
    faults = sum(bool(quality.reasons) for quality in faces)
    parts.append(f"face quality: {faults} of {len(faces)} faces with faults" if faces
                 else "face quality: no face")
    return "   |   ".join(parts)


def _second(report: LikenessReport) -> str:
    second = report.second
    if second is None:
        if report.data["judges"]:
            disputed = sum(score.disputed for score in report.scores)
            return ("Both judge together; alone they would disagree on "
                    f"{disputed} of {len(report.scores)}")
        return "One judge; a second one shows what this one is blind to."
    differing = sum(second.differs(score) for score in report.scores)
    order = "" if second.agreement is None else f", order agrees {second.agreement:+.2f} of 1"
    return (f"Second judge {second.measure.backend}: other verdict on {differing} of "
            f"{len(report.scores)}{order}")


def _remark(report: LikenessReport, score: Score) -> str:
    """What a likeness number hides about one picture."""
    copy, quality = report.axes.copies[score.index], report.axes.quality[score.index]
    parts = []
    if copy is not None and copy.copied:
        name = copy.pixel_photo if copy.same_picture else copy.nearest
        parts.append(f"copy of {name}")
    if score.disputed:
        parts.append("judges differ: " + ", ".join(
            f"{opinion.backend} {opinion.verdict.value}" for opinion in score.opinions))
    if report.second is not None and score.score is not None:
        other = report.second.scores[score.index]
        value = "-" if other.score is None else f"{other.score:.2f}"
        word = f"{other.verdict.value} " if report.second.differs(score) else ""
        parts.append(f"2nd judge {word}{value}")
    parts += [reason.rule.replace("_", " ") for reason in (quality.reasons if quality else ())]
    return "  |  ".join(parts)


def _draw_ruler(draw: ImageDraw.ImageDraw, calibration: Calibration, scores: Sequence[Score],
                box: tuple[int, int, int, int]) -> None:
    """Show the limits as coloured zones, the pictures above them and the own photos below."""
    own = calibration.spread.similarities if calibration.spread else ()
    found = [score.score for score in scores if score.score is not None]
    limits = [value for value in (calibration.keep_from, calibration.reject_below)
              if value is not None]
    values = [*own, *found, *limits]
    if not values:
        return
    margin = max(0.05, 0.08 * (max(values) - min(values)))
    low, high = min(values) - margin, max(values) + margin
    left, top, right, bottom = box

    def across(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    reject = across(calibration.reject_below if calibration.reject_below is not None else low)
    keep = across(calibration.keep_from if calibration.keep_from is not None else high)
    for start, end, verdict in ((left, reject, Verdict.REJECT), (reject, keep, Verdict.UNSURE),
                                (keep, right, Verdict.KEEP)):
        if end > start:
            draw.rectangle((start, top, end, bottom), fill=VERDICTS[verdict.value])
    for value in own:
        draw.line((across(value), bottom + 3, across(value), bottom + 13), INK, 2)
    for value in found:
        x = across(value)
        draw.polygon(((x, top), (x - 5, top - 9), (x + 5, top - 9)), fill=INK)
    for value in limits:
        text = f"{value:.2f}"
        half = draw.textlength(text, font=font(14)) / 2
        draw.text((across(value) - half, bottom + 16), text, FAINT, font=font(14))
    legend = "above: these pictures   below: the subject's own photos, each against the others"
    draw.text((left, bottom + 36), legend, FAINT, font=font(14))


def _draw_card(sheet: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], place: int,
               score: Score, pixels: np.ndarray) -> None:
    left, top = corner
    colour = VERDICTS[score.verdict.value]
    draw.rectangle((left, top, left + CELL - 1, top + CELL + CAPTION - 1), fill=CARD)
    picture = ImageOps.contain(Image.fromarray(pixels), (CELL, CELL), Image.Resampling.LANCZOS)
    offset = (left + (CELL - picture.width) // 2, top + (CELL - picture.height) // 2)
    sheet.paste(picture, offset)
    _draw_face(draw, score, picture.width / pixels.shape[1], offset, colour)
    draw.rectangle((left, top + CELL, left + CELL - 1, top + CELL + 3), fill=colour)
    draw.rectangle((left, top, left + 36, top + 28), fill=colour)
    draw.text((left + 18, top + 14), str(place), GROUND, font=font(18), anchor="mm")
    line = top + CELL + 10
    value = "-" if score.score is None else f"{score.score:.2f}"
    draw.text((left + 10, line), value, INK, font=font(24))
    draw.text((left + CELL - 10, line + 3), score.verdict.value, colour, font=font(20),
              anchor="ra")
    small = fit(draw, _small_print(score), 14, CELL - 20)
    draw.text((left + 10, line + 29), small, FAINT, font=font(14))


def _draw_face(draw: ImageDraw.ImageDraw, score: Score, scale: float, offset: tuple[int, int],
               colour: str) -> None:
    if score.face is None:
        return
    edges = [edge * scale + offset[index % 2] for index, edge in enumerate(score.face.box)]
    draw.rectangle(edges, outline=colour, width=2)


def _small_print(score: Score) -> str:
    parts = [f"image {score.index + 1}"]
    if score.percentile is not None:
        parts.append(f"own {score.percentile:.0f} %")
    if score.above_strangers is not None:
        parts.append(f"bank {score.above_strangers:.1f} %")
    if score.face is not None:
        parts.append(f"yaw {round(score.face.pose.yaw):+d}")
    if score.status != "scored":
        parts.append(STATUS_WORDS[score.status])
    return "  |  ".join(parts)
