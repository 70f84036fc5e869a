"""Captions from what is known about a photo: everything changeable, never the identity."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from string import Formatter
from typing import Any

from ...errors import LikenessError
from ...quality.expression import expression_of, eyes_shut
from ...sockets import Photo
from .wildcards import choices

DEFAULT_TEMPLATE = "photo of {subject}, {framing}, {pose}, {expression}"
FIELDS = ("subject", "trigger", "class", "framing", "pose", "expression", "light")
SUBJECT_WAYS = ("in place of the class word", "in front", "leave")

# Measures of light beyond which a caption speaks of it.
_SIDE, _TINT = 0.25, 0.25
_DIM, _BRIGHT = 0.4, 0.7
_USUAL_KEY = 0.55
_EXPRESSIONS = {"neutral": "neutral expression", "serious": "serious expression",
                "smile": "smiling", "laugh": "smiling with teeth", "talking": "mouth open",
                "scowl": "scowling", "pout": "pouting"}


def captions(photo: Photo, trigger: str, class_noun: str, templates: str = DEFAULT_TEMPLATE,
             source: str = "The caption template") -> tuple[str, ...]:
    """Describe a photo once for each line of `templates`, without repeats, in their order.

    A line with wildcards gives a caption for each choice.

    Raises:
        LikenessError: as `caption`; an empty text is refused too.
    """
    lines = {number: line for number, line in enumerate(templates.splitlines(), start=1)
             if line.strip()} or {1: ""}
    texts = []
    for number, line in lines.items():
        named = f"Line {number} of {source[0].lower()}{source[1:]}" if len(lines) > 1 else source
        texts += [caption(photo, trigger, class_noun, choice, named)
                  for choice in choices(line, named)]
    return tuple(dict.fromkeys(texts))


def caption(photo: Photo, trigger: str, class_noun: str, template: str = DEFAULT_TEMPLATE,
            source: str = "The caption template") -> str:
    """Describe a photo with the trigger in place.

    Args:
        template: text with the fields `{subject}` (trigger and class noun), `{trigger}`, `{class}`,
            `{framing}`, `{pose}`, `{expression}`, `{light}`; empty descriptions are left out with
            their comma.
        source: what an error calls the template, capitalised.

    Raises:
        LikenessError: an unknown field, or a template that would lose the trigger.
    """
    used = _fields(template, source)
    unknown = used.difference(FIELDS)
    if unknown:
        raise LikenessError(f"{source} has the unknown field {{{sorted(unknown)[0]}}}; "
                            f"use {', '.join('{' + name + '}' for name in FIELDS)}.")
    if not used & {"subject", "trigger"} and not re.search(_word(trigger), template):
        raise LikenessError(f"{source} contains neither {{subject}} nor {{trigger}} nor the word "
                            f"{trigger}, so the model could not connect the photos with the "
                            "person; each line is a caption of its own, so add one to every "
                            "line.")
    words = {"subject": f"{trigger} {class_noun}", "trigger": trigger, "class": class_noun,
             "framing": _framing(photo), "pose": _pose(photo), "expression": _expression(photo),
             "light": _light(photo)}
    text = "".join(before + (words[name] if name else "")
                   for before, name, _, _ in Formatter().parse(template))
    return ", ".join(_parts(text))


def with_subject(text: str, trigger: str, class_noun: str, way: str) -> str:
    """Put the trigger into a caption that lacks it.

    >>> with_subject("A man in a suit", "ohwx", "man", "in place of the class word")
    'ohwx man in a suit'
    >>> with_subject("a suit and a tie", "ohwx", "man", "in place of the class word")
    'ohwx man, a suit and a tie'

    Args:
        way: one of `SUBJECT_WAYS`. The first word that names somebody of the class gives way to
            trigger and class noun, with its article; where there is none they go in front.
    """
    if way == "leave" or re.search(_word(trigger), text):
        return text
    subject = f"{trigger} {class_noun}"
    if way == "in place of the class word":
        nouns = "|".join(map(re.escape, class_words(class_noun)))
        named = rf"\b(?:(?:an?|the|one)\s+)?(?:{nouns})(?![\w-])(?!'s)"
        replaced, count = re.subn(named, lambda _: subject, text, count=1, flags=re.IGNORECASE)
        if count:
            return replaced
    return f"{subject}, {text}"


def with_own_light(photos: Sequence[Photo]) -> tuple[Photo, ...]:
    """One person's photos with brightness and colour of the light counted from their median.

    Both are measured on the skin, so as they are they say as much of the skin as of the light, and
    a caption that names them on every photo would keep the skin from being learned.
    """
    shifts = {}
    for name, usual in (("light_key", _USUAL_KEY), ("light_warmth", 0.0)):
        values = [photo.measures[name] for photo in photos if name in photo.measures]
        if values:
            shifts[name] = usual - median(values)
    return tuple(replace(photo, measures={**photo.measures, **{
        name: photo.measures[name] + shift for name, shift in shifts.items()
        if name in photo.measures}}) for photo in photos)


def class_words(class_noun: str) -> tuple[str, ...]:
    """The words under which captioners speak of somebody of a class, longest first."""
    known = words()["class_words"]
    found = {class_noun.lower(), *known.get(class_noun.lower(), ())}
    return tuple(sorted(found, key=lambda word: (-len(word), word)))


@functools.cache
def words() -> Mapping[str, Any]:
    """The word lists of captions and of their check."""
    return json.loads(Path(__file__).with_name("words.json").read_text("utf-8"))


def class_caption(text: str, trigger: str, class_noun: str) -> str:
    """The same caption about anybody of the class: the trigger gone, the class noun in its place.

    >>> class_caption("photo of ohwx man, smiling", "ohwx", "man")
    'photo of man, smiling'
    """
    beside = rf"{_word(trigger)}\s+(?={re.escape(class_noun)}(?!\w))"
    return re.sub(_word(trigger), lambda _: class_noun, re.sub(beside, "", text))


def shuffled(text: str, orders: int, kept: int, seed: str) -> tuple[str, ...]:
    """Other orders of a caption's comma separated parts, without repeats.

    Args:
        orders: how many; a caption of few parts has fewer.
        kept: how many parts stay in front.
        seed: the same text is always shuffled alike under the same seed.
    """
    parts = _parts(text)
    front, rest = parts[:kept], parts[kept:]
    found: dict[str, None] = {}
    # Repeats are drawn anew, for a while: short captions run out of orders.
    for draw in range(8 * orders):
        order = sorted(range(len(rest)), key=lambda place, draw=draw: hashlib.sha256(
            repr((seed, text, draw, place)).encode()).digest())
        other = ", ".join(front + [rest[place] for place in order])
        if other != text:
            found[other] = None
        if len(found) == orders:
            break
    return tuple(found)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _word(trigger: str) -> str:
    """A pattern of the trigger where it is a word of its own."""
    return rf"(?<![\w-]){re.escape(trigger)}(?![\w-])"


def _fields(template: str, source: str) -> set[str]:
    try:
        parts = list(Formatter().parse(template))
    except ValueError as err:
        raise LikenessError(f"{source} has a brace that belongs to no field; write fields as "
                            "{subject}, and no other braces.") from err
    return {name for _, name, _, _ in parts if name is not None}


def _framing(photo: Photo) -> str:
    if photo.face is None:
        return ""
    share = photo.face.size[1] / photo.height
    if share > 0.45:
        return "close-up"
    if share > 0.2:
        return "head and shoulders"
    return "upper body" if share > 0.1 else "full body"


def _pose(photo: Photo) -> str:
    if photo.face is None:
        return ""
    yaw, pitch = photo.face.pose.yaw, photo.face.pose.pitch
    side = "right" if yaw > 0 else "left"
    if abs(yaw) > 50:
        words = f"profile to the {side}"
    elif abs(yaw) > 20:
        words = f"three-quarter view to the {side}"
    else:
        words = "facing the camera"
    # Level portraits read up to +16 degrees of pitch, so "chin down" needs more than that.
    if pitch > 20:
        return f"{words}, chin down"
    return f"{words}, looking up" if pitch < -15 else words


def _expression(photo: Photo) -> str:
    if photo.face is None or not photo.face.expression:
        return ""
    return "eyes closed" if eyes_shut(photo.face) else _EXPRESSIONS[expression_of(photo.face)]


def _light(photo: Photo) -> str:
    """Where the light on the face comes from, and how bright and warm it is."""
    side, key = photo.measures.get("light_side"), photo.measures.get("light_key")
    warmth = photo.measures.get("light_warmth")
    if side is None and key is None and warmth is None:
        return ""
    kinds = (_beyond(key, (_DIM, _BRIGHT), ("dim", "bright")),
             _beyond(warmth, (-_TINT, _TINT), ("cool", "warm")))
    kind = " ".join(filter(None, kinds))
    where = _beyond(side, (-_SIDE, _SIDE), ("from the left", "from the right"))
    return " ".join(filter(None, (kind or ("" if where else "even"), "light", where)))


def _beyond(value: float | None, limits: tuple[float, float], names: tuple[str, str]) -> str:
    if value is None or limits[0] <= value <= limits[1]:
        return ""
    return names[0] if value < limits[0] else names[1]
