"""What a set of photos shows of a person, and what it does not: bins of pose, face and light."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import LikenessError
from ...quality.expression import EXPRESSIONS, expression_of
from ...quality.scene import SAME_SCENE
from ...sockets import Photo, PhotoSet, Verdict
from ..curate.people import nobody_stands_out
from .variety import effective_number, face_height, score_of, traits_of

FEW, MANY = 7, 25  # photos: fewer teach little, more teach what is already known
PASSED = "not_selected"  # the rule under which Select rejects
IN_DOUBT = "The curation is unsure about it, and `include_unsure` is off."
_SHUT = 0.6  # eyes_closed: clearly shut; curation doubts from 0.45, where narrow eyes begin


@dataclass(frozen=True)
class Bin:
    """A range of an axis: `low` <= value < the next bin's `low`."""

    id: str
    title: str
    low: float = -np.inf


@dataclass(frozen=True)
class Axis:
    """One thing that should vary; left and right are the picture's."""

    id: str
    title: str
    bins: tuple[Bin, ...]
    value: Callable[[Photo], float | None]  # None: this photo is not measured for it

    def bin_of(self, photo: Photo) -> str | None:
        """The id of the photo's bin; None when it is not measured."""
        value = self.value(photo)
        if value is None:
            return None
        return [part.id for part in self.bins if value >= part.low][-1]


@dataclass(frozen=True)
class Need:
    """A part of an axis that a good set shows."""

    axis: str
    bins: tuple[str, ...]  # any of them
    least: int  # photos
    reason: str
    essential: bool = True  # otherwise welcome, but a set is good without


@dataclass(frozen=True)
class Lack:
    """A need that a set does not meet."""

    need: Need
    found: int


@dataclass(frozen=True)
class Coverage:
    """What a set shows."""

    counts: Mapping[str, Mapping[str, int]]  # axis -> bin -> photos, in the order of the bins
    places: Mapping[str, Mapping[str, str]]  # photo -> axis -> bin
    scenes: tuple[tuple[str, ...], ...]  # photos that share a background, largest group first
    lacks: tuple[Lack, ...]  # essential ones first
    photos: int
    effective: float  # to how many entirely different photos the set amounts
    diversity: float  # 0..100

    @property
    def missing(self) -> tuple[Lack, ...]:
        """The essential needs that are not met."""
        return tuple(lack for lack in self.lacks if lack.need.essential)


def _measure(name: str) -> Callable[[Photo], float | None]:
    return lambda photo: photo.measures.get(name)


def _expression(photo: Photo) -> float:
    """The place of the expression among the axis's bins."""
    return float(EXPRESSIONS.index(expression_of(photo.face)))


AXES: tuple[Axis, ...] = (
    Axis("yaw", "Head turned", (
        Bin("profile_left", "profile left"), Bin("three_quarter_left", "3/4 left", -50),
        Bin("frontal", "frontal", -20), Bin("three_quarter_right", "3/4 right", 20),
        Bin("profile_right", "profile right", 50)), lambda photo: photo.face.pose.yaw),
    # Level portraits read -1 to +16 degrees, so the middle bin is not centred on zero.
    Axis("pitch", "Head raised", (
        Bin("up", "chin up"), Bin("level", "level", -12), Bin("down", "chin down", 20)),
        lambda photo: photo.face.pose.pitch),
    Axis("expression", "Expression", (
        Bin("neutral", "neutral"), Bin("serious", "serious", 1), Bin("smile", "soft smile", 2),
        Bin("laugh", "broad smile", 3), Bin("talking", "mouth open", 4), Bin("scowl", "scowl", 5),
        Bin("pout", "pout", 6)), _expression),
    Axis("light_side", "Light from", (
        Bin("left", "left"), Bin("even", "both sides", -0.2), Bin("right", "right", 0.2)),
        _measure("light_side")),
    Axis("light_key", "Brightness", (
        Bin("low", "dim"), Bin("middle", "normal", 0.5), Bin("high", "bright", 0.72)),
        _measure("light_key")),
    Axis("light_contrast", "Shadows", (
        Bin("soft", "soft"), Bin("hard", "hard", 0.6)), _measure("light_contrast")),
    Axis("light_warmth", "Light colour", (
        Bin("cold", "cool"), Bin("plain", "neutral", -0.2), Bin("warm", "warm", 0.2)),
        _measure("light_warmth")),
    Axis("distance", "Distance", (
        Bin("full", "full body"), Bin("upper_body", "upper body", 0.1),
        Bin("shoulders", "head, shoulders", 0.2), Bin("close", "close-up", 0.45)), face_height),
)
AXIS: Mapping[str, Axis] = {axis.id: axis for axis in AXES}

NEEDS: tuple[Need, ...] = (
    Need("yaw", ("frontal",), 2, "the view that most pictures will be made in"),
    Need("yaw", ("three_quarter_left",), 1, "each half of a face is different; without it the "
                                            "model guesses that side"),
    Need("yaw", ("three_quarter_right",), 1, "each half of a face is different; without it the "
                                             "model guesses that side"),
    Need("expression", ("neutral", "serious"), 1, "a face at rest is what other expressions "
                                                  "start from"),
    Need("expression", ("smile", "laugh"), 1, "cheeks, eyes and teeth change with a smile"),
    Need("distance", ("close",), 1, "skin and eyes are only learned from a large face"),
    Need("distance", ("shoulders",), 1, "the framing of a headshot"),
    Need("distance", ("upper_body", "full"), 1, "shoulders and build belong to a person"),
    Need("light_side", ("left", "right"), 1, "shadow shows the shape of the face"),
    Need("light_side", ("even",), 1, "even light shows colours as they are"),
    Need("yaw", ("profile_left",), 1, "the outline of nose and chin", essential=False),
    Need("yaw", ("profile_right",), 1, "the outline of nose and chin", essential=False),
    Need("pitch", ("up",), 1, "the jaw from below", essential=False),
    Need("pitch", ("down",), 1, "the brow and hairline from above", essential=False),
    Need("expression", ("talking",), 1, "an open mouth without a smile", essential=False),
)
SCENES = Need("background", (), 3, "what stands behind in every photo is learned as part of the "
                                   "person")


def usable(photos: PhotoSet, include_unsure: bool = False) -> tuple[Photo, ...]:
    """The photos that count: kept ones with a face, and unsure ones too if asked.

    Unsure photos with shut eyes do not count, unless the user gave that verdict.

    Raises:
        LikenessError: the photos are not curated.
    """
    if any(photo.verdict is None for photo in photos.photos):
        raise LikenessError("These photos have no verdicts yet; connect the output of Curate "
                            "Photos instead of Load Photos.")
    wanted = {Verdict.KEEP, Verdict.UNSURE} if include_unsure else {Verdict.KEEP}
    return tuple(photo for photo in photos.photos
                 if photo.verdict in wanted and photo.face is not None and not blinks(photo))


def nothing_usable(photos: PhotoSet) -> str:
    """Say that no photo can be used, and what to do about it, as Select and the coach say it."""
    doubted = sum(photo.verdict is Verdict.UNSURE and photo.face is not None
                  and not blinks(photo) or _left_in_doubt(photo) for photo in photos.photos)
    count = len(photos.photos)
    which = "The only photo cannot" if count == 1 else f"None of the {count} photos can"
    different = nobody_stands_out(photos.photos)
    if different:
        return f"{which} be used: {different[0].lower()}{different[1:]}"
    hint = f"set `include_unsure` to use {doubted}, or " if doubted else ""
    return f"{which} be used; {hint}look at the curation's reasons."


def _left_in_doubt(photo: Photo) -> bool:
    return any(reason.rule == PASSED and reason.text == IN_DOUBT for reason in photo.reasons)


def blinks(photo: Photo) -> bool:
    """Whether a photo is in doubt and its eyes are shut; what is kept is beyond doubt."""
    if photo.verdict is not Verdict.UNSURE or photo.overridden or photo.face is None:
        return False
    shape = photo.face.expression
    blink = (shape.get("eyeBlinkLeft", 0.0) + shape.get("eyeBlinkRight", 0.0)) / 2
    return photo.measures.get("eyes_closed", blink) > _SHUT


def measure(photos: Sequence[Photo], check: Callable[[], None] = lambda: None) -> Coverage:
    """Sort photos with faces into the bins of every axis and say how diverse they are.

    `diversity` is 100 (D - 1) / 7, at most 100, where D is the number of entirely different
    photos to which the set amounts (`variety.effective_number`): 0 for one photo however often
    repeated, 100 for eight and more that differ in pose, expression, light, distance and place.
    A duplicate does not change it: from 7 to 25 photos, variety teaches more than volume.

    Args:
        check: called now and then; may raise to cancel.
    """
    places = {photo.name: {axis.id: found for axis in AXES
                           if (found := axis.bin_of(photo)) is not None} for photo in photos}
    counts = {axis.id: {part.id: 0 for part in axis.bins} for axis in AXES}
    for bins in places.values():
        for axis, part in bins.items():
            counts[axis][part] += 1
    counts = {axis: bins for axis, bins in counts.items() if any(bins.values()) or not photos}
    scenes = group_scenes(photos, check)
    effective = effective_number(traits_of(photos), check) if photos else 0.0
    return Coverage(counts, places, scenes, lacks_of(counts, scenes), len(photos), effective,
                    score_of(effective))


def lacks_of(counts: Mapping[str, Mapping[str, int]],
           scenes: Sequence[Sequence[str]]) -> tuple[Lack, ...]:
    """The unmet needs of the axes that are measured, essential ones first."""
    found = [Lack(need, sum(counts[need.axis][part] for part in need.bins)) for need in NEEDS
             if need.axis in counts]
    if scenes:
        found.append(Lack(SCENES, len(scenes)))
    lacks = [lack for lack in found if lack.found < lack.need.least]
    return tuple(sorted(lacks, key=lambda lack: not lack.need.essential))


def group_scenes(photos: Sequence[Photo], check: Callable[[], None] = lambda: None,
                 ) -> tuple[tuple[str, ...], ...]:
    """Group the photos that share a background, the largest group first.

    A photo joins the nearest group's first photo within `SAME_SCENE`, or opens a group of its
    own; photos that show no background join none.

    Args:
        check: called for each photo; may raise to cancel.
    """
    shown = [photo for photo in photos if photo.scene is not None]
    leaders = np.empty((len(shown), len(shown[0].scene) if shown else 0), np.float32)
    lengths = np.empty(len(shown), np.float32)
    groups: list[list[str]] = []
    for photo in shown:
        check()
        # Half the squared distance, but for the photo's own length: one product, no copies.
        far = lengths[:len(groups)] - leaders[:len(groups)] @ photo.scene
        nearest = int(far.argmin()) if far.size else -1
        if far.size and np.linalg.norm(leaders[nearest] - photo.scene) < SAME_SCENE:
            groups[nearest].append(photo.name)
        else:
            leaders[len(groups)] = photo.scene
            lengths[len(groups)] = photo.scene @ photo.scene / 2
            groups.append([photo.name])
    return tuple(tuple(group) for group in sorted(groups, key=len, reverse=True))


def summary(coverage: Coverage) -> dict[str, object]:
    """The coverage as JSON data."""
    return {
        "photos": coverage.photos,
        "different_photos": round(coverage.effective, 2),
        "diversity": round(coverage.diversity, 1),
        "counts": {axis: dict(bins) for axis, bins in coverage.counts.items()},
        "backgrounds": [list(group) for group in coverage.scenes],
        "missing": [{"axis": lack.need.axis, "any_of": list(lack.need.bins),
                     "photos": lack.need.least, "found": lack.found, "why": lack.need.reason,
                     "essential": lack.need.essential} for lack in coverage.lacks],
        "not_measured": [axis.id for axis in AXES if axis.id not in coverage.counts],
        "bins": {name: dict(bins) for name, bins in coverage.places.items()},
    }


def most_common(coverage: Coverage, axis: str) -> str | None:
    """The bin with most photos; None when there are none."""
    ranked = Counter(coverage.counts.get(axis, {})).most_common(1)
    return ranked[0][0] if ranked and ranked[0][1] else None
