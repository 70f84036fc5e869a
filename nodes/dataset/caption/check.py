"""The check of captions: what must not be named if it is to be learned, and what must be."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...errors import LikenessError
from .caption import words

LONGEST = 75  # words; CLIP reads 75 tokens beside start and end, and a word is one or more
_ALWAYS = 0.8  # share of the photos from which a thing counts as always worn


@dataclass(frozen=True)
class Trait:
    """Something that belongs to a person and is learned only where captions are silent."""

    id: str
    phrases: re.Pattern  # things, which leave with the word that ties them on: with a beard
    adjectives: re.Pattern  # leave alone
    always: bool  # only when nearly every caption names it
    reason: str


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with the captions."""

    rule: str  # a trait's id, no_trigger, trigger_word, alike, long
    photos: tuple[str, ...]
    words: tuple[str, ...]
    text: str  # one sentence

    @property
    def is_trait(self) -> bool:
        """Whether a trait is named."""
        return self.rule in {trait.id for trait in traits()}


@functools.cache
def traits() -> tuple[Trait, ...]:
    """The traits that the check knows."""
    def pattern(parts: Sequence[str]) -> re.Pattern:
        return re.compile(rf"(?<![\w-])(?:{'|'.join(parts)})(?![\w-])", re.IGNORECASE)

    return tuple(Trait(entry["id"], pattern(entry["phrases"]), pattern(entry["adjectives"]),
                       entry["when"] == "all", entry["reason"]) for entry in words()["traits"])


def changeable(text: str) -> frozenset[str]:
    """Read a comma separated list of traits that may change from picture to picture.

    Raises:
        LikenessError: one of them is not known.
    """
    names = frozenset(part.strip().lower() for part in text.split(",") if part.strip())
    unknown = sorted(names - {trait.id for trait in traits()})
    if unknown:
        raise LikenessError(f"`may_change` names `{unknown[0]}`, which is no known trait; use "
                            f"some of {', '.join(trait.id for trait in traits())}.")
    return names


def check(captions: Mapping[str, str], trigger: str, class_noun: str,
          may_change: frozenset[str] = frozenset()) -> tuple[Finding, ...]:
    """Find what is wrong with captions by photo name; lines of one are captions of their own.

    Args:
        may_change: ids of traits that shall follow the prompt and may be named.
    """
    found = _trigger_findings(captions, trigger)
    for name, text in captions.items():
        longest = max((len(line.split()) for line in text.splitlines()), default=0)
        if longest > LONGEST:
            found.append(Finding("long", (name,), (), f"The caption of {name} has {longest} words; "
                                 f"CLIP reads about {LONGEST}, so shorten it or put what matters "
                                 "first."))
    named = _named_traits(captions, trigger, class_noun, may_change)
    for trait, spots in named:
        for name, said in spots.items():
            found.append(Finding(trait.id, (name,), said, f"The caption of {name} names the "
                                 f"{trait.id} (\"{', '.join(said)}\"): {trait.reason}."))
    texts = {" ".join(text.split()) for text in captions.values()}
    if len(captions) > 1 and len(texts) == 1:
        found.append(Finding("alike", tuple(captions), (), f"All {len(captions)} captions are "
                             "alike, so pose, expression and light are learned as part of the "
                             "person; describe what differs."))
    return tuple(found)


def without_traits(captions: Mapping[str, str], trigger: str, class_noun: str,
                   may_change: frozenset[str] = frozenset()) -> dict[str, str]:
    """The captions with the words that name a trait taken out."""
    left = dict(captions)
    for trait, spots in _named_traits(captions, trigger, class_noun, may_change):
        for name in spots:
            left[name] = "\n".join(_without(line, trait, f"{trigger} {class_noun}")
                                   for line in left[name].splitlines())
    return left


def _trigger_findings(captions: Mapping[str, str], trigger: str) -> list[Finding]:
    found = []
    meaning = words()["taken"].get(trigger.lower())
    if meaning or trigger.lower() in words()["common"]:
        means = f"means {meaning}" if meaning else "is a common word"
        found.append(Finding("trigger_word", (), (trigger,), f"The trigger `{trigger}` {means} to "
                             "the text encoder, so the person mixes with that; take letters that "
                             "are no word, such as ohwx."))
    word = re.compile(rf"(?<![\w-]){re.escape(trigger)}(?![\w-])")
    for name, text in captions.items():
        lines = text.splitlines() or [""]
        without = [str(number) for number, line in enumerate(lines, start=1)
                   if not word.search(line)]
        if without:
            which = (f"Line {', '.join(without)} of the caption of {name}, a caption of its own,"
                     if len(lines) > 1 else f"The caption of {name}")
            found.append(Finding("no_trigger", (name,), (), f"{which} lacks the trigger {trigger}, "
                                 "so it teaches the model nothing about the person; add it."))
    return found


def _named_traits(captions: Mapping[str, str], trigger: str, class_noun: str,
                  may_change: frozenset[str]) -> list[tuple[Trait, dict[str, tuple[str, ...]]]]:
    """Every trait with the words for it by photo."""
    found = []
    for trait in traits():
        if trait.id in may_change:
            continue
        spots = {}
        for name, text in captions.items():
            plain = text.replace(f"{trigger} {class_noun}", "")
            said = [match.group(0) for pattern in (trait.phrases, trait.adjectives)
                    for match in pattern.finditer(plain)]
            if said:
                spots[name] = tuple(dict.fromkeys(said))
        enough = len(spots) >= max(2, _ALWAYS * len(captions)) if trait.always else bool(spots)
        if enough:
            found.append((trait, spots))
    return found


def _without(line: str, trait: Trait, subject: str) -> str:
    """One caption without a trait's words, and without what tied them to the rest."""
    held = line.replace(subject, "\0")  # "young woman" may be the class itself
    thing, article = trait.phrases.pattern, r"(?:(?:an?|his|her|their|the|some)\s+)?"
    tie = r"\b(?:with|has|having|wearing|featuring)"
    steps = (
        # with a beard and a tie -> with a tie
        (rf"({tie}\s+){article}{thing}\s*(?:,\s*)?and\s+(?=(?:an?|his|her|their|the)\s)", r"\1"),
        (rf"{tie}\s+{article}{thing}(?:\s+and\b)?", ""),
        (rf"(?:\band\s+)?{article}{thing}", ""),
        (trait.adjectives.pattern, ""),
    )
    for pattern, rest in steps:
        held = re.sub(pattern, rest, held, flags=re.IGNORECASE)
    return _tidied(held).replace("\0", subject)


def _tidied(text: str) -> str:
    """Close the gaps that words left: spaces, empty parts, a lone pronoun, a before a vowel."""
    text = re.sub(r"(?<![^.\s])\s*\b(?:he|she|they|it)\s*\.", "", text, flags=re.IGNORECASE)
    parts = (part.strip() for part in re.sub(r"[ \t]+", " ", text).split(","))
    text = ", ".join(part for part in parts
                     if part and not re.fullmatch(r"(?:with|and|has|an?|the)", part))
    text = re.sub(r"\s+([.;:])", r"\1", text).strip()
    text = re.sub(r"\ban(?= [bcdfgjklmnpqrstvwxyz])", "a", text)
    return re.sub(r"\ba(?= [aeio])", "an", text)
