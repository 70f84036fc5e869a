"""The headshot styles, read from the data file beside this module."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import LikenessError
from ..sockets import Style

STYLES_FILE = Path(__file__).with_name("styles.json")
SUBJECT_SLOT = "{subject}"


@cache
def styles() -> MappingProxyType[str, Style]:
    """Every style by its id, in the order of the data file."""
    data = json.loads(STYLES_FILE.read_text(encoding="utf-8"))
    found = [_style(entry, data["negative"]) for entry in data["styles"]]
    return MappingProxyType({style.id: style for style in found})


def style(style_id: str) -> Style:
    """Look one style up.

    Raises:
        LikenessError: no style has this id.
    """
    known = styles()
    if style_id not in known:
        raise LikenessError(f"There is no style `{style_id}`; choose one of {', '.join(known)}.")
    return known[style_id]


def _style(entry: dict[str, Any], common_negative: str) -> Style:
    # Text encoders weigh early words most: the person comes first, the lens last.
    prompt = (f"photo of {SUBJECT_SLOT}, {entry['framing']}, wearing {entry['attire']}, "
              f"{entry['light']}, {entry['background']}, {entry['lens']}")
    return Style(
        id=entry["id"],
        title=entry["title"],
        prompt=prompt,
        negative=f"{entry['negative']}, {common_negative}",
        control=MappingProxyType(dict(entry["control"])),
        width=entry["width"],
        height=entry["height"],
    )
