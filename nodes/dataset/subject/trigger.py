"""Whether a trigger already means something to CLIP."""

from __future__ import annotations

from collections.abc import Container


def trigger_warnings(trigger: str, vocabulary: Container[str]) -> list[str]:
    """What speaks against a trigger.

    Args:
        vocabulary: CLIP's tokens; those that end a word end in `</w>`.
    """
    word = trigger.lower()  # CLIP reads no capitals
    # The form without the ending is the common one, and what stops tools that add new words; rare
    # strings that photos' captions hardly held, such as ohwx, have the other alone.
    if word not in vocabulary:
        return []
    return [f"The trigger `{trigger}` is one of CLIP's own tokens: the text encoder knows it as "
            "something else, which training has to overcome, and textual inversion with sd-scripts "
            "stops at it. Take a word that it does not know, such as ohwx."]
