"""Puts a subject's words into a style's prompt."""

from __future__ import annotations

import re

from ..errors import LikenessError
from ..sockets import Style, Subject
from .catalog import SUBJECT_SLOT


def positive_prompt(style: Style, subject: Subject, prefix: str = "", suffix: str = "") -> str:
    """Write the prompt with the trigger and class noun in place, the trigger exactly once.

    Args:
        prefix: words before the style's own, which the text encoder weighs most.
        suffix: words after the style's own.

    Raises:
        LikenessError: the trigger is empty, or is also a word of the style or of the user's text.
    """
    trigger = subject.trigger.strip()
    if not trigger:
        raise LikenessError(f"The subject `{subject.name}` has no trigger token; "
                            "give it one in Subject.")
    phrase = f"{trigger} {subject.class_noun}".strip()
    _refuse_trigger(trigger, prefix, "the prefix")
    _refuse_trigger(trigger, suffix, "the suffix")
    _refuse_trigger(trigger, style.prompt.replace(SUBJECT_SLOT, ""), f"the style `{style.id}`")
    _refuse_trigger(trigger, subject.class_noun, "the class noun")
    return _join(prefix, style.prompt.replace(SUBJECT_SLOT, phrase), suffix)


def negative_prompt(style: Style, subject: Subject, extra: str = "") -> str:
    """Write the negative prompt, which must not push the subject away.

    Raises:
        LikenessError: the user's text or the style names the trigger.
    """
    _refuse_trigger(subject.trigger.strip(), extra, "the negative text")
    _refuse_trigger(subject.trigger.strip(), style.negative, f"the style `{style.id}`")
    return _join(style.negative, extra)


def count_word(word: str, text: str) -> int:
    """Count a word in a text, whatever its case, not inside other words."""
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, flags=re.IGNORECASE))


def _refuse_trigger(trigger: str, text: str, where: str) -> None:
    if trigger and count_word(trigger, text):
        raise LikenessError(
            f"The trigger `{trigger}` also stands in {where}, but it must stand in the prompt "
            "once; remove it there, or choose a rarer trigger in Subject.")


def _join(*parts: str) -> str:
    return ", ".join(part for part in (part.strip().strip(",").strip() for part in parts) if part)
