"""Captions from what is known about a photo: everything changeable, never the identity."""

from __future__ import annotations

import hashlib
import re
from string import Formatter

from ..errors import LikenessError
from ..sockets import Photo

DEFAULT_TEMPLATE = "photo of {subject}, {framing}, {pose}, {expression}"
FIELDS = ("subject", "trigger", "class", "framing", "pose", "expression")


def captions(photo: Photo, trigger: str, class_noun: str, templates: str = DEFAULT_TEMPLATE,
             source: str = "The caption template") -> tuple[str, ...]:
    """Describe a photo once for each line of `templates`, without repeats, in their order.

    Raises:
        LikenessError: as `caption`; an empty text is refused too.
    """
    lines = [line for line in templates.splitlines() if line.strip()] or [""]
    texts = [caption(photo, trigger, class_noun, line, source) for line in lines]
    return tuple(dict.fromkeys(texts))


def caption(photo: Photo, trigger: str, class_noun: str, template: str = DEFAULT_TEMPLATE,
            source: str = "The caption template") -> str:
    """Describe a photo with the trigger in place.

    Args:
        template: text with the fields `{subject}` (trigger and class noun), `{trigger}`, `{class}`,
            `{framing}`, `{pose}`, `{expression}`; empty descriptions are left out with their comma.
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
                            "person; add one to every line.")
    words = {"subject": f"{trigger} {class_noun}", "trigger": trigger, "class": class_noun,
             "framing": _framing(photo), "pose": _pose(photo), "expression": _expression(photo)}
    text = "".join(before + (words[name] if name else "")
                   for before, name, _, _ in Formatter().parse(template))
    return ", ".join(_parts(text))


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
    shape = photo.face.expression

    def both(name: str) -> float:
        return (shape.get(f"{name}Left", 0.0) + shape.get(f"{name}Right", 0.0)) / 2

    if both("eyeBlink") > 0.6:
        return "eyes closed"
    if both("mouthSmile") > 0.45:
        teeth = both("mouthUpperUp") > 0.25 or shape.get("jawOpen", 0.0) > 0.1
        return "smiling with teeth" if teeth else "smiling"
    if shape.get("jawOpen", 0.0) > 0.25:
        return "mouth open"
    return "neutral expression"
