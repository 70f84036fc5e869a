"""Does the person come out, how soon, and with which technique: on real faces, beside the peers.

    python tests/bench/bench_likeness.py [--json FILE] [--photos DIR] [--pairs DIR] [--people N]
        [--only headline|techniques|ablations] [--quick]

Every contender learns the same photos of a person whom the base model has never seen, from the same
weights, at the same rank and precision, in one thread; sixteen headshots of fixed seeds are judged
by two recognisers apart, against photos that never train. Figures are medians over people; half of
the people chose the settings, the other half is told apart.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

from bench_training import ROOT, _make_importable  # noqa: E402 - threads are chosen first

logger = logging.getLogger("likeness")
CORE_RATES = (5e-4, 2e-3)  # the node's own default, and what suits this base
LENGTHS = (50, 100, 200, 400, 800)
STEPS = 400  # of techniques and ablations
QUICK_LENGTHS, QUICK_PICTURES = (10, 20), 4


def main(json_path: Path | None = None, photos: Path | None = None, pairs: Path | None = None,
         count: int = 0, only: str = "", quick: bool = False) -> dict[str, Any]:
    """Measure; write the JSON where told; return it."""
    _make_importable()
    sys.path.append(str(ROOT / "tests" / "demonstrator"))
    import folder_paths
    import likeness_world
    import torch
    from likeness_people import people

    torch.set_num_threads(1)
    if quick:
        likeness_world.PICTURES = QUICK_PICTURES
    result: dict[str, Any] = {"torch": torch.__version__}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        folder_paths.set_output_directory(folder)
        everybody = people(photos or ROOT / "tests" / "assets", pairs, place, _nouns(pairs))
        everybody = everybody[:count or len(everybody)]
        result["people"] = [person.name for person in everybody]
        if only in ("", "headline"):
            rows = [_headline(person, place, QUICK_LENGTHS if quick else LENGTHS)
                    for person in everybody]
            result |= {"headline": rows, "ratios": _ratios(rows),
                       "ratios_of_the_other_half": _ratios(rows[1::2])}
        if only in ("", "techniques", "ablations"):
            result |= _what_it_is_worth(everybody, place, only, 10 if quick else STEPS)
    card = ROOT / "launcher" / "demonstrator" / "model_card.json"
    if card.is_file():
        result["model_card"] = json.loads(card.read_text("utf-8"))
    if json_path is not None:
        Path(json_path).write_text(json.dumps(result, indent=2))
    return result


def _what_it_is_worth(everybody: Sequence[Any], place: Path, only: str,
                      steps: int) -> dict[str, Any]:
    """Techniques and ablations: of all people, and of the half that chose no setting."""
    from likeness_ablations import ablations
    from likeness_techniques import plain, techniques
    from likeness_world import Base, world

    known = [world(Base(), person, place) for person in everybody]
    told: dict[str, Any] = {}
    if only != "ablations":
        tables = [_said(one, plain(techniques(one, steps))) for one in known]
        told |= {"table": _table(tables), "table_of_the_other_half": _table(tables[1::2])}
    if only != "techniques":
        found = [_said(one, ablations(one, steps)) for one in known]
        told |= {"ablations": _medians(found),
                 "ablations_of_the_other_half": _medians(found[1::2])}
    return told


def _said(one: Any, told: Any) -> Any:
    """What was found of a person, also printed as it is found."""
    logger.info("%s: %s", one.person.name, json.dumps(told))
    return told


def _nouns(pairs: Path | None) -> dict[str, str]:
    """Who of the pairs is a woman: in `pairs.csv` beside them, where there is one."""
    file = None if pairs is None else pairs / "pairs.csv"
    if file is None or not file.is_file():
        return {}
    lines = [line.split(",") for line in file.read_text("utf-8").splitlines()[1:]]
    return {row[0]: "woman" if row[1] == "female" else "man" for row in lines}


def _headline(person: Any, folder: Path, lengths: Sequence[int]) -> dict[str, Any]:
    """The three curves of one person."""
    from likeness_contenders import JUDGES, core, ours, peft
    from likeness_techniques import RANK, our_recipe
    from likeness_world import Base, world

    base = Base()
    known = world(base, person, folder)
    before = known.look(base.model, 0)
    curves = {"ours": ours(known, our_recipe(lengths[-1] // 2), max(1, lengths[0] // 2))}
    for rate in CORE_RATES:
        curves[f"core {rate:g}"] = core(known, lengths, RANK, rate)
        curves[f"peft {rate:g}"] = peft(known, lengths, RANK, rate)
    row = {"person": person.name, "before": before.judges,
           "curves": {name: [asdict(point) for point in curve.points]
                      for name, curve in curves.items()}}
    for judge in JUDGES:
        row[judge] = _times(curves, judge)
        logger.info("%s, %s: %s", person.name, judge, row[judge])
    return row


def _times(curves: Mapping[str, Any], judge: str) -> dict[str, float | None]:
    """Seconds until ours has what each peer reaches at its best, over the peer's, and the bests."""
    found: dict[str, float | None] = {"ours": curves["ours"].best(judge).likeness[judge]}
    for peer in ("core", "peft"):
        best = max((curve.best(judge) for name, curve in curves.items()
                    if name.startswith(peer)), key=lambda point: point.likeness[judge])
        mine = curves["ours"].reaches(judge, best.likeness[judge])
        found[peer] = best.likeness[judge]
        found[f"over_{peer}"] = None if mine is None else round(mine.seconds / best.seconds, 3)
    return found


def _ratios(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Medians over people; whoever never gets there counts as infinite."""
    from likeness_contenders import JUDGES

    told: dict[str, float | None] = {}
    for peer in ("core", "peft"):
        for judge in JUDGES:
            values = [float("inf") if row[judge][f"over_{peer}"] is None
                      else row[judge][f"over_{peer}"] for row in rows]
            middle = statistics.median(values) if values else float("inf")
            told[f"time_to_likeness_over_{peer} ({judge})"] = (
                None if middle == float("inf") else middle)
    return told


def _medians(people: Sequence[Any]) -> Any:
    """Equal structures of several people as one: medians, and beside likeness its range.

    Where a person lacks a number the others' median stands; where all lack it, None.
    """
    first = next((one for one in people if one is not None), None)
    if isinstance(first, Mapping):
        merged = {}
        for name in first:
            values = [one[name] for one in people if one is not None and name in one]
            merged[name] = _medians(values)
            if name == "likeness" and (known := [value for value in values if value is not None]):
                merged["likeness range"] = [min(known), max(known)]
        return merged
    if isinstance(first, int | float) and not isinstance(first, bool):
        return statistics.median(value for value in people if value is not None)
    return first


def _table(people: Sequence[Sequence[Mapping[str, Any]]]) -> list[Any]:
    """The techniques' rows over people."""
    return [_medians(rows) for rows in zip(*people, strict=True)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="has obama*.jpg, biden*.jpg")
    parser.add_argument("--pairs", type=Path, metavar="DIR", help="two sittings of each person")
    parser.add_argument("--people", type=int, default=0, help="only the first so many")
    parser.add_argument("--only", choices=("headline", "techniques", "ablations"),
                        default="")
    parser.add_argument("--quick", action="store_true", help="a few steps: does it run at all")
    chosen = parser.parse_args()
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(sys.stdout))
    made = main(chosen.json, chosen.photos, chosen.pairs, chosen.people, chosen.only, chosen.quick)
    logger.info("%s", json.dumps({name: made[name] for name in ("ratios", "table", "ablations")
                                  if name in made}, indent=1))
