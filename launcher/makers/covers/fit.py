"""Fits the weights of nodes/quality/covers to covers drawn on portraits, in the host's Python.

    python -m launcher.makers.covers.fit FOLDER [--every N] [--out weights.json]

Half of the people serve to fit; the other half tell how much is seen and how many bare faces are
alarmed. The weights that are written are fitted to all of them. Nothing that ships calls it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..limits import EXTENSIONS, pack
from .drawing import BOTH, EYES, FREE, MOUTH

# Between which values each measure tells anything: about the 1st percentile of bare faces and the
# median of covered ones, rounded.
SPANS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "mouth": {"lips_redder_by_spread": (-0.5, 2.5), "lips_redder": (-2, 12),
              "lips_redder_than_skin": (-12, 12), "lips_colour": (0, 12),
              "tip_from_bridge": (3, 22), "tip_from_skin": (3, 20), "chin_from_skin": (6, 30),
              "cheeks_from_skin": (4, 24), "nostrils_lighter": (-30, 0), "seam_lighter": (-15, 5)},
    "eyes": {"round_eyes_from_skin": (8, 35), "contrast_in_eye": (0.1, 0.6),
             "iris_lighter": (-40, -5), "below_redder": (-15, 5)},
}
COVERING = {"mouth": {*MOUTH, *BOTH}, "eyes": {*EYES, *BOTH}}
_BARE = "bare"
_DRAWN = 4  # covers on each portrait
_PENALTY = 0.3  # of squared weights
_ALARMED = 0.001  # share of the bare faces that may be taken for covered
_LIMIT = 0.4  # `Rules.occlusion`, which that share may exceed


@dataclass(frozen=True, eq=False)
class Case:
    """One picture: whose it is, what was drawn, and its measures by the kind of cover."""

    person: int
    drawn: str
    measures: Mapping[str, Mapping[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit the weights of covers.")
    parser.add_argument("folder", type=Path, help="portraits, one face each")
    parser.add_argument("--every", type=int, default=1, help="use every Nth portrait only")
    parser.add_argument("--out", type=Path, help="where to write the weights")
    arguments = parser.parse_args()
    files = sorted(file for file in arguments.folder.iterdir() if file.suffix in EXTENSIONS)
    cases = list(_cases(files[::arguments.every]))
    weights = {kind: fitted(cases, kind) for kind in SPANS}
    for kind in SPANS:
        _report(cases, kind)
    text = json.dumps(weights, indent=1)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    print(text)


def _cases(files: Sequence[Path]) -> Any:
    drawings = {**MOUTH, **EYES, **BOTH, **FREE}
    names = list(drawings)
    find_face = pack("faces.detect").find_face
    read_photo = pack("media.images").read_photo
    for person, file in enumerate(files):
        pixels = read_photo(file)
        face = find_face(pixels)
        if face is None:
            continue
        yield Case(person, _BARE, _measured(pixels, face))
        for turn in range(_DRAWN):
            name = names[(person * _DRAWN + turn) % len(names)]
            seen = drawings[name](pixels, face, np.random.default_rng((person, turn)))
            found = find_face(seen)
            if found is not None:
                yield Case(person, name, _measured(seen, found))


def _measured(pixels: np.ndarray, face: Any) -> dict[str, dict[str, float]]:
    tones = pack("quality.tones")
    colours = tones.lab(tones.landmark_colours(pixels, face))
    return {"mouth": pack("quality.covers.mouth").mouth_measures(colours),
            "eyes": pack("quality.covers.eyes").eye_measures(pixels, face, colours)}


def fitted(cases: Sequence[Case], kind: str) -> dict[str, Any]:
    """The weights for one kind of cover, as weights.json holds them."""
    spans = SPANS[kind]
    inputs = np.array([[*_inputs(case.measures[kind], spans), 1.0] for case in cases])
    covered = np.array([case.drawn in COVERING[kind] for case in cases])
    weights = _logistic(inputs, covered)
    bare = np.array([case.drawn == _BARE for case in cases])
    limit = np.log(_LIMIT / (1 - _LIMIT))
    # The base is moved so that the bare faces that may be alarmed are all above the limit.
    base = weights[-1] + limit - float(np.quantile(inputs[bare] @ weights, 1 - _ALARMED))
    return {"base": round(base, 3),
            "terms": {name: [*span, round(float(weight), 3)]
                      for (name, span), weight in zip(spans.items(), weights[:-1], strict=True)}}


def _inputs(measures: Mapping[str, float],
            spans: Mapping[str, tuple[float, float]]) -> list[float]:
    return [float(np.clip((measures[name] - low) / (high - low), 0, 1))
            for name, (low, high) in spans.items()]


def _logistic(inputs: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Weights (K,) of a ridge logistic regression, by Newton's method; both classes count alike."""
    counts = np.where(covered, (~covered).sum() / max(covered.sum(), 1), 1.0)
    penalty = np.full(inputs.shape[1], _PENALTY)
    penalty[-1] = 1e-6  # the base is free
    weights = np.zeros(inputs.shape[1])
    for _ in range(50):
        share = 1 / (1 + np.exp(-inputs @ weights))
        slope = inputs.T @ (counts * (share - covered)) + penalty * weights
        bend = (inputs.T * (counts * share * (1 - share))) @ inputs + np.diag(penalty)
        weights = weights - np.linalg.solve(bend, slope)
    return weights


def _report(cases: Sequence[Case], kind: str) -> None:
    """Print by what was drawn how many are taken for covered, each half by the other's weights."""
    seen: dict[str, list[bool]] = {}
    for half in (0, 1):
        held = fitted([case for case in cases if case.person % 2 != half], kind)
        terms = [term[2] for term in held["terms"].values()]
        for case in cases:
            if case.person % 2 == half:
                total = held["base"] + np.dot(_inputs(case.measures[kind], SPANS[kind]), terms)
                seen.setdefault(case.drawn, []).append(1 / (1 + np.exp(-total)) > _LIMIT)
    print(f"{kind}: taken for covered")
    for name, verdicts in sorted(seen.items()):
        mark = "covered" if name in COVERING[kind] else "free"
        print(f"  {name:24}{mark:>8}{sum(verdicts):>5} of {len(verdicts)}")


if __name__ == "__main__":
    main()
