"""Photos and pictures per second of the eye: curation by stage at 1 and 12 megapixels, and scores.

    python tests/bench/bench_curation.py [--json FILE] [--quick]

With the recogniser that comes with the pack, every photo new. One photo after the other, and two
beside each other, take turns with the same work on whole pictures (`curation_world.whole_pictures`)
and with a plain pipeline (`curation_world.Plain`). Wall seconds are those of the machine as it is;
CPU seconds, of all threads, also hold on a busy one.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_training import _make_importable
from curation_world import (
    Clock,
    Photos,
    Plain,
    digests,
    spin,
    stages_watched,
    whole_pictures,
)

PHOTOS_PER_SECOND = 10.0  # asked for at one megapixel on two cores
WORKERS = 2

logger = logging.getLogger("likeness")


@dataclass(frozen=True)
class Size:
    """Photos of one size: how many a contender looks at per round, and how many rounds."""

    megapixels: float
    photos: int
    rounds: int


SIZES = (Size(1.0, 10, 6), Size(12.0, 5, 3))
QUICK = (Size(1.0, 2, 1),)


def main(json_path: str | Path | None = None, quick: bool = False) -> dict[str, Any]:
    """Measure; write the JSON where told; return it."""
    _make_importable()
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        sizes = {f"{size.megapixels:g} MP": _measure(size, Path(folder) / f"{size.megapixels:g}")
                 for size in (QUICK if quick else SIZES)}
        scoring = _scoring(Path(folder) / "scoring", 2 if quick else 12)
    memory = _memory_of_a_run(10 if quick else 200)
    result = {"ratios": _ratios(sizes, memory), "sizes": sizes, "scoring": scoring,
              "memory": memory, "bar": _bar(sizes["1 MP"]), "load": os.getloadavg(),
              "cores": os.cpu_count()}
    for line in _table(result):
        logger.info("%s", line)
    if json_path is not None:
        Path(json_path).write_text(json.dumps(result, indent=2))
    return result


def _measure(size: Size, folder: Path) -> dict[str, Any]:
    from likeness.nodes.quality.look import look

    photos = Photos(folder, size.megapixels)
    clock, plain = Clock(), Plain()
    rounds: dict[str, list[dict[str, float]]] = {}
    with ThreadPoolExecutor(WORKERS) as pool:
        warm = photos.next(WORKERS)
        known = digests(warm)
        list(pool.map(lambda file: look(file, known[file]), warm))
        plain(warm[0])
        for _ in range(size.rounds):
            # In turn, so that each part holds every person as often.
            files = photos.next(5 * size.photos)
            known = digests(files)
            parts = [files[start * size.photos:][:size.photos] for start in range(5)]

            def ours(file: Path, known: dict[Path, str] = known) -> None:
                look(file, known[file])

            with stages_watched(clock):
                rounds.setdefault("one", []).append(_timed(map, ours, parts[0]))
            rounds.setdefault("two", []).append(_timed(pool.map, ours, parts[1]))
            with whole_pictures():
                rounds.setdefault("whole one", []).append(_timed(map, ours, parts[2]))
                rounds.setdefault("whole two", []).append(_timed(pool.map, ours, parts[3]))
            rounds.setdefault("plain", []).append(_timed(map, plain, parts[4]))
            numbers = range(size.photos)
            rounds.setdefault("spin one", []).append(_timed(map, spin, numbers))
            rounds.setdefault("spin two", []).append(_timed(pool.map, spin, numbers))
            for file in files:
                file.unlink()
    plain.close()
    looked = size.photos * size.rounds
    return {
        "photos": looked,
        "wall": _medians(rounds, "wall"), "best_wall": _medians(rounds, "wall", min),
        "cpu": _medians(rounds, "cpu"),
        "gain_of_two": _gain(rounds, "one", "two"),
        "gain_of_two_whole": _gain(rounds, "whole one", "whole two"),
        "gain_of_two_possible": _gain(rounds, "spin one", "spin two"),
        "whole_over_ours": {
            "one_cpu": _gain(rounds, "whole one", "one", "cpu"),
            "one_wall": _gain(rounds, "whole one", "one"),
            "two_wall": _gain(rounds, "whole two", "two")},
        "stages_cpu": {stage: seconds / looked for stage, seconds in clock.cpu.items()},
        "stages_wall": {stage: seconds / looked for stage, seconds in clock.wall.items()},
    }


def _timed(run: Callable[..., Any], function: Callable[[Any], Any],
           items: Sequence[Any]) -> dict[str, float]:
    """Seconds per item."""
    wall, cpu = time.perf_counter(), time.process_time()
    list(run(function, items))
    return {"wall": (time.perf_counter() - wall) / len(items),
            "cpu": (time.process_time() - cpu) / len(items)}


def _medians(rounds: dict[str, list[dict[str, float]]], clock: str,
             middle: Callable[[list[float]], float] = statistics.median) -> dict[str, float]:
    return {name: round(middle([one[clock] for one in rows]), 5)
            for name, rows in rounds.items() if not name.startswith("spin")}


def _gain(rounds: dict[str, list[dict[str, float]]], slow: str, quick: str,
          clock: str = "wall") -> float:
    """How much quicker one way is; the median of the rounds, which a busy machine slows alike."""
    return round(statistics.median(a[clock] / b[clock] for a, b
                                   in zip(rounds[slow], rounds[quick], strict=True)), 3)


def _scoring(folder: Path, count: int) -> dict[str, float]:
    """Seconds per picture of one megapixel: the score alone, and what stands beside it."""
    from likeness.nodes.dataset.curate.curate import curate
    from likeness.nodes.dataset.files.load import read_photos
    from likeness.nodes.dataset.subject.subject import SubjectSettings, make_subject
    from likeness.nodes.faces.recognise.backends import BOTH
    from likeness.nodes.media.images import read_photo
    from likeness.nodes.quality.rules import Rules
    from likeness.nodes.scoring.score.axes import measure_axes
    from likeness.nodes.scoring.score.score import score_pictures, yardstick

    photos = Photos(folder, 1.0)
    own = photos.next(12)[::5]  # three photos of one person
    rules = Rules(duplicate_bits=-1)
    judged = curate(read_photos(own, [file.name for file in own], "", lambda done: None), rules,
                    lambda done: None)
    subject = make_subject(judged, SubjectSettings("bench", "ohwx", "man", 1, True),
                           lambda done: None)
    pictures = [read_photo(file) for file in photos.next(count)]
    measure = yardstick(subject, BOTH)
    clock = Clock()
    with clock.time("score"):
        scores = score_pictures(pictures, measure)
    with clock.time("beside"):
        measure_axes(pictures, scores, measure, None)
    return {"pictures": count, "faces": sum(score.face is not None for score in scores),
            **{f"{name}_cpu": seconds / count for name, seconds in clock.cpu.items()},
            **{f"{name}_wall": seconds / count for name, seconds in clock.wall.items()}}


def _memory_of_a_run(count: int) -> dict[str, float]:
    """Peak resident bytes of a process of its own that curates so many photos."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "memory.json"
        subprocess.run([sys.executable, __file__, "--memory", str(count), "--json", str(file)],
                       check=True, stdout=subprocess.DEVNULL)
        return json.loads(file.read_text())


def _memory(count: int, json_path: Path) -> None:
    """Curate photos of one megapixel and write what the process took at most, and when."""
    _make_importable()
    from likeness.nodes.dataset.curate.curate import curate
    from likeness.nodes.dataset.files.load import read_photos
    from likeness.nodes.quality.rules import Rules

    peaks: dict[int, int] = {}

    def on_photo(done: int) -> None:
        peaks[done] = _peak()

    with tempfile.TemporaryDirectory() as folder:
        files = Photos(Path(folder), 1.0).next(count)
        loaded = read_photos(files, [file.name for file in files], "", lambda done: None)
        Path("/proc/self/clear_refs").write_text("5")  # what making the photos took is no part
        before = _peak()
        began = time.perf_counter()
        judged = curate(loaded, Rules(), on_photo)
        seconds = time.perf_counter() - began
    early = max(count // 10, 1)
    json_path.write_text(json.dumps({
        "photos": count, "seconds": seconds, "faces": sum(photo.face is not None
                                                          for photo in judged.photos),
        "before": before, "early_photos": early, "early": peaks[early], "peak": _peak(),
        "grown_per_photo": (_peak() - peaks[early]) / max(count - early, 1)}))


def _peak() -> int:
    """Most resident bytes of this process; `getrusage` would count its parent's too."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def _bar(size: dict[str, Any]) -> dict[str, Any]:
    seconds = size["wall"]["one"]  # as curation goes through photos
    stages = {stage: taken for stage, taken in size["stages_cpu"].items() if ":" not in stage}
    return {"asked": PHOTOS_PER_SECOND, "photos_per_second": round(1 / seconds, 2),
            "met": 1 / seconds >= PHOTOS_PER_SECOND,
            "photos_per_cpu_second": round(1 / size["cpu"]["one"], 2),
            "met_by_one_free_core": 1 / size["cpu"]["one"] >= PHOTOS_PER_SECOND,
            "most": max(stages, key=stages.__getitem__)}


def _ratios(sizes: dict[str, Any], memory: dict[str, float]) -> dict[str, float]:
    """Slower over faster, so that more is better for the pack, and the run's peak over its start.
    """
    found = {f"plain_over_ours_{name.replace(' ', '').lower()}":
             round(row["cpu"]["plain"] / row["cpu"]["one"], 4) for name, row in sizes.items()}
    found |= {f"whole_over_ours_{how}_{name.replace(' ', '').lower()}": ratio
              for name, row in sizes.items() for how, ratio in row["whole_over_ours"].items()}
    found |= {f"one_over_two_{name.replace(' ', '').lower()}": row["gain_of_two"]
              for name, row in sizes.items()}
    return {**found, "peak_over_early": round(memory["peak"] / memory["early"], 4)}


def _table(result: dict[str, Any]) -> list[str]:
    lines = [line for name, row in result["sizes"].items() for line in _size_lines(name, row)]
    scoring, memory, bar = (result[name] for name in ("scoring", "memory", "bar"))
    both_wall, both_cpu = (scoring[f"score_{clock}"] + scoring[f"beside_{clock}"]
                           for clock in ("wall", "cpu"))
    return [
        *lines,
        f"scoring: {1 / scoring['score_wall']:.1f} pictures/s, {scoring['score_cpu'] * 1e3:.0f} ms "
        f"CPU; with the axes beside it {1 / both_wall:.1f}, {both_cpu * 1e3:.0f} ms CPU",
        f"memory of {memory['photos']} photos: {memory['peak'] / 1e6:.0f} MB at most, "
        f"{memory['early'] / 1e6:.0f} MB after {memory['early_photos']}, "
        f"{memory['before'] / 1e6:.0f} MB before the first; "
        f"{memory['grown_per_photo'] / 1e3:.0f} kB more per photo",
        f"bar of {bar['asked']:g} photos/s at 1 MP: {'met' if bar['met'] else 'NOT met'} with "
        f"{bar['photos_per_second']:g}; {bar['photos_per_cpu_second']:g} per second of one core, "
        f"which {'would do' if bar['met_by_one_free_core'] else 'would not do'} alone; most goes "
        f"into `{bar['most']}`",
    ]


def _size_lines(name: str, row: dict[str, Any]) -> list[str]:
    speed = {who: 1 / seconds for who, seconds in row["wall"].items()}
    cpu = {who: 1e3 * seconds for who, seconds in row["cpu"].items()}
    return [
        f"{name}: {speed['one']:.1f} photos/s one by one, {speed['two']:.1f} two at once (gain "
        f"{row['gain_of_two']:.2f}; two idle threads gain {row['gain_of_two_possible']:.2f} here "
        f"now), plain {speed['plain']:.1f}; {cpu['one']:.0f} ms CPU, plain {cpu['plain']:.0f}",
        f"    on whole pictures {speed['whole one']:.1f} and {speed['whole two']:.1f} (gain "
        f"{row['gain_of_two_whole']:.2f}), {cpu['whole one']:.0f} ms CPU: ours is "
        f"{row['whole_over_ours']['one_wall']:.2f} times as quick one by one, "
        f"{row['whole_over_ours']['two_wall']:.2f} two at once, "
        f"{row['whole_over_ours']['one_cpu']:.2f} by CPU",
        *(f"    {stage:24}{1e3 * seconds:8.1f} ms CPU"
          f"{1e3 * row['stages_wall'][stage]:9.1f} ms wall"
          for stage, seconds in sorted(row["stages_cpu"].items()))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--quick", action="store_true", help="two photos: does it run at all")
    parser.add_argument("--memory", type=int, metavar="COUNT", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.memory:
        _memory(chosen.memory, chosen.json)
    else:
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(logging.StreamHandler(sys.stdout))
        main(chosen.json, chosen.quick)
