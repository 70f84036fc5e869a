"""Which photos to take next: tried one by one against what a set already shows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...quality.expression import Shapes
from ...quality.rules import Rules
from ...sockets import Photo, PhotoSet, Verdict
from .coverage import (
    AXES,
    AXIS,
    FEW,
    MANY,
    NEEDS,
    SCENES,
    Coverage,
    Lack,
    lacks_of,
    measure,
    most_common,
    nothing_usable,
    summary,
    usable,
)
from .shot_words import RESHOOT, describe_shot
from .variety import (
    TRAITS,
    Traits,
    balance,
    effective_number,
    expression_traits,
    joined,
    representatives,
    score_of,
    similarity,
    take,
    traits_of,
)

ENOUGH = 70.0  # diversity at which a set that lacks nothing is done
SHOTS = 6  # on one list
# What the middle of a bin measures: yaw and pitch in degrees; smile, teeth, jaw, brows; the
# face's share of the height; side, contrast, warmth and height of the light.
# A profile lies between where its bin begins and where curation begins to doubt it.
_ASIDE = (AXIS["yaw"].bins[-1].low + Rules().turned) / 2
_YAW = {"profile_left": -_ASIDE, "three_quarter_left": -35, "frontal": 0,
        "three_quarter_right": 35, "profile_right": _ASIDE}
_PITCH = {"up": -20, "level": 5, "down": 26}
_EXPRESSION = {"neutral": (0.05, 0.0, 0.02, 0.4), "smile": (0.65, 0.1, 0.03, 0.45),
               "laugh": (0.92, 0.6, 0.12, 0.6), "talking": (0.1, 0.1, 0.4, 0.4)}
_DISTANCE = {"close": 0.55, "shoulders": 0.3, "upper_body": 0.14}
_LIGHTS = {"even": (0.0, 0.35, 0.0, 0.0), "left": (-0.45, 0.5, 0.0, 0.0),
           "right": (0.45, 0.5, 0.0, 0.0), "warm": (0.1, 0.45, 0.5, 0.1)}
# Poses that a person takes without help, and what goes with them.
_POSES = (("frontal", "level"), ("three_quarter_left", "level"), ("three_quarter_right", "level"),
          ("profile_left", "level"), ("profile_right", "level"), ("frontal", "up"),
          ("frontal", "down"))


@dataclass(frozen=True)
class Shot:
    """A photo to take; left and right in `bins` are the picture's, in `text` the person's own."""

    bins: Mapping[str, str]  # yaw, pitch, expression, distance, light, place (first, new or same)
    gain: float  # points of diversity if it were the next photo; of an empty set's, in their order
    text: str
    why: str

    @property
    def rise(self) -> str:
        """The gain as `+12`; empty where it is none, as for the first photo of all."""
        return f"+{self.gain:.0f}" if self.gain >= 0.5 else ""


@dataclass(frozen=True)
class Reshoot:
    """Photos that were refused for one reason."""

    rule: str
    count: int
    text: str


@dataclass(frozen=True)
class Advice:
    """What a set shows and what to do about it."""

    coverage: Coverage
    done: bool
    headline: str
    shots: tuple[Shot, ...]  # what adds most first
    reshoot: tuple[Reshoot, ...]  # what concerns most photos first

    @property
    def text(self) -> str:
        """The advice in plain words."""
        lines = [self.headline]
        lines += [f"{number}. {shot.text} ({shot.rise and f'{shot.rise}: '}{shot.why})"
                  for number, shot in enumerate(self.shots, start=1)]
        if self.reshoot:
            lines += ["Take again:", *(f"- {again.text}" for again in self.reshoot)]
        return "\n".join(lines)


def advise(photos: PhotoSet, include_unsure: bool = False,
           check: Callable[[], None] = lambda: None) -> Advice:
    """Measure a curated set and plan the photos that would add most.

    Every plausible photo (pose x expression x light x distance) is tried as the next one; the one
    that lowers p'Kp most in one exact step from the best weights p is put on the list and counts
    as taken when the following is sought. While the set lacks something essential, only photos
    that supply it are tried. The gain that a shot states is that of the diversity score with this
    shot alone added, and the list is ordered by it. To an empty set no shot alone adds anything:
    its shots stay in the order in which they were planned, each with what it adds to those before.

    Args:
        check: called now and then; may raise to cancel.

    Raises:
        LikenessError: the photos are not curated.
    """
    able = usable(photos, include_unsure)
    coverage = measure(able, check)
    done = is_done(coverage)
    shots = () if done else _plan(able, coverage, check)
    return Advice(coverage, done, _headline(photos, coverage, done, len(shots)), shots,
                  _reshoot(photos, able))


def is_done(coverage: Coverage) -> bool:
    """Whether further photos would add little: enough, nothing essential missing, and diverse."""
    return (coverage.photos >= FEW and not coverage.missing
            and (coverage.diversity >= ENOUGH or coverage.photos >= MANY))


def _headline(photos: PhotoSet, coverage: Coverage, done: bool, shots: int) -> str:
    count = coverage.photos
    these = f"these {shots}" if shots > 1 else "this one"
    if not count:
        none = nothing_usable(photos) if photos.photos else "There are no photos yet."
        return f"{none} Take {these} first, in this order; at least {FEW} are needed in all."
    if done:
        return f"Enough: shoot nothing more. You have {_amount(coverage)}."
    if count < FEW:
        return f"Too few: {_amount(coverage)}; at least {FEW} are needed. Take {these} next."
    if coverage.diversity >= ENOUGH:  # not done, so something essential is missing
        lacking = len(coverage.missing)
        missing = ("one thing that is needed is missing" if lacking == 1
                   else f"{lacking} things that are needed are missing")
        return f"Varied, but not complete: {_amount(coverage)}; {missing}. Take {these} next."
    if count >= MANY:
        some = "some" if shots > 1 else "one"
        return (f"Enough in number, too much alike: {_amount(coverage)}. Replace {some} by "
                f"{these}.")
    return f"Nearly there: {_amount(coverage)}. Take {these} next."


def _amount(coverage: Coverage) -> str:
    if coverage.photos == 1:
        return "1 photo"
    if coverage.effective < 1.05:
        return f"{coverage.photos} photos that amount to a single one"
    return (f"{coverage.photos} photos that amount to {coverage.effective:.1f} entirely different "
            "ones")


def _plan(photos: Sequence[Photo], coverage: Coverage,
          check: Callable[[], None]) -> tuple[Shot, ...]:
    start = traits_of(photos)
    start = take(start, representatives(start, check=check)) if photos else {}
    now, state = start, coverage
    chosen: list[tuple[dict[str, str], Traits, str, float]] = []
    while len(chosen) < SHOTS and not is_done(state):
        check()
        options = _options(state, has_light="light" in now or not photos)
        if state.missing:
            options = [bins for bins in options if _supplies(bins, state.missing)] or options
        candidates = _ideals(options, photos, now, len(chosen))
        best = _most_useful(now, candidates) if now else 0
        bins, ideal = options[best], take(candidates, [best])
        now = joined(now, ideal) if now else ideal
        before, state = state, _with(state, bins, effective_number(now))
        chosen.append((bins, ideal, _why(bins, before, coverage),
                       state.diversity - before.diversity))
    usual, shots = most_common(coverage, "distance"), []
    for bins, ideal, why, rise in chosen:
        number = effective_number(joined(start, ideal)) if start else 0.0
        gain = score_of(number) - coverage.diversity if start else rise
        shots.append((number, Shot(bins, gain, describe_shot(bins, usual), why)))
    return tuple(shot for _, shot in sorted(shots, key=lambda pair: -pair[0]))


def _options(state: Coverage, has_light: bool) -> list[dict[str, str]]:
    """The plausible photos: plain ones first, so that these win ties."""
    place = "new" if len(state.scenes) < SCENES.least else "same"
    place = place if state.photos else "first"
    options = []
    for (yaw, pitch), expression, light, distance in itertools.product(
            _POSES, _EXPRESSION, _LIGHTS if has_light else ("even",),
            ("shoulders", "close", "upper_body")):
        turned = yaw.startswith("profile") or pitch != "level"
        if turned and (expression not in ("neutral", "smile") or distance != "shoulders"):
            continue
        options.append({"yaw": yaw, "pitch": pitch, "expression": expression, "light": light,
                        "distance": distance, "place": place})
    return options


def _parts(bins: Mapping[str, str]) -> dict[str, str]:
    """The coverage's bins that a planned photo falls into."""
    return {**{name: bins[name] for name in ("yaw", "pitch", "expression", "distance")},
            "light_side": bins["light"] if bins["light"] in ("left", "right") else "even"}


def _supplies(bins: Mapping[str, str], lacks: Sequence[Lack]) -> bool:
    parts = _parts(bins)
    return any(parts.get(lack.need.axis) in lack.need.bins
               or lack.need is SCENES and bins["place"] != "same" for lack in lacks)


def _ideals(options: Sequence[Mapping[str, str]], photos: Sequence[Photo], now: Traits,
            planned: int) -> dict[str, np.ndarray]:
    """The traits of planned photos, as `traits_of` would give them."""
    key = [photo.measures.get("light_key", np.nan) for photo in photos]
    key = float(np.nanmedian(key)) if photos and not np.isnan(key).all() else 0.6
    rows = {"pose": [(_YAW[bins["yaw"]], _PITCH[bins["pitch"]]) for bins in options],
            "expression": [expression_traits(Shapes(*_EXPRESSION[bins["expression"]], pucker=0.0))
                           for bins in options],
            "light": [(side, key, contrast, warmth, top) for side, contrast, warmth, top
                      in (_LIGHTS[bins["light"]] for bins in options)],
            "distance": [(np.log2(_DISTANCE[bins["distance"]]),) for bins in options]}
    ideal = {name: np.asarray(values, np.float32) / np.float32(TRAITS[name].scale)
             for name, values in rows.items() if name in now or not now}
    if not now:  # a set that begins with these has a face, and a place of its own
        ideal |= {name: np.zeros((len(options), 1), np.float32) for name in ("face", "scene")}
    if "face" in now:
        ideal["face"] = np.repeat(np.nanmean(now["face"], 0)[None], len(options), 0)
    if "scene" in now:
        known = now["scene"][~np.isnan(now["scene"]).any(1)][0]
        ideal["scene"] = np.repeat(known[None], len(options), 0)
        if options[0]["place"] == "new":  # far from every place there is, and from each other
            ideal["scene"][:, 0] += 100.0 * (planned + 1)
    return ideal


def _most_useful(now: Traits, candidates: Traits) -> int:
    """The candidate that lowers p'Kp most: one exact step towards it, in closed form."""
    weights, crowding = balance(now)
    beside = similarity(candidates, now) @ weights
    gain = np.maximum(crowding - beside, 0) ** 2 / np.maximum(crowding + 1 - 2 * beside, 1e-9)
    return int(gain.round(6).argmax())


def _with(state: Coverage, bins: Mapping[str, str], effective: float) -> Coverage:
    """The coverage once a planned photo is taken."""
    counts = {axis: dict(parts) for axis, parts in state.counts.items()}
    for axis, part in _parts(bins).items():
        if axis in counts:
            counts[axis][part] += 1
    scenes = (*state.scenes, ("",)) if bins["place"] == "first" or (
        bins["place"] == "new" and state.scenes) else state.scenes
    return replace(state, counts=counts, scenes=scenes, photos=state.photos + 1,
                   lacks=lacks_of(counts, scenes), effective=effective,
                   diversity=score_of(effective))


def _why(bins: Mapping[str, str], state: Coverage, taken: Coverage) -> str:
    """The reason of the first need that a planned photo supplies.

    Args:
        state: what there is with the shots before it on the list.
        taken: what there is now, which the reason counts.
    """
    lacking = [lack for lack in state.lacks if _supplies(bins, [lack])]
    if not lacking:
        return "unlike what there is"
    need = lacking[0].need
    found = next((lack.found for lack in taken.lacks if lack.need is need), 0)
    wanted = f" of {need.least}" if need.least > 1 else ""
    return f"{f'only {found}' if found else 'none'}{wanted} so far; {need.reason}"


def _reshoot(photos: PhotoSet, able: Sequence[Photo]) -> tuple[Reshoot, ...]:
    """Count the photos that were refused, by the reason that weighed most."""
    counted = {photo.name for photo in able}
    counts: dict[str, int] = {}
    for photo in photos.photos:
        found = sorted((reason for reason in photo.reasons if reason.rule in RESHOOT),
                       key=lambda reason: reason.verdict is not Verdict.REJECT)
        if photo.name not in counted and found and photo.verdict is not Verdict.KEEP:
            counts[found[0].rule] = counts.get(found[0].rule, 0) + 1
    ranked = sorted(counts.items(), key=lambda pair: -pair[1])
    return tuple(Reshoot(rule, count, f"{count} {RESHOOT[rule]}") for rule, count in ranked)


def report(advice: Advice, photos: PhotoSet) -> dict[str, Any]:
    """The advice as JSON data."""
    return {
        "folder": photos.folder,
        "done": advice.done,
        "headline": advice.headline,
        "score": round(advice.coverage.diversity, 1),
        "shots": [{"text": shot.text, "gain": round(shot.gain, 1), "why": shot.why,
                   "bins": dict(shot.bins)} for shot in advice.shots],
        "take_again": [{"rule": again.rule, "count": again.count, "text": again.text}
                       for again in advice.reshoot],
        "coverage": summary(advice.coverage),
        "limits": {"few": FEW, "many": MANY, "enough": ENOUGH,
                   "bins": {axis.id: {part.id: None if np.isinf(part.low) else part.low
                                      for part in axis.bins} for axis in AXES},
                   "needs": [{"axis": need.axis, "any_of": list(need.bins), "photos": need.least,
                              "why": need.reason, "essential": need.essential}
                             for need in (*NEEDS, SCENES)]},
    }
