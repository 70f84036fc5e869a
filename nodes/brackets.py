"""Captions word for word: brackets in which the host would read a weight stay brackets."""

from __future__ import annotations

import re
from typing import Any

_BRACKET = re.compile(r"(?<!\\)([()])")
_PROBE = "(a:2)"  # an encoder that reads weights gives `a` twice its own

Tokens = dict[str, list[list[tuple[Any, ...]]]]  # encoder's key -> sections of (token, weight)


def plain(text: str) -> str:
    r"""A text whose brackets stay brackets where the host would read weights in them.

    One that is written `\(` already, as the host's prompts have it, stays so.
    """
    return _BRACKET.sub(r"\\\1", text)


def literal_tokens(clip: Any, text: str) -> Tokens:
    """A caption's tokens by encoder, its brackets as words and every weight 1.

    Some encoders read no weights and no backslashes; those get the text as it stands.
    """
    written, escaped = clip.tokenize(text), plain(text)
    if escaped == text:
        return written
    weighed, kept = clip.tokenize(_PROBE), clip.tokenize(escaped)
    return {key: kept[key] if _has_weights(weighed[key]) else tokens
            for key, tokens in written.items()}


def _has_weights(sections: list[list[tuple[Any, ...]]]) -> bool:
    return any(entry[1] != 1.0 for section in sections for entry in section)
