"""Does the person come out, how soon, and with which technique: on real faces, beside the peers.

    python tests/bench/bench_likeness.py [--json FILE] [--photos DIR] [--pairs DIR] [--people N]
        [--only headline|techniques|ablations] [--few N] [--workers N] [--quick]

Every contender learns the same photos of a person whom the base model has never seen, from the same
weights, at the same rank and precision, in one thread; sixteen headshots of fixed seeds are judged
by two recognisers apart, against photos that never train. Figures are medians over people. The
settings were chosen on the first person; the second, fourth and so on are told apart, too.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

from bench_training import ROOT, _make_importable  # noqa: E402 - threads are chosen first

logger = logging.getLogger("likeness")
# The best of 5e-4 (the node's default), 2e-3, 4e-3 and 8e-3 on the first person; the plain loop is
# worse at 4e-3 and draws no faces any more at 8e-3.
RATES = {"core": 8e-3, "peft": 2e-3}
PARTS = ("headline", "techniques", "ablations")


@dataclass(frozen=True)
class Sizes:
    """How long everything runs."""

    lengths: tuple[int, ...] = (100, 300, 600)  # steps of the peers, each looked at
    ours: int = 240  # steps of this pack's run
    every: int = 20  # steps between looks at it
    steps: int = 150  # of techniques and ablations
    pictures: int = 16  # of each look


FULL, QUICK = Sizes(), Sizes((10, 20), 20, 10, 10, 4)


@dataclass(frozen=True)
class Asked:
    """What is measured of one person."""

    parts: tuple[str, ...]
    sizes: Sizes
    folder: Path


def main(json_path: Path | None = None, photos: Path | None = None, pairs: Path | None = None,
         count: int = 0, only: str = "", few: int = 0, workers: int = 1,
         quick: bool = False) -> dict[str, Any]:
    """Measure; write the JSON where told, anew after each person; return it."""
    sizes = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _find_modules()
        from likeness_people import people

        everybody = people(photos or ROOT / "tests" / "assets", pairs, place, _nouns(pairs))
        everybody = everybody[:count or len(everybody)]
        wanted = (only,) if only else PARTS
        found: dict[str, dict[str, Any]] = {}
        # A process for each, because a host's model management is one for a process.
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"),
                                 _ready, (place, sizes), max_tasks_per_child=1) as pool:
            waiting: dict[Future, str] = {}
            for number, person in enumerate(everybody):
                parts = tuple(part for part in wanted
                              if part == "headline" or not few or number < few)
                waiting[pool.submit(_person, person, Asked(parts, sizes, place))] = person.name
            for done in as_completed(waiting):
                found[waiting[done]] = done.result()
                logger.info("%s: %s", waiting[done], json.dumps(found[waiting[done]]))
                result = _result([(person.name, found.get(person.name, {}))
                                  for person in everybody])
                if json_path is not None:
                    Path(json_path).write_text(json.dumps(result, indent=1))
    return result


def _find_modules() -> None:
    """Make the pack, the host and the demonstrator's scripts importable."""
    _make_importable()
    sys.path.append(str(ROOT / "tests" / "demonstrator"))


def _ready(folder: Path, sizes: Sizes) -> None:
    """Prepare a process that measures people."""
    _find_modules()
    import folder_paths
    import likeness_world
    import torch

    torch.set_num_threads(1)
    folder_paths.set_output_directory(str(folder))
    likeness_world.PICTURES = sizes.pictures


def _person(person: Any, asked: Asked) -> dict[str, Any]:
    """All that is asked of one person, by part."""
    from likeness_ablations import ablations
    from likeness_techniques import plain, techniques
    from likeness_world import Base, world

    known, told = world(Base(), person, asked.folder), {}
    if "headline" in asked.parts:
        told["headline"] = _headline(known, asked.sizes)
    if "techniques" in asked.parts:
        told["techniques"] = plain(techniques(known, asked.sizes.steps))
    if "ablations" in asked.parts:
        told["ablations"] = ablations(known, asked.sizes.steps)
    return told


def _result(people: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Medians over people of whatever was measured, each with that of the other half; those of whom
    nothing is known yet have an empty mapping.
    """
    import torch

    result: dict[str, Any] = {"torch": torch.__version__,
                              "people": [name for name, found in people if found]}
    ways = {"headline": {"ratios": _ratios, "headline": _medians}, "techniques": {"table": _table},
            "ablations": {"ablations": _medians}}
    for part, makers in ways.items():
        rows = [found[part] for _, found in people if part in found]
        other = [found[part] for _, found in people[1::2] if part in found]
        for name, make in makers.items():
            if rows:
                result[name] = make(rows)
            if other:
                result[f"{name}_of_the_other_half"] = make(other)
    result["by_person"] = dict(people)
    card = ROOT / "launcher" / "demonstrator" / "model_card.json"
    return result | {"model_card": json.loads(card.read_text("utf-8"))}


def _nouns(pairs: Path | None) -> dict[str, str]:
    """Who of the pairs is a woman: in `pairs.csv` beside them, where there is one."""
    file = None if pairs is None else pairs / "pairs.csv"
    if file is None or not file.is_file():
        return {}
    lines = [line.split(",") for line in file.read_text("utf-8").splitlines()[1:]]
    return {row[0]: "woman" if row[1] == "female" else "man" for row in lines}


def _headline(known: Any, sizes: Sizes) -> dict[str, Any]:
    """The curves of one person, and what they say."""
    from likeness_contenders import JUDGES, core, ours, peft
    from likeness_techniques import RANK, our_recipe

    before = known.look(known.base.model, 0).judges
    curves = {"ours": ours(known, our_recipe(sizes.ours), sizes.every),
              "core": core(known, sizes.lengths, RANK, RATES["core"]),
              "peft": peft(known, sizes.lengths, RANK, RATES["peft"])}
    return {"untrained": before,
            "curves": {name: [asdict(point) for point in curve.points]
                       for name, curve in curves.items()},
            **{judge: _times(curves, judge) for judge in JUDGES}}


def _times(curves: Mapping[str, Any], judge: str) -> dict[str, Any]:
    """What each reaches at its best, with its copying, seconds and steps; how soon ours has what
    each peer has, over the peer's seconds, and how much it copies then.
    """
    bests = {who: curve.best(judge) for who, curve in curves.items()}
    found: dict[str, Any] = {
        who: {"likeness": best.likeness.get(judge), "copy": best.copy, "seconds": best.seconds,
              "steps": best.step} for who, best in bests.items()}
    for peer in ("core", "peft"):
        mine = curves["ours"].reaches(judge, bests[peer].likeness.get(judge, -1.0))
        found[f"over_{peer}"] = None if mine is None else round(
            mine.seconds / bests[peer].seconds, 3)
        found[f"copy_as_{peer}"] = None if mine is None else mine.copy
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
            known = [value for value in values if isinstance(value, int | float)]
            if name == "likeness" and known:
                merged["likeness range"] = [min(known), max(known)]
        return merged
    if isinstance(first, Sequence) and not isinstance(first, str):
        return [_medians(values) for values in zip(*people, strict=False)]
    if isinstance(first, int | float) and not isinstance(first, bool):
        return statistics.median(value for value in people if isinstance(value, int | float))
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
    parser.add_argument("--few", type=int, default=0,
                        help="techniques and ablations for the first so many people alone")
    parser.add_argument("--workers", type=int, default=1, help="people at a time")
    parser.add_argument("--quick", action="store_true", help="a few steps: does it run at all")
    chosen = parser.parse_args()
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(sys.stdout))
    made = main(chosen.json, chosen.photos, chosen.pairs, chosen.people, chosen.only, chosen.few,
                chosen.workers, chosen.quick)
    logger.info("%s", json.dumps({name: value for name, value in made.items()
                                  if name.startswith(("ratios", "table", "ablations"))}, indent=1))
