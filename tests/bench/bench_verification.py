"""How well each recogniser tells people apart, and whether the stated error rates hold.

    python tests/bench/bench_verification.py [--photos FOLDER] [--pairs FOLDER]
        [--portraits FOLDER] [--json FILE] [--quick]

PHOTOS and PAIRS hold several photos of each person, whose names differ in the last letter or digits
alone (ada1.jpg, ada2.jpg); PORTRAITS one photo of each person, and where it holds a `portraits.csv`
(file, gender, born) rates are told by who people are, too. Without folders the committed photos and
the bank that travels with the pack are measured, by the recognisers of that bank: each alone, and
both together.

Per recogniser: AUC over all pairs and the separation d' (the distance of the means of genuine and
impostor pairs over the root of their mean variance); false accepts and false rejects at its stated
cut; and the calibration curve. For that everyone is the subject once, by one photo: four fifths of
the others are the bank from which a limit for a stated rate is set, the rest are the strangers who
try; `groups` tells how many strangers of the subject's own group pass. A person of four photos or
more is also judged as the score node does, each photo by the others.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench_training import ROOT, _make_importable

LIMITING = ("women", "men")  # groups that the limits are set by, as those of the shipped bank are
AGES = (("under 50", 0, 49), ("50 to 64", 50, 64), ("65 and more", 65, 200))
STATED = (0.05, 0.01, 0.003, 0.001, 0.0003, 0.0001)
KINDS = {".jpg", ".jpeg", ".png"}
ASSETS = ROOT / "tests" / "assets"
NOT_A_WHOLE_FACE = "partial"
SAME_FILE = 0.99  # similarity from which a portrait is a photo that a pair holds as well

logger = logging.getLogger("likeness")


@dataclass(frozen=True, eq=False)
class People:
    """Embeddings and whose they are."""

    rows: np.ndarray  # (N, D)
    who: np.ndarray  # (N,) int
    names: tuple[str, ...]  # (N,) file names
    groups: dict[str, np.ndarray]  # who belongs together, (N,) bool by name


def main(json_path: str | Path | None = None, photos: Path | None = None,
         pairs: Path | None = None, portraits: Path | None = None,
         quick: bool = False) -> dict[str, Any]:
    """Measure every recogniser that can run; write the JSON when a path is given; return it."""
    _make_importable()
    import torch
    from likeness.nodes.faces.recognise import backends

    torch.set_num_threads(1)
    given = any((photos, pairs, portraits))
    results = {}
    for id in backends.ids():
        if backends.find(id) is None or (not given and backends.backend(id).registry):
            continue
        started = time.perf_counter()
        people = (_from_folders(photos, pairs, portraits, id, 12 if quick else None) if given
                  else _committed(id))
        results[id] = {**measure(people, id),
                       "seconds": round(time.perf_counter() - started, 1)}
        for line in table(id, results[id]):
            logger.info("%s", line)
    if json_path is not None:
        Path(json_path).write_text(json.dumps(results, indent=2))
    return results


def measure(people: People, backend: str) -> dict[str, Any]:
    """All figures of one recogniser."""
    from likeness.nodes.faces.recognise import backends

    alike = similarities(people.rows, backend)
    first, second = np.triu_indices(len(people.who), 1)
    same = people.who[first] == people.who[second]
    genuine, impostor = alike[first, second][same], alike[first, second][~same]
    cut = backends.backend(backend).same_person
    return {
        "photos": len(people.who), "people": len(set(people.who.tolist())),
        "genuine_pairs": len(genuine), "impostor_pairs": len(impostor),
        "genuine": summary(genuine), "impostor": summary(impostor),
        "auc": round(auc(genuine, impostor), 6),
        "separation": round(separation(genuine, impostor), 3),
        "missed_at_one_in_a_thousand": float(np.mean(genuine < np.quantile(impostor, 0.999))),
        "rejected_at_no_false_accept": float(np.mean(genuine <= impostor.max())),
        "published": None if cut is None else {
            "cut": cut, "false_accepts": float(np.mean(impostor >= cut)),
            "false_rejects": float(np.mean(genuine < cut))},
        "curve": curve(alike, people),
        "subjects": subjects(people, backend),
    }


def similarities(rows: np.ndarray, backend: str) -> np.ndarray:
    """The similarity of each two embeddings (N, D): (N, N), as `embed.similarity` defines it."""
    from likeness.nodes.faces.recognise import backends
    from likeness.nodes.faces.recognise.embed import split_parts

    parts = backends.backend(backend).parts
    if parts:
        found = [(similarities(own, part.id) - part.stranger_mean) / part.stranger_deviation
                 for part, own in zip(parts, split_parts(rows, backend), strict=True)]
        return sum(found) / sum((1 - part.stranger_mean) / part.stranger_deviation
                                for part in parts)
    rows = rows.astype(np.float64)
    if backends.backend(backend).metric == "l2":
        squares = (rows ** 2).sum(1)
        return 1 - np.sqrt((squares[:, None] + squares[None] - 2 * rows @ rows.T).clip(0))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T


def auc(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """The chance that a genuine pair is more alike than an impostor pair; ties count half."""
    ordered = np.sort(impostor)
    below = np.searchsorted(ordered, genuine, "left") + np.searchsorted(ordered, genuine, "right")
    return float(below.mean() / 2 / len(ordered))


def separation(genuine: np.ndarray, impostor: np.ndarray) -> float:
    """The distance of two means over the root of the mean variance: d'."""
    return float((genuine.mean() - impostor.mean())
                 / np.sqrt((genuine.var() + impostor.var()) / 2))


def summary(values: np.ndarray) -> dict[str, float]:
    """Mean, deviation and ends."""
    return {name: round(float(getattr(values, name)()), 4) for name in ("mean", "std", "min",
                                                                        "max")}


def curve(alike: np.ndarray, people: People, seed: int = 0) -> list[dict[str, Any]]:
    """Stated and observed rates over subjects of one photo.

    False rejects are those of the other photos of the same person, where there are any.
    """
    from likeness.nodes.scoring.calibration.calibration import calibrate

    random = np.random.default_rng(seed)
    tally = {rate: {name: Counter() for name in ("all", *people.groups)} for rate in STATED}
    missed, shown = Counter(), 0
    for index, person in enumerate(people.who):
        others = random.permutation(np.flatnonzero(people.who != person))
        strangers, bank = np.split(others, [len(others) // 5])
        limits = calibrate(None, None, alike[index, bank],
                           {name: people.groups[name][bank] for name in LIMITING
                            if name in people.groups})
        own = np.setdiff1d(np.flatnonzero(people.who == person), [index])
        shown += len(own)
        for rate in STATED:
            limit = max(group.limit(rate) for group in limits.groups or (limits.impostors,))
            missed[rate] += int((alike[index, own] < limit).sum())
            _count(tally[rate]["all"], alike[index, strangers], limit)
            for name, members in people.groups.items():
                if members[index]:
                    _count(tally[rate][name], alike[index, strangers[members[strangers]]], limit)
    return [{"stated": rate, **_observed(tally[rate]["all"]),
             "false_rejects": missed[rate] / shown if shown else None,
             "missed": missed[rate], "shown": shown,
             "groups": {name: _observed(tally[rate][name]) for name in people.groups}}
            for rate in STATED]


def _count(tally: Counter, alike: np.ndarray, limit: float) -> None:
    tally["tried"] += len(alike)
    tally["accepted"] += int((alike >= limit).sum())


def _observed(tally: Counter) -> dict[str, Any]:
    return {"observed": tally["accepted"] / max(tally["tried"], 1),
            "accepted": tally["accepted"], "tried": tally["tried"]}


def subjects(people: People, backend: str) -> list[dict[str, Any]]:
    """Judge each photo of a person by the person's other photos, and all others by them."""
    from likeness.nodes.faces.recognise import backends
    from likeness.nodes.faces.recognise.centre import robust_centre
    from likeness.nodes.faces.recognise.embed import similarity
    from likeness.nodes.scoring.calibration.calibration import calibrate
    from likeness.nodes.scoring.calibration.references import own_spread

    found = []
    for person, count in Counter(people.who.tolist()).items():
        if count < 4:
            continue
        strangers = people.rows[people.who != person]
        for index in np.flatnonzero(people.who == person):
            rest = people.rows[(people.who == person) & (np.arange(len(people.who)) != index)]
            centre = robust_centre(rest, backend)
            to_centre = np.array([similarity(row, centre, backend) for row in strangers])
            bank, trying = to_centre[::2], to_centre[1::2]
            limits = calibrate(own_spread(rest, backend),
                               backends.backend(backend).same_person, bank)
            score = similarity(people.rows[index], centre, backend)
            found.append(_judged(people.names[index], score, limits, trying))
    return found


def _judged(name: str, score: float, limits: Any, trying: np.ndarray) -> dict[str, Any]:
    verdicts = Counter(limits.verdict(value).value for value in trying)
    accepts, rejects = (rate(limits.keep_from)
                        for rate in (limits.false_accepts, limits.false_rejects))
    return {"photo": name, "score": round(score, 4), "verdict": limits.verdict(score).value,
            "keep_from": limits.keep_from, "reject_below": limits.reject_below,
            "stated_false_accepts": accepts.estimate if accepts else None,
            "stated_false_rejects": rejects.estimate if rejects else None,
            "strangers": len(trying), "strangers_kept": verdicts["keep"],
            "strangers_unsure": verdicts["unsure"]}


def _committed(backend: str) -> People:
    from likeness.nodes.scoring.bank.bank import shipped

    people = _embed_all(_by_name(ASSETS), backend)
    bank = shipped(backend)
    numbers = np.arange(len(bank.embeddings)) + people.who.max() + 1
    unknown = np.zeros(len(people.who), bool)
    return People(np.concatenate([people.rows, bank.embeddings]),
                  np.concatenate([people.who, numbers]),
                  (*people.names, *("bank",) * len(numbers)),
                  {name: np.concatenate([unknown, members])
                   for name, members in bank.groups.items()})


def _from_folders(photos: Path | None, pairs: Path | None, portraits: Path | None, backend: str,
                  limit: int | None) -> People:
    files = [entry for folder in (photos, pairs) if folder for entry in _by_name(folder)]
    people = _embed_all(files, backend)
    if portraits is None:
        return people
    alone = [(f"portrait {path.stem}", path) for path in _pictures(portraits)][:limit]
    others = _embed_all(alone, backend)
    both = np.concatenate([people.rows, others.rows])
    fresh = (similarities(both, backend)[len(people.rows):, :len(people.rows)]
             < SAME_FILE).all(1)
    numbers = others.who[fresh] + people.who.max() + 1
    names = people.names + tuple(name for name, keep in zip(others.names, fresh, strict=True)
                                 if keep)
    return People(np.concatenate([people.rows, others.rows[fresh]]),
                  np.concatenate([people.who, numbers]), names,
                  _groups(portraits, ("",) * len(people.names) + names[len(people.names):]))


def _groups(portraits: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Who of the portraits belong together, by sex and by sex and age in 2021; others to none."""
    listed = portraits / "portraits.csv"
    if not listed.is_file():
        return {}
    with listed.open(encoding="utf-8") as file:
        told = {row["file"]: row for row in csv.DictReader(file)}
    found = {}
    for word, name in (("female", "women"), ("male", "men")):
        members = [told.get(file, {}).get("gender") == word for file in names]
        found[name] = np.array(members)
        for age, low, high in AGES:
            found[f"{name} {age}"] = np.array([
                member and low <= 2021 - int(told[file]["born"]) <= high
                for member, file in zip(members, names, strict=True)])
    return found


def _by_name(folder: Path) -> list[tuple[str, Path]]:
    """Files with who they show: the name without its last digits or the letter after a digit."""
    return [(f"{folder.name} {re.sub(r'(?<=[0-9])[a-z]$|(?<=[a-z])[0-9]+$', '', path.stem)}", path)
            for path in _pictures(folder) if NOT_A_WHOLE_FACE not in path.stem]


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in KINDS)


def _embed_all(files: Sequence[tuple[str, Path]], backend: str) -> People:
    """Embed the photos that show one person whom the recogniser sees; the log names the rest.

    Somebody small in the background does not make it two.
    """
    from likeness.nodes.errors import FaceNotFoundError
    from likeness.nodes.faces.detect import find_faces
    from likeness.nodes.faces.recognise.embed import embed
    from likeness.nodes.media.images import read_photo

    rows, who, names, known = [], [], [], {}
    for person, path in files:
        pixels = read_photo(path)
        faces = find_faces(pixels)
        if not faces or (len(faces) > 1 and faces[1].size[0] > 0.5 * faces[0].size[0]):
            logger.info("left out: %s shows %d faces", path.name, len(faces))
            continue
        try:
            rows.append(embed(pixels, faces[0], backend))
        except FaceNotFoundError as err:
            logger.info("left out: %s: %s", path.name, err)
            continue
        who.append(known.setdefault(person, len(known)))
        names.append(path.name)
    return People(np.stack(rows), np.array(who), tuple(names), {})


def table(backend: str, found: dict[str, Any]) -> list[str]:
    """The figures for people."""
    lines = [f"{backend}: {found['photos']} photos of {found['people']} people, "
             f"{found['genuine_pairs']} genuine and {found['impostor_pairs']} impostor pairs, "
             f"AUC {found['auc']:.6f}, d' {found['separation']:.2f}, missed at one in a thousand "
             f"{found['missed_at_one_in_a_thousand']:.1%}"]
    lines += [f"  {kind:<9} {found[kind]}" for kind in ("genuine", "impostor")]
    if found["published"]:
        at = found["published"]
        lines.append(f"  stated cut {at['cut']:g}: false accepts {at['false_accepts']:.3%}, "
                     f"false rejects {at['false_rejects']:.1%}")
    lines += [f"  stated {row['stated']:.2%}: observed {row['observed']:.4%} "
              f"({row['accepted']} of {row['tried']}), missed {row['missed']} of {row['shown']}"
              + "".join(f"; {name} {one['observed']:.3%}" for name, one in row["groups"].items())
              for row in found["curve"]]
    lines += [f"  {row['photo']}: {row['verdict']} at {row['score']:.3f} (keep from "
              f"{_number(row['keep_from'])}, reject below {_number(row['reject_below'])}); "
              f"of {row['strangers']} strangers {row['strangers_kept']} kept, "
              f"{row['strangers_unsure']} unsure" for row in found["subjects"]]
    return lines


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for option in ("photos", "pairs", "portraits"):
        parser.add_argument(f"--{option}", type=Path)
    parser.add_argument("--json", dest="json_path")
    parser.add_argument("--quick", action="store_true", help="a dozen portraits only")
    main(**vars(parser.parse_args()))
