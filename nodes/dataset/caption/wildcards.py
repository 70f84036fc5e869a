"""Wildcards in captions, `{red|blue}`, which mean to training what they mean to sd-scripts.

There one of the words is drawn each time a photo is seen; here every choice is a caption of the
photo, among which training draws.
"""

from __future__ import annotations

import itertools
import math
import re

from ...errors import LikenessError

MOST = 16  # captions that one line may become: each is encoded and takes its place on disk

_WILDCARD = re.compile(r"(?<!\{)\{([^{}]*\|[^{}]*)\}(?!\})")


def choices(text: str, source: str) -> tuple[str, ...]:
    """Every caption that a line with wildcards stands for; a line without any is its own.

    >>> choices("a {red|blue} tie", "The caption")
    ('a red tie', 'a blue tie')

    Args:
        source: what an error calls the line, capitalised.

    Raises:
        LikenessError: they are too many.
    """
    parts = [part.split("|") if place % 2 else [part]
             for place, part in enumerate(_WILDCARD.split(text))]
    count = math.prod(map(len, parts))
    if count > MOST:
        raise LikenessError(f"{source} has wildcards for {count} captions, and each is encoded; "
                            f"leave words out until they make {MOST} or fewer.")
    return tuple(map("".join, itertools.product(*parts)))


def word_for_word(text: str) -> str:
    """A text whose braces are no fields, save those of wildcards."""
    parts = _WILDCARD.split(text)
    return "".join(f"{{{part}}}" if place % 2 else part.replace("{", "{{").replace("}", "}}")
                   for place, part in enumerate(parts))
