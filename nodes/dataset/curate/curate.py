"""Curation: every photo judged on its own and beside the others, with reasons."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ...errors import PictureError
from ...quality.judge import judge
from ...quality.look import Seen, look
from ...quality.rules import Rules
from ...sockets import Photo, PhotoSet, Reason, Verdict
from .duplicates import find_duplicates
from .identity_clusters import Pick, pick_faces
from .originals import original_of, originality
from .overrides import NO_OVERRIDES, Override, Overrides, earlier, overridden
from .people import faceless, stranger_reasons

_SEVERITY = {Verdict.KEEP: 0, Verdict.UNSURE: 1, Verdict.REJECT: 2}
_WORKERS = min(4, os.cpu_count() or 1)  # decoding and the models run outside the interpreter


def curate(photos: PhotoSet, rules: Rules, on_photo: Callable[[int], None],
           overrides: Overrides = NO_OVERRIDES,
           check: Callable[[], None] = lambda: None) -> PhotoSet:
    """Give every photo a verdict and its reasons; never raises for what a photo shows.

    Args:
        on_photo: called with the number of finished photos; may raise to cancel.
        overrides: the user's own verdicts, which stand above the judge's.
        check: called now and then while photos are compared; may raise to cancel.
    """
    examined = _examine_all(photos.photos, on_photo)
    looked = [found for found, _ in examined]
    unreadable = [wrong for _, wrong in examined]
    given = [overrides.verdicts.get(photo.name) or earlier(photo) for photo in photos.photos]
    turned_down = {place for place, one in enumerate(given)
                   if one is not None and one.verdict is Verdict.REJECT}
    # Whom the user turns down does not decide who the person is.
    who = [None if place in turned_down else one for place, one in enumerate(looked)]
    picks, stands_out = pick_faces(who, lambda face: not faceless(judge(face, rules)), rules)
    seen = [_chosen(one, pick) for one, pick in zip(looked, picks, strict=True)]
    reasons = [_own_reasons(one, wrong, rules)
               for one, wrong in zip(seen, unreadable, strict=True)]
    for mine, stranger in zip(reasons, stranger_reasons(picks, stands_out, rules), strict=True):
        mine += [stranger] if stranger else []
    _flag_duplicates(photos.photos, seen, reasons, given, rules, check)
    judged = [overridden(_judged(photo, one, mine, pick), own) for photo, one, mine, pick, own
              in zip(photos.photos, seen, reasons, picks, given, strict=True)]
    return replace(photos, photos=tuple(judged))


def verdict_of(reasons: Sequence[Reason]) -> Verdict:
    """The worst of the reasons' verdicts; keep when there is none."""
    return max((reason.verdict for reason in reasons), key=_SEVERITY.__getitem__,
               default=Verdict.KEEP)


def count_rules(photos: PhotoSet) -> dict[str, int]:
    """How many photos each rule spoke against, most first."""
    return dict(Counter(rule for photo in photos.photos for rule in dict.fromkeys(
        reason.rule for reason in photo.reasons)).most_common())


def _examine_all(photos: Sequence[Photo], on_photo: Callable[[int], None],
                 ) -> list[tuple[Seen | None, Reason | None]]:
    """Look at a few photos at once; the result is in their order."""
    found: list[tuple[Seen | None, Reason | None]] = []
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="likeness-look") as pool:
        try:
            for one in pool.map(_examine, photos):
                found.append(one)
                on_photo(len(found))
        finally:
            pool.shutdown(cancel_futures=True)  # a cancel must not wait for photos not begun
    return found


def _examine(photo: Photo) -> tuple[Seen | None, Reason | None]:
    """What a photo shows, or why it cannot be read."""
    for reason in photo.reasons:
        if reason.rule == "unreadable" and not photo.sha256:
            return None, reason
    try:
        return look(photo.file, photo.sha256), None
    except OSError as err:
        return None, Reason("unreadable", f"The file cannot be read any more "
                                          f"({err.strerror or err}); load the photos again.")
    except PictureError as err:
        return None, Reason("unreadable", f"The photo cannot be looked at: {err}")


def _chosen(seen: Seen | None, pick: Pick) -> Seen | None:
    return seen.faces[pick.face] if seen is not None and seen.faces else seen


def _own_reasons(seen: Seen | None, unreadable: Reason | None, rules: Rules) -> list[Reason]:
    if seen is not None:
        return list(judge(seen, rules))
    return [unreadable] if unreadable else []


def _flag_duplicates(photos: Sequence[Photo], seen: Sequence[Seen | None],
                     reasons: Sequence[list[Reason]], given: Sequence[Override | None],
                     rules: Rules, check: Callable[[], None]) -> None:
    """Of shots that are the same, keep the best one, or the one that the user keeps."""
    kept = [own is not None and own.verdict is Verdict.KEEP for own in given]
    severity = [_SEVERITY[own.verdict if own else verdict_of(mine)]
                for own, mine in zip(given, reasons, strict=True)]
    candidates = [place for place, one in enumerate(seen) if one is not None
                  and one.pattern is not None and severity[place] < _SEVERITY[Verdict.REJECT]]
    # What the user keeps comes first, then what is kept before what is unsure, then the original.
    ranks = {place: (not kept[place], severity[place]) for place in candidates}
    candidates.sort(key=lambda place: (*ranks[place], -originality(photos[place], seen[place]),
                                       place))
    repeats = find_duplicates(seen, candidates, rules, check)
    for place, (twin, mirrored) in _with_originals(repeats, ranks, photos, seen).items():
        name = photos[twin].name
        better = "which you keep" if kept[twin] else "which seems to be the original"
        reasons[place].append(Reason(
            "duplicate", f"{'The mirror image of' if mirrored else 'The same shot as'} {name}, "
                         f"{better}."))


def _with_originals(repeats: Mapping[int, tuple[int, bool]], ranks: Mapping[int, tuple[bool, int]],
                    photos: Sequence[Photo], seen: Sequence[Seen],
                    ) -> dict[int, tuple[int, bool]]:
    """The same groups of copies, each round the original among those of the best rank."""
    groups: dict[int, dict[int, bool]] = {}
    for place, (first, mirrored) in repeats.items():
        groups.setdefault(first, {first: False})[place] = mirrored
    found = {}
    for first, members in groups.items():
        best = original_of([place for place in members if ranks[place] == ranks[first]],
                           photos, seen)
        found |= {place: (best, mirrored != members[best])
                  for place, mirrored in members.items() if place != best}
    return found


def _judged(photo: Photo, seen: Seen | None, reasons: Sequence[Reason], pick: Pick) -> Photo:
    measures = dict(seen.measures) if seen else {}
    if pick.person is not None:
        measures["person"] = float(pick.person)
    if pick.distance is not None:
        measures["distance"] = pick.distance
    return replace(photo, verdict=verdict_of(reasons), reasons=tuple(reasons), overridden=False,
                   face=seen.face if seen else None, measures=measures,
                   embedding=seen.embedding if seen else None,
                   scene=seen.scene if seen else None)
