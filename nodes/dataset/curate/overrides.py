"""The user's own verdicts: from the node's widget and from a text file beside the photos."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...errors import LikenessError
from ...files import composed
from ...media.texts import read_text
from ...sockets import EMPTY, Photo, Reason, Verdict

FILE = "verdicts.txt"
BY_HAND = "by_hand"  # the rule under which the user's own reason stands
SAID = "By hand: "
_LARGEST = 2_000_000  # bytes; a list of verdicts is far smaller
_LINE = re.compile(r"(?P<name>.+?)\s*:\s*(?P<verdict>keep|unsure|reject)\b[\s:,;.-]*(?P<why>.*)",
                   re.IGNORECASE)


@dataclass(frozen=True)
class Override:
    """A verdict that the user gave."""

    verdict: Verdict
    why: str = ""


@dataclass(frozen=True)
class Overrides:
    """The user's verdicts by photo name, and what a report should say about them."""

    verdicts: Mapping[str, Override] = field(default_factory=lambda: EMPTY)
    notes: tuple[str, ...] = ()


NO_OVERRIDES = Overrides()


def read_overrides(widget: str, photos: Sequence[Photo]) -> Overrides:
    """Join the widget's verdicts with those of the photo folders' `verdicts.txt`; the widget wins.

    Raises:
        LikenessError: a line cannot be read, or the widget names a photo that is not there. In
            the file such names are only noted: photos come and go.
    """
    verdicts: dict[str, Override] = {}
    notes: list[str] = []
    for folder in dict.fromkeys(photo.file.parent for photo in photos):
        names = {composed(photo.file.name): photo.name for photo in photos
                 if photo.file.parent == folder}
        given = parse(_file_text(folder / FILE), f"`{FILE}`")
        absent = sorted(given.keys() - names.keys())
        if absent:
            notes.append(f"`{FILE}` names {', '.join(absent)}, which "
                         f"{'is' if len(absent) == 1 else 'are'} not among the photos.")
        verdicts |= {names[name]: given[name] for name in given if name in names}
    names = {composed(photo.name): photo.name for photo in photos}
    chosen = parse(widget, "`overrides`")
    _refuse_unknown(chosen, list(names))
    chosen = {names[name]: given for name, given in chosen.items()}
    return Overrides(verdicts | chosen, tuple(notes))


def parse(text: str, where: str) -> dict[str, Override]:
    """Read lines of `file name: keep|unsure|reject`, with a reason behind if one is given.

    Names come in composed Unicode. Empty lines and those that start with # say nothing; of two
    lines for a photo the last counts.

    Raises:
        LikenessError: a line of another form, named with its number.
    """
    verdicts = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            raise LikenessError(f"Line {number} of {where} is `{line[:80]}`; write `file name: "
                                "keep`, `unsure` or `reject`, and a reason behind it if you like.")
        verdicts[composed(found["name"])] = Override(Verdict(found["verdict"].lower()),
                                                     found["why"].strip())
    return verdicts


def overridden(photo: Photo, override: Override | None) -> Photo:
    """Give a judged photo the user's verdict; its reasons go on saying what the judge found.

    A photo without a face that can be used stays rejected, and says so.
    """
    if override is None:
        return photo
    if photo.face is None and override.verdict is not Verdict.REJECT:
        refused = Reason("not_overridden", f"It cannot be called {override.verdict.value} by hand: "
                         "there is no face in it to use.")
        return replace(photo, reasons=(*photo.reasons, refused))
    said = f"{SAID}{override.why.rstrip('.')}."
    own = (Reason(BY_HAND, said, override.verdict),) if override.why else ()
    return replace(photo, verdict=override.verdict, overridden=True,
                   reasons=(*photo.reasons, *own))


def set_aside(photo: Photo, reason: Reason) -> Photo:
    """Reject a photo for a reason that is not the user's, whose own word stays readable in it."""
    kept = any(mine.rule == BY_HAND for mine in photo.reasons)
    own = () if kept or not photo.overridden or photo.verdict is None else (
        Reason(BY_HAND, f"{SAID}{photo.verdict.value}.", photo.verdict),)
    return replace(photo, verdict=Verdict.REJECT, overridden=False,
                   reasons=(*photo.reasons, *own, reason))


def earlier(photo: Photo) -> Override | None:
    """The user's verdict that a photo brings along, also one that was set aside since."""
    said = next((reason for reason in photo.reasons if reason.rule == BY_HAND), None)
    verdict = photo.verdict if photo.overridden else said and said.verdict
    if verdict is None:
        return None
    why = said.text.removeprefix(SAID) if said else ""
    return Override(verdict, "" if why == f"{verdict.value}." else why)


def _file_text(path: Path) -> str:
    try:
        if not path.is_file():
            return ""
        if path.stat().st_size > _LARGEST:
            raise LikenessError(f"`{FILE}` in {path.parent} is too large for a list of verdicts; "
                                "write one line per photo.")
        return read_text(path)
    except OSError as err:
        raise LikenessError(f"`{FILE}` in {path.parent} cannot be read ({err}); give ComfyUI "
                            "access to it or remove it.") from err


def _refuse_unknown(chosen: Iterable[str], names: Sequence[str]) -> None:
    known = set(names)
    unknown = [name for name in chosen if name not in known]
    if not unknown:
        return
    near = list(dict.fromkeys(match for name in unknown
                              for match in difflib.get_close_matches(name, names, 3, 0.5)))
    hint = f"near names are {', '.join(near[:6])}" if near else (
        f"the photos are {', '.join(names[:6])}{' and more' if len(names) > 6 else ''}")
    raise LikenessError(f"`overrides` names {', '.join(f'`{name}`' for name in unknown[:6])}, "
                        f"which no photo is called; {hint}.")
