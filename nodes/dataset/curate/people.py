"""Who is on the photos, in words: what cards, headline and report say is counted from one source.

That source are the judged photos: the number of the person and the reason `somebody_else`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...quality.rules import Rules
from ...sockets import Photo, Reason, Verdict
from .identity_clusters import Pick

STRANGER = "somebody_else"
_NAMED = 4  # photos that a sentence names per person, and people that it lists
# Faces that these rules reject say little about who is in the picture.
_FACELESS = {"no_face", "too_small", "dark", "blurred", "covered", "drawn",
             "unreadable"}


@dataclass(frozen=True)
class People:
    """The photos whose faces are good enough to tell who it is, by person."""

    groups: tuple[tuple[str, ...], ...] = ()  # photo names, most first; first the majority's
    doubtful: tuple[str, ...] = ()  # may show the majority's person or somebody else
    stands_out: bool = False  # whether there is a majority


def faceless(reasons: Iterable[Reason]) -> bool:
    """Whether a face is too bad to tell who it is."""
    return any(reason.rule in _FACELESS and reason.verdict is Verdict.REJECT for reason in reasons)


def stranger_reasons(picks: Sequence[Pick], stands_out: bool, rules: Rules) -> list[Reason | None]:
    """Say of each pick whether it is somebody else than the person of the other photos."""
    found: list[Reason | None] = []
    for pick in picks:
        unsure, reject = (limit + pick.slack for limit in rules.stranger)
        if pick.person is not None and not stands_out:
            found.append(Reason(STRANGER, "The photos show different people, none in a "
                                "majority; load photos of one person.", Verdict.UNSURE))
        elif pick.distance is not None and pick.distance > unsure:
            certain = pick.distance > reject
            shut = " or the shut eyes make it look so" if pick.slack and not certain else ""
            found.append(Reason(
                STRANGER, f"{'This is' if certain else 'This may be'} somebody else{shut}: the "
                f"face is {pick.distance:.2f} away from the other photos, "
                f"{reject if certain else unsure:.2f} is the limit.",
                Verdict.REJECT if certain else Verdict.UNSURE))
        else:
            found.append(None)
    return found


def people_of(photos: Sequence[Photo]) -> People:
    """Sort judged photos by person; a photo that may show somebody else counts for nobody."""
    known = [photo for photo in photos if "person" in photo.measures]
    stands_out = any("distance" in photo.measures for photo in known)
    groups: dict[int, list[str]] = {1: []} if stands_out else {}
    doubtful = []
    for photo in known:
        if stands_out and _doubted(photo):
            doubtful.append(photo.name)
        else:
            groups.setdefault(int(photo.measures["person"]), []).append(photo.name)
    return People(tuple(tuple(groups[person]) for person in sorted(groups)), tuple(doubtful),
                  stands_out)


def identity_sentence(people: People) -> str:
    """One sentence on who is on the photos; empty with fewer than two faces to compare."""
    if sum(map(len, people.groups)) + len(people.doubtful) < 2:
        return ""
    if not people.stands_out:
        return (f"The photos show {len(people.groups)} different people, none in a majority: "
                f"{_listed_people(people.groups)}. Load photos of one person.")
    own, *others = people.groups
    if not others and not people.doubtful:
        return f"All {len(own)} photos whose face can be compared show the same person."
    said = []
    if people.doubtful:
        who = "the same person or somebody else" if not own else "somebody else"
        said.append(f"{len(people.doubtful)} may show {who}: {_listed(people.doubtful)}")
    if others:
        said.append(f"{len(others)} other {'person is' if len(others) == 1 else 'people are'} on: "
                    f"{_listed_people(others)}")
    if not own:
        return f"Of the photos {'; '.join(said)}."
    count = f"{len(own)} photo{' shows' if len(own) == 1 else 's show'} one person"
    return f"{count}, {'; '.join(said)}."


def nobody_stands_out(photos: Sequence[Photo]) -> str:
    """Say that judged photos are of different people, none in a majority; empty otherwise."""
    people = people_of(photos)
    return "" if people.stands_out or len(people.groups) < 2 else identity_sentence(people)


def comparison_sentences(photos: Sequence[Photo], people: People) -> list[str]:
    """Why nobody can tell who is on these photos; empty where it can be told."""
    readable = [photo for photo in photos if all(reason.rule != "unreadable"
                                                 for reason in photo.reasons)]
    if photos and not readable:
        none = "The photo cannot" if len(photos) == 1 else f"None of the {len(photos)} photos can"
        return [f"{none} be read; see the reasons below each."]
    if not any(photo.face is not None for photo in readable):
        what = "the photo" if len(photos) == 1 else f"any of the {len(readable)} photos"
        which = " that can be read" if len(readable) < len(photos) else ""
        return [f"No face can be found in {what}{which}; use photos that show the person's face "
                "larger, upright and uncovered."]
    if sum(map(len, people.groups)) + len(people.doubtful) >= 2:
        return []
    usable = sum(_comparable(photo) for photo in photos)
    if usable == 1:
        return ["Only one photo shows a usable face, so nobody can tell whether other photos show "
                "the same person or repeat the shot; add photos."]
    return ["No photo shows a face that is good enough to tell who it is; add photos."]


def _doubted(photo: Photo) -> bool:
    return any(reason.rule == STRANGER and reason.verdict is Verdict.UNSURE
               for reason in photo.reasons)


def _comparable(photo: Photo) -> bool:
    """Whether a photo's face says who it is and the user has not turned it down."""
    turned_down = photo.overridden and photo.verdict is Verdict.REJECT
    return photo.face is not None and not turned_down and not faceless(photo.reasons)


def _listed_people(groups: Sequence[Sequence[str]]) -> str:
    more = len(groups) - _NAMED
    return "; ".join(map(_listed, groups[:_NAMED])) + (f"; and {more} more" if more > 0 else "")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
