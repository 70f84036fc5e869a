"""Text on the pages that the pack draws: one font, and words that fit the room they have."""

from __future__ import annotations

from PIL import ImageDraw, ImageFont

_CUT = "..."


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that travels with Pillow, `size` pixels high."""
    return ImageFont.load_default(size)


def fit(draw: ImageDraw.ImageDraw, text: str, size: int, room: float) -> str:
    """Shorten a text at its end until it fits into `room` pixels."""
    if _fits(draw, text, size, room):
        return text
    while text and not _fits(draw, text + _CUT, size, room):
        text = text[:-1]
    return text.rstrip() + _CUT


def fit_name(draw: ImageDraw.ImageDraw, name: str, size: int, room: float) -> str:
    """Shorten a file's name in its middle, so that its number and ending stay; "" if none fits."""
    for keep in range(len(name), 1, -2):
        cut = name if keep == len(name) else f"{name[:keep // 2]}{_CUT}{name[-(keep // 2):]}"
        if _fits(draw, cut, size, room):
            return cut
    return ""


def wrap(draw: ImageDraw.ImageDraw, text: str, size: int, room: float, lines: int) -> list[str]:
    """Break a text into at most `lines` lines of `room` pixels; the last one is shortened."""
    found: list[str] = []
    words = text.split()
    while words and len(found) < lines:
        line = words.pop(0)
        while words and _fits(draw, f"{line} {words[0]}", size, room):
            line += f" {words.pop(0)}"
        found.append(line)
    if words:
        found[-1] += f" {' '.join(words)}"
    return [fit(draw, line, size, room) for line in found]


def _fits(draw: ImageDraw.ImageDraw, text: str, size: int, room: float) -> bool:
    return draw.textlength(text, font=font(size)) <= room
