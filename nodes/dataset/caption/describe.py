"""Captions onto photos: from a captioner, a text file, the photo itself or a template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import LikenessError
from ...sockets import Photo, PhotoSet, Verdict
from ..curate.people import nobody_stands_out
from ..subject.subject import SubjectSettings
from .caption import SUBJECT_WAYS, captions, with_own_light, with_subject
from .check import Finding, check, without_traits
from .given import paragraphs_note, side_car_captions

ON_TRAIT = ("warn", "remove", "error")
EXISTING = ("keep", "replace")


@dataclass(frozen=True)
class CaptionSettings:
    """How photos get their captions and what becomes of traits in them."""

    trigger: str
    class_noun: str
    template: str
    subject_words: str = SUBJECT_WAYS[0]
    side_cars: bool = False
    existing: str = "keep"
    on_trait: str = "warn"
    may_change: frozenset[str] = field(default_factory=frozenset)
    include_unsure: bool = False

    def __post_init__(self) -> None:
        # The words must be ones that the subject takes too.
        SubjectSettings("captions", self.trigger, self.class_noun, 0, False)
        for name, value, known in (("subject_words", self.subject_words, SUBJECT_WAYS),
                                   ("existing", self.existing, EXISTING),
                                   ("on_trait", self.on_trait, ON_TRAIT)):
            if value not in known:
                raise LikenessError(f"`{name}` must be one of {', '.join(known)}, got `{value}`.")


@dataclass(frozen=True, eq=False)
class Described:
    """Photos with captions, where each came from, and what the check says."""

    photos: PhotoSet
    sources: dict[str, str]  # Photo.name -> captions, side-car, photo, template
    before: dict[str, str]  # captions that lost words to the check, as they were
    findings: tuple[Finding, ...]
    note: str = ""  # one sentence on lines that may be meant as paragraphs


def chosen_photos(photos: PhotoSet, include_unsure: bool) -> tuple[Photo, ...]:
    """The photos with a face that may be used, in their order.

    Raises:
        LikenessError: none; says whether judging, or `include_unsure`, would give some.
    """
    wanted = {Verdict.KEEP, Verdict.UNSURE} if include_unsure else {Verdict.KEEP}
    chosen = tuple(photo for photo in photos.photos
                   if photo.verdict in wanted and photo.face is not None)
    if chosen:
        return chosen
    if any(photo.verdict is None for photo in photos.photos):
        raise LikenessError("These photos have no verdicts yet; connect the output of Curate "
                            "Photos instead of Load Photos.")
    different = nobody_stands_out(photos.photos)
    if different:
        raise LikenessError(different)
    unsure = sum(photo.verdict is Verdict.UNSURE for photo in photos.photos)
    hint = f"set `include_unsure` to use {unsure}, or " if unsure and not include_unsure else ""
    raise LikenessError(f"None of {len(photos.photos)} photos is kept; {hint}look at the reasons "
                        "in Curate Photos and add better photos.")


def describe(photos: PhotoSet, given: Sequence[str] | None, settings: CaptionSettings,
             on_photo: Callable[[int], None]) -> Described:
    """Give every chosen photo its caption; others pass as they are.

    Of several sources the first one with text holds: `given`, then text files beside the photos
    if asked, then the photo's own caption if it is kept, then the template.

    Args:
        given: captions in the order of the chosen photos; None when no captioner is connected.

    Raises:
        LikenessError: another number of captions than photos, a caption or template that cannot
            be used, or a trait in a caption when that is an error.
    """
    chosen = chosen_photos(photos, settings.include_unsure)
    if given is not None and len(given) != len(chosen):
        raise LikenessError(f"{len(given)} captions came for {len(chosen)} photos; connect the "
                            "captioner to the images of Crop Photos with the same photos and the "
                            "same `include_unsure`, and let it give one caption per image.")
    beside = side_car_captions(chosen).texts if settings.side_cars else {}
    texts, sources, brought = {}, {}, {}
    for number, photo in enumerate(with_own_light(chosen)):
        own = photo.caption if settings.existing == "keep" else ""
        known = (("captions", " ".join(str(given[number]).split()) if given is not None else ""),
                 ("side-car", beside.get(photo.name, "")), ("photo", own))
        source, text = next(((name, text) for name, text in known if text.strip()),
                            ("template", ""))
        texts[photo.name] = _caption(photo, source, text, settings)
        sources[photo.name] = source
        brought |= {photo.name: text} if source in ("side-car", "photo") else {}
        on_photo(number + 1)
    described = _checked(photos, texts, sources, settings)
    return replace(described, note=paragraphs_note(brought, settings.trigger.strip()))


def _caption(photo: Photo, source: str, text: str, settings: CaptionSettings) -> str:
    words = settings.trigger.strip(), settings.class_noun.strip()
    if source == "template":
        return "\n".join(captions(photo, *words, settings.template))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if source == "side-car":  # fields may stand in them, as in Prepare Training
        lines = [told for line in lines for told in ([line] if "{" not in line else captions(
            photo, *words, line, f"The caption file of {photo.name}"))]
    return "\n".join(with_subject(line, *words, settings.subject_words) for line in lines)


def _checked(photos: PhotoSet, texts: dict[str, str], sources: dict[str, str],
             settings: CaptionSettings) -> Described:
    words = settings.trigger.strip(), settings.class_noun.strip(), settings.may_change
    findings = check(texts, *words)
    wrong = [finding for finding in findings if finding.is_trait]
    if wrong and settings.on_trait == "error":
        more = f" {len(wrong) - 1} more are like it." if len(wrong) > 1 else ""
        raise LikenessError(f"{wrong[0].text}{more}")
    before: dict[str, str] = {}
    if wrong and settings.on_trait == "remove":
        left = without_traits(texts, *words)
        before = {name: text for name, text in texts.items() if left[name] != text}
        texts = left
    captioned = tuple(replace(photo, caption=texts.get(photo.name, photo.caption))
                      for photo in photos.photos)
    return Described(replace(photos, photos=captioned), sources, before, findings)


def report(described: Described, settings: CaptionSettings) -> dict[str, Any]:
    """The captions and the check as JSON data."""
    texts = {photo.name: photo.caption for photo in described.photos.photos}
    return {
        "photos": [{"name": name, "caption": texts[name].splitlines(), "source": source,
                    "before": described.before.get(name)}
                   for name, source in described.sources.items()],
        "warnings": [*filter(None, [described.note]), *(
            finding.text for finding in described.findings
            if not (finding.is_trait and settings.on_trait == "remove"))],
        "removed": [{"photos": list(finding.photos), "trait": finding.rule,
                     "words": list(finding.words)} for finding in described.findings
                    if finding.is_trait and settings.on_trait == "remove"],
    }
