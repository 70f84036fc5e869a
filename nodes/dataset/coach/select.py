"""The best photos of a set, by what they show and how good they are together."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...errors import LikenessError
from ...sockets import Photo, PhotoSet, Reason, Verdict
from ..curate.overrides import set_aside
from ..curate.sheet import BLUE, GREEN, Card, curation_sheet, draw_sheet
from .coverage import AXES, IN_DOUBT, PASSED, Coverage, blinks, measure, nothing_usable, usable
from .variety import Traits, similarity, take, traits_of

_BLOCK = 256  # rows of the similarity matrix that are computed at once
_SHARP, _WIDE = (40.0, 400.0), (96.0, 512.0)  # sharpness and face width from bad to good enough
_SHOWN = 120  # cards on the sheet
_NOTABLE = ("yaw", "pitch", "distance", "expression", "light_side", "light_warmth")
_BEFORE = {"light_side": "light from ", "light_warmth": "light: "}


@dataclass(frozen=True)
class Choice:
    """What became of one usable photo."""

    photo: Photo
    place: int  # 1 for the first picked; 0: passed
    gain: float  # what it added to the objective; 0 when passed
    text: str


@dataclass(frozen=True)
class Selection:
    """The photos with those passed over rejected, and why."""

    photos: PhotoSet
    choices: tuple[Choice, ...]  # picked ones in their order, then those passed over
    coverage: Coverage  # of the picked photos
    note: str = ""  # one sentence where there is nothing to select from

    @property
    def picked(self) -> tuple[Choice, ...]:
        """The choices that were picked, the most useful first."""
        return tuple(choice for choice in self.choices if choice.place)


def select(photos: PhotoSet, count: int, quality_weight: float = 0.3,
           include_unsure: bool = False,
           on_photo: Callable[[int], None] = lambda done: None) -> Selection:
    """Pick the `count` photos that together show most and are good themselves.

    Maximises F(S) = sum_i w_i max_{j in S} K_ij + `quality_weight` sum_{j in S} q_j: facility
    location on the similarity K of `variety`, where w_i = 1 / sum_j K_ij counts a crowd of alike
    photos once, and q_j in 0..1 is the photo's quality. Greedy choice reaches 1 - 1/e of the
    best (Nemhauser, Wolsey and Fisher 1978), evaluated lazily (Minoux 1978). Photos that the user
    kept against the curation come first. Nothing is drawn at random; ties go to the first photo.
    Where no photo can be used none is picked, and `note` says so: what comes behind tells more.

    Args:
        on_photo: called with the number of photos compared so far, and with all of them now and
            then while they are picked; may raise to cancel.

    Raises:
        LikenessError: not curated.
    """
    if count < 1:
        raise LikenessError(f"`count` must be 1 or more, got {count}.")
    able = usable(photos, include_unsure)
    picked, choices = _picked(able, count, quality_weight, on_photo) if able else ([], ())
    passed = {choice.photo.name: choice.text for choice in choices if not choice.place}
    passed |= {photo.name: text for photo, text in _left_out(photos, able)}
    marked = tuple(set_aside(photo, Reason(PASSED, passed[photo.name]))
                   if photo.name in passed else photo for photo in photos.photos)
    coverage = measure([able[place] for place, _ in picked], lambda: on_photo(len(able)))
    return Selection(replace(photos, photos=marked), choices, coverage,
                     "" if able else nothing_usable(photos))


def _picked(able: Sequence[Photo], count: int, quality_weight: float,
            on_photo: Callable[[int], None],
            ) -> tuple[list[tuple[int, float]], tuple[Choice, ...]]:
    traits = traits_of(able)
    quality = quality_weight * np.array([quality_of(photo) for photo in able])
    own = np.array([_is_own(photo) for photo in able])
    picked = _greedy(traits, quality, own, min(count, len(able)), on_photo)
    return picked, _explained(able, traits, picked, on_photo)


def quality_of(photo: Photo) -> float:
    """How good a photo is by itself, 0..1: sharp, large, uncovered, and not doubted."""
    def reached(name: str, limits: tuple[float, float]) -> float:
        value = np.log(max(photo.measures.get(name, limits[0]), 1e-3) / limits[0])
        return float(np.clip(value / np.log(limits[1] / limits[0]), 0, 1))

    good = (reached("sharpness", _SHARP) + reached("face_width", _WIDE)) / 2
    good *= 1 - np.clip(photo.measures.get("occlusion", 0.0), 0, 1)
    return float(good * (0.6 if photo.verdict is Verdict.UNSURE else 1.0))


def _greedy(traits: Traits, quality: np.ndarray, first: np.ndarray, count: int,
            on_photo: Callable[[int], None]) -> list[tuple[int, float]]:
    """Pick places and what each added, those of `first` before all others."""
    alike = _all_pairs(traits, on_photo)
    weights = 1 / alike.sum(1)
    alone = alike @ weights
    heap = [(not first[place], -float(gain + quality[place]), place)
            for place, gain in enumerate(alone)]
    heapq.heapify(heap)
    covered = np.zeros_like(weights)
    picked: list[tuple[int, float]] = []
    while heap and len(picked) < count:
        on_photo(len(weights))
        late, _, place = heapq.heappop(heap)
        gain = float(weights @ np.maximum(alike[place] - covered, 0)) + float(quality[place])
        # Gains only fall as more is picked: one that still leads now is the largest.
        if heap and (late, -gain, place) > heap[0]:
            heapq.heappush(heap, (late, -gain, place))
            continue
        covered = np.maximum(covered, alike[place])
        picked.append((place, gain))
    return picked


def _all_pairs(traits: Traits, on_photo: Callable[[int], None]) -> np.ndarray:
    """The similarity of all pairs (N, N) float32, 100 MB for 5,000 photos, made in blocks."""
    size = len(traits["pose"])
    alike = np.empty((size, size), np.float32)
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        alike[start:stop] = similarity(take(traits, np.arange(start, stop)), traits)
        on_photo(stop)
    return alike


def _explained(photos: Sequence[Photo], traits: Traits,
               picked: Sequence[tuple[int, float]],
               on_photo: Callable[[int], None]) -> tuple[Choice, ...]:
    everything = measure_bins(photos)
    sharpest = {key: max(photos[place].measures.get("sharpness", 0.0) for place in members)
                for key, members in everything.items()}
    chosen = [place for place, _ in picked]
    choices = []
    for number, (place, gain) in enumerate(picked, start=1):
        on_photo(len(photos))
        text = _why_picked(photos[place], everything, sharpest)
        choices.append(Choice(photos[place], number, gain, text))
    rest = np.setdiff1d(np.arange(len(photos)), chosen)
    if rest.size:
        alike = similarity(take(traits, rest), take(traits, chosen))
        for row, place in zip(alike, rest, strict=True):
            twin = photos[chosen[int(row.argmax())]]
            choices.append(Choice(photos[place], 0, 0.0,
                                  _why_passed(photos[place], twin, float(row.max()))))
    return tuple(choices)


def measure_bins(photos: Sequence[Photo]) -> dict[tuple[str, str], list[int]]:
    """The photos' places in each (axis, bin)."""
    found: dict[tuple[str, str], list[int]] = {}
    for place, photo in enumerate(photos):
        for axis in AXES:
            part = axis.bin_of(photo)
            if part is not None:
                found.setdefault((axis.id, part), []).append(place)
    return found


def _why_picked(photo: Photo, bins: dict[tuple[str, str], list[int]],
                sharpest: dict[tuple[str, str], float]) -> str:
    if _is_own(photo):
        return "You kept it yourself."
    own = [(axis.id, part) for axis in AXES if axis.id in _NOTABLE
           and (part := axis.bin_of(photo)) is not None]
    own.sort(key=lambda key: (len(bins[key]), _NOTABLE.index(key[0])))
    rarest, count = own[0], len(bins[own[0]])
    if count == 1:
        return f"The only one: {_words(rarest)}."
    if photo.measures.get("sharpness", 0.0) >= sharpest[rarest]:
        return f"The sharpest of {count}: {_words(rarest)}."
    return f"One of {count}: {_words(rarest)}; differs from the others in other ways."


def _is_sided(part: str) -> bool:
    return part.split("_")[-1] in ("left", "right")


def _words(key: tuple[str, str]) -> str:
    axis = next(axis for axis in AXES if axis.id == key[0])
    title = next(part.title for part in axis.bins if part.id == key[1])
    side = " of the picture" if _is_sided(key[1]) else ""
    return f"{_BEFORE.get(axis.id, '')}{title}{side}"


def _why_passed(photo: Photo, twin: Photo, alike: float) -> str:
    if alike < 0.3:
        return "The photos picked before it add more, and their number is reached."
    def ratio(name: str) -> float:
        return photo.measures.get(name, 0.0) / max(twin.measures.get(name, 0.0), 1e-6)

    if ratio("sharpness") < 0.85:
        worse = "softer"
    elif ratio("face_width") < 0.85:
        worse = "with a smaller face"
    else:
        worse = "and adds little"
    return f"Like {twin.name}, {worse}."


def _is_own(photo: Photo) -> bool:
    return photo.overridden and photo.verdict is Verdict.KEEP


def _left_out(photos: PhotoSet, able: Sequence[Photo]) -> list[tuple[Photo, str]]:
    """The photos that are not rejected yet and still were not picked from, and why."""
    counted = {photo.name for photo in able}
    return [(photo, _why_left_out(photo)) for photo in photos.photos
            if photo.name not in counted and photo.verdict is not Verdict.REJECT]


def _why_left_out(photo: Photo) -> str:
    if photo.face is None:
        return "No face is known in it."
    if blinks(photo):
        return "The eyes are shut; keep it by hand to have it picked."
    return IN_DOUBT


def selection_sheet(selection: Selection) -> np.ndarray:
    """Draw the picked photos in their order, then those passed over: (H, W, 3) uint8.

    Where there is nothing to select from, all photos with what speaks against each.
    """
    if selection.note:
        return curation_sheet(selection.photos, selection.note)
    choices = selection.choices[:max(_SHOWN, len(selection.picked))]
    cards = [Card(choice.photo, f"PICK {choice.place}" if choice.place else "PASSED",
                  GREEN if choice.place else BLUE, choice.text, dimmed=not choice.place)
             for choice in choices]
    left_out = len(selection.choices) - len(choices)
    title = (f"{len(selection.picked)} of {len(selection.choices)} usable "
             f"photo{'' if len(selection.choices) == 1 else 's'},  diversity "
             f"{selection.coverage.diversity:.0f} of 100"
             f"{f',  {left_out} more passed' if left_out else ''}")
    return draw_sheet(cards, title)


def report(selection: Selection, before: PhotoSet) -> dict[str, Any]:
    """The selection as JSON data; `curation` is the verdict that each photo came with."""
    verdicts = {photo.name: photo.verdict.value for photo in before.photos}
    chosen = {choice.photo.name for choice in selection.choices}
    return {
        "note": selection.note,
        "picked": [_entry(choice, verdicts) for choice in selection.picked],
        "passed": [_entry(choice, verdicts) for choice in selection.choices if not choice.place],
        "not_usable": [photo.name for photo in before.photos if photo.name not in chosen],
        "left_out": {photo.name: text for photo, text in
                     _left_out(before, [choice.photo for choice in selection.choices])},
        "diversity": round(selection.coverage.diversity, 1),
        "different_photos": round(selection.coverage.effective, 2),
    }


def _entry(choice: Choice, verdicts: dict[str, str]) -> dict[str, Any]:
    return {"name": choice.photo.name, "reason": choice.text, "gain": round(choice.gain, 4),
            "quality": round(quality_of(choice.photo), 3),
            "curation": verdicts[choice.photo.name]}
