"""One page for a whole run: photos, coverage, training, sweep, ranked headshots and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ...media.images import read_photo
from ...media.lettering import fit, font, wrap
from ...sockets import EMPTY, Photo, Subject
from ..calibration.rates import percent
from ..drawing import CARD, FAINT, GROUND, INK, RULE, STATUS_WORDS, VERDICTS, paste
from ..score.report import LikenessReport
from .charts import coverage_chart, sweep_chart, training_chart

WIDTH, MARGIN, PAD = 1400, 28, 18  # pixels
INNER = WIDTH - 2 * MARGIN - 2 * PAD
HEADSHOTS, HEADSHOT_COLUMNS, CAPTION = 24, 6, 118
PHOTOS, PHOTO_SIDE, PHOTO_GAP = 24, 118, 10


@dataclass(frozen=True, eq=False)
class Material:
    """What a page is made from."""

    title: str
    subject: Subject
    report: LikenessReport
    pictures: Mapping[int, np.ndarray] = field(default_factory=lambda: EMPTY)  # by number
    training: Mapping[str, Any] | None = None  # what Likeness Train reports
    history: Mapping[str, Any] | None = None  # its steps and looks; None: not to be read
    coverage: Mapping[str, Any] | None = None  # what the photo coach reports
    sweep: Mapping[str, Any] | None = None  # what Likeness Sweep reports


def draw_page(material: Material) -> np.ndarray:
    """Draw the page as (H, 1400, 3) uint8; parts that were not given are left out."""
    parts = [_header(material), _numbers(material), _photos(material.subject)]
    if material.coverage is not None:
        parts.append(_coverage(material.coverage))
    if material.training is not None:
        parts.append(_training(material.training, material.history))
    if material.sweep is not None:
        parts.append(_sweep(material.sweep))
    parts += [_headshots(material), _settings(material)]
    page = Image.new("RGB", (WIDTH, MARGIN + sum(part.height + PAD for part in parts)), GROUND)
    top = MARGIN
    for part in parts:
        page.paste(part, (MARGIN, top))
        top += part.height + PAD
    return np.ascontiguousarray(np.asarray(page))


def _card(title: str, height: int, note: str = "") -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    """A titled card with room for `height` pixels of content, which begins at the returned row."""
    top = PAD + 40
    card = Image.new("RGB", (WIDTH - 2 * MARGIN, top + height + PAD), CARD)
    draw = ImageDraw.Draw(card)
    draw.text((PAD, PAD), title, INK, font=font(22))
    left = PAD + draw.textlength(title, font=font(22)) + 16
    draw.text((left, PAD + 5), fit(draw, note, 15, card.width - PAD - left), FAINT, font=font(15))
    return card, draw, top


def _header(material: Material) -> Image.Image:
    head = Image.new("RGB", (WIDTH - 2 * MARGIN, 84), GROUND)
    draw = ImageDraw.Draw(head)
    subject = material.subject
    draw.text((0, 0), fit(draw, material.title, 36, head.width), INK, font=font(36))
    said = (f"{subject.name} ({subject.trigger} {subject.class_noun}): {len(subject.references)} "
            f"reference and {len(subject.held_out)} held-out photos, {len(material.report.scores)} "
            f"pictures, judged by {material.report.data['backend']['title']}")
    draw.text((0, 52), fit(draw, said, 17, head.width), FAINT, font=font(17))
    return head


def _numbers(material: Material) -> Image.Image:
    tiles = _tiles(material.report.data)
    across, height = 4, 92
    card, draw, top = _card("Numbers", math.ceil(len(tiles) / across) * (height + 10) - 10,
                            "likeness is never alone: copies, variety, prompt and faces beside it")
    width = (INNER - (across - 1) * 10) // across
    for place, (name, value, said) in enumerate(tiles):
        row, column = divmod(place, across)
        left, upper = PAD + column * (width + 10), top + row * (height + 10)
        draw.rectangle((left, upper, left + width - 1, upper + height - 1), GROUND)
        draw.text((left + 12, upper + 8), name, FAINT, font=font(14))
        draw.text((left + 12, upper + 28), fit(draw, value, 26, width - 24), INK, font=font(26))
        draw.text((left + 12, upper + 66), fit(draw, said, 13, width - 24), FAINT, font=font(13))
    return card


def _tiles(data: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name, value and what it means, of the numbers that matter most."""
    counts, axes, limits = data["counts"], data["axes"], data["thresholds"]
    scores = [entry["score"] for entry in data["images"] if entry["score"] is not None]
    spread, variety, prompt = data["spread"], axes["diversity"], axes["prompt"]
    middle = f"{float(np.median(scores)):.2f}" if scores else "-"
    own = f"own photos: median {spread['median']:.2f}" if spread else "too few photos to compare"
    return [
        ("keep / unsure / reject", " / ".join(str(counts[name]) for name in VERDICTS),
         f"keep from {_value(limits['keep_from'])}, reject below {_value(limits['reject_below'])}"),
        ("median likeness", middle, own),
        ("false accepts at keep", *_rate(limits["keep"]["false_accepts"], "no bank of strangers")),
        ("false rejects at keep", *_rate(limits["keep"]["false_rejects"], "too few own photos")),
        ("copies of a photo", str(axes["copy_paste"]["copies"]),
         f"mean copy-paste {_value(axes['copy_paste']['mean'])}; real photos: 0"),
        ("different pictures", _value(variety["effective_pictures"], 1),
         f"of {len(data['images'])} by layout and light (Vendi score)"),
        ("prompt adherence", _value(prompt and prompt["clip_t"], 3),
         "CLIP-T" if prompt else "no CLIP was connected to the score"),
        ("faces with objections", str(axes["face_quality"]["pictures_with_reasons"]),
         "blur, light, size or closed eyes"),
    ]


def _value(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _rate(entry: Mapping[str, Any] | None, missing: str) -> tuple[str, str]:
    if entry is None:
        return "-", missing
    how = "modelled; " if entry["modelled"] else ""
    return percent(entry["rate"]), (f"{how}{entry['counted']} of {entry['of']} counted, at most "
                                    f"{percent(entry['at_most'])}")


def _photos(subject: Subject) -> Image.Image:
    shown = [(photo, place >= len(subject.references))
             for place, photo in enumerate(subject.photos)]
    note = f"{len(subject.references)} may train, {len(subject.held_out)} (outlined) never do"
    if len(shown) > PHOTOS:
        note += f"; the first {PHOTOS} are shown, held-out ones first"
        shown = sorted(shown, key=lambda entry: not entry[1])[:PHOTOS]
    columns = (INNER + PHOTO_GAP) // (PHOTO_SIDE + PHOTO_GAP)
    step = PHOTO_SIDE + 22
    card, draw, top = _card("Photos used", math.ceil(len(shown) / columns) * step, note)
    for place, (photo, held_out) in enumerate(shown):
        row, column = divmod(place, columns)
        left, upper = PAD + column * (PHOTO_SIDE + PHOTO_GAP), top + row * step
        box = (left, upper, left + PHOTO_SIDE, upper + PHOTO_SIDE)
        draw.rectangle(box, GROUND)
        _draw_photo(card, draw, photo, box)
        if held_out:
            draw.rectangle(box, outline=VERDICTS["unsure"], width=3)
        draw.text((left, upper + PHOTO_SIDE + 4), fit(draw, photo.file.name, 12, PHOTO_SIDE), FAINT,
                  font=font(12))
    return card


def _draw_photo(card: Image.Image, draw: ImageDraw.ImageDraw, photo: Photo,
                box: tuple[int, int, int, int]) -> None:
    try:
        paste(card, read_photo(photo.file), box)
    except OSError:
        draw.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), "file is gone", FAINT,
                  font=font(13), anchor="mm")


def _chart_card(title: str, note: str, drawing: np.ndarray, lines: Sequence[str]) -> Image.Image:
    """A chart on the left and what it says on the right."""
    height, width = drawing.shape[:2]
    card, draw, top = _card(title, height, note)
    card.paste(Image.fromarray(drawing), (PAD, top))
    left, line = PAD + width + 20, top + 6
    for text in lines:
        for words in wrap(draw, text, 15, card.width - PAD - left, 5):
            if line > top + height - 18:
                return card
            draw.text((left, line), words, INK, font=font(15))
            line += 21
        line += 9
    return card


def _coverage(told: Mapping[str, Any]) -> Image.Image:
    shots = [f"{number}. {shot['text']}" for number, shot in enumerate(told.get("shots", ()), 1)]
    return _chart_card("Coverage", f"diversity {told['score']:.0f} of 100",
                       coverage_chart(told["coverage"]["counts"]), [told["headline"], *shots])


def _training(told: Mapping[str, Any], history: Mapping[str, Any] | None) -> Image.Image:
    recipe = told.get("recipe") or {}
    lines = [f"{told['method']}: {told['steps']} steps, kept step {told.get('kept_step', '-')}",
             str(told.get("ended", "")).capitalize(),
             f"Loss {_value(told.get('first_loss'), 4)} at first, "
             f"{_value(told.get('final_loss'), 4)} at the end",
             f"{told.get('photos', '-')} photos, {told.get('class_photos', '-')} class photos",
             *(f"{name.replace('_', ' ')}: {recipe[name]}" for name in
               ("rank", "alpha", "learning_rate", "optimizer", "batch_size")
               if recipe.get(name) is not None),
             *told.get("warnings", ())]
    note = "" if history is not None else "the file with every step is gone; looks alone are shown"
    return _chart_card("Training", note, training_chart(told, history), lines)


def _sweep(told: Mapping[str, Any]) -> Image.Image:
    gone = [column["label"] for column in told["columns"] if not column["scored"]]
    lines = [told["advice"], f"Flexibility: {told['flexibility']}.",
             f"{told['cells']} pictures of {len(told['prompts'])} prompts"]
    if gone:
        lines.append(f"Nothing could be scored at {', '.join(gone)}.")
    return _chart_card("Sweep", f"over {told['axis']}", sweep_chart(told), lines)


def _headshots(material: Material) -> Image.Image:
    data, columns, gap = material.report.data, HEADSHOT_COLUMNS, 12
    entries = data["images"][:HEADSHOTS]
    more = len(data["images"]) - len(entries)
    note = "best first" + (f"; {more} more are in the JSON" if more else "")
    side = (INNER - (columns - 1) * gap) // columns
    step = side + CAPTION + gap
    card, draw, top = _card("Headshots", math.ceil(len(entries) / columns) * step - gap, note)
    for place, entry in enumerate(entries):
        row, column = divmod(place, columns)
        _draw_headshot(card, draw, entry, material.pictures.get(entry["index"]),
                       (PAD + column * (side + gap), top + row * step), side)
    return card


def _draw_headshot(card: Image.Image, draw: ImageDraw.ImageDraw, entry: Mapping[str, Any],
                   pixels: np.ndarray | None, corner: tuple[int, int], side: int) -> None:
    left, top = corner
    colour = VERDICTS[entry["verdict"]]
    draw.rectangle((left, top, left + side - 1, top + side + CAPTION - 1), GROUND)
    if pixels is None:
        draw.text((left + side / 2, top + side / 2), "no picture given", FAINT, font=font(14),
                  anchor="mm")
    else:
        paste(card, pixels, (left, top, left + side, top + side))
    draw.rectangle((left, top + side, left + side - 1, top + side + 3), colour)
    draw.rectangle((left, top, left + 30, top + 24), colour)
    draw.text((left + 15, top + 12), str(entry["rank"]), GROUND, font=font(16), anchor="mm")
    draw.text((left + 10, top + side + 10), _value(entry["score"]), INK, font=font(22))
    draw.text((left + side - 10, top + side + 13), entry["verdict"], colour, font=font(17),
              anchor="ra")
    numbers, said = _small_print(entry)
    lines = [*numbers, *wrap(draw, said, 13, side - 20, 4 - len(numbers))]
    for number, line in enumerate(lines):
        draw.text((left + 10, top + side + 40 + 18 * number), fit(draw, line, 13, side - 20), FAINT,
                  font=font(13))


def _small_print(entry: Mapping[str, Any]) -> tuple[list[str], str]:
    """The numbers of a picture, and what is to be said about it."""
    if entry["status"] != "scored":
        return [STATUS_WORDS[entry["status"]]], entry["reason"]
    numbers = []
    if entry["percentile"] is not None:
        numbers.append(f"percentile {entry['percentile']:.0f} of own photos")
    if entry["false_accepts"] is not None:
        numbers.append(f"FAR {percent(entry['false_accepts']['rate'])}")
    quality, copy = entry["face_quality"], entry["copy_paste"]
    if copy and copy["copied"]:
        return numbers, copy["reason"]
    if quality and quality["reasons"]:
        return numbers, quality["reasons"][0]["text"]
    return numbers, f"image {entry['index'] + 1}, yaw {entry['yaw']:+.0f}"


def _settings(material: Material) -> Image.Image:
    data = material.report.data
    bank = data["bank"]
    lines = [f"Judge: {data['backend']['title']}. Licence: {data['backend']['licence']}",
             f"Limits: {data['thresholds']['rule']}.",
             f"Strangers: {bank['people']} people" + (f", {bank['source']}; holds for "
                                                      f"{bank['holds_for']}"
                                                      if bank["people"] else f". {bank['note']}")]
    lines += [note for note in (data["thresholds"]["note"],) if note]
    if data["second_judge"] is not None:
        second = data["second_judge"]
        lines.append(f"Second judge: {second['backend']['title']}; verdicts differ for "
                     f"{second['verdicts_differ']} pictures.")
    if material.training is not None:
        recipe = material.training.get("recipe") or {}
        said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in recipe.items()
                         if isinstance(value, (int, float, str)) and value != "")
        lines.append(f"Recipe: {said}; seed {material.training.get('seed')}.")
    return _text_card("Settings", lines)


def _text_card(title: str, lines: Sequence[str]) -> Image.Image:
    def measure(draw: ImageDraw.ImageDraw) -> list[str]:
        return [words for line in lines for words in wrap(draw, line, 14, INNER, 6)]

    broken = measure(ImageDraw.Draw(Image.new("RGB", (8, 8))))
    card, draw, top = _card(title, 20 * len(broken))
    draw.line((PAD, top - 6, card.width - PAD, top - 6), RULE)
    for number, line in enumerate(broken):
        draw.text((PAD, top + 4 + 20 * number), line, FAINT, font=font(14))
    return card


