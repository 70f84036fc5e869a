"""How well each recogniser tells people apart, and whether the stated error rates hold.

    python tests/bench/bench_verification.py [--photos FOLDER] [--pairs FOLDER]
        [--portraits FOLDER] [--json FILE] [--quick]

PHOTOS and PAIRS hold several photos of each person, whose names differ in the last letter or digits
alone (ada1.jpg, ada2.jpg); PORTRAITS one photo of each person. Without folders the committed
photos and the bank that travels with the pack are measured, by the recogniser of that bank.

Per recogniser: AUC over all pairs; false accepts and false rejects at its published cut; and the
calibration curve. For that everyone is the subject once, by one photo: half of the others are the
bank from which a limit for a stated rate is set, the other half are the strangers who try. A person
of four photos or more is also judged as the score node does, each photo by the others.
"""

from __future__ import annotations

import argparse
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
        if backends.find(id) is None or (not given and id != "dlib"):
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
        "rejected_at_no_false_accept": float(np.mean(genuine <= impostor.max())),
        "published": None if cut is None else {
            "cut": cut, "false_accepts": float(np.mean(impostor >= cut)),
            "false_rejects": float(np.mean(genuine < cut))},
        "curve": curve(alike, people.who),
        "subjects": subjects(people, backend),
    }


def similarities(rows: np.ndarray, backend: str) -> np.ndarray:
    """The similarity of each two embeddings (N, D): (N, N), as `embed.similarity` defines it."""
    from likeness.nodes.faces.recognise import backends

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


def summary(values: np.ndarray) -> dict[str, float]:
    """Mean, deviation and ends."""
    return {name: round(float(getattr(values, name)()), 4) for name in ("mean", "std", "min",
                                                                        "max")}


def curve(alike: np.ndarray, who: np.ndarray, seed: int = 0) -> list[dict[str, Any]]:
    """Stated and observed rates over subjects of one photo.

    False rejects are those of the other photos of the same person, where there are any.
    """
    from likeness.nodes.scoring.calibration.rates import Impostors

    random = np.random.default_rng(seed)
    accepted, tried, missed, shown = Counter(), 0, Counter(), 0
    for index, person in enumerate(who):
        others = random.permutation(np.flatnonzero(who != person))
        bank, strangers = np.array_split(others, 2)
        fitted = Impostors.of(alike[index, bank])
        own = np.setdiff1d(np.flatnonzero(who == person), [index])
        tried, shown = tried + len(strangers), shown + len(own)
        for rate in STATED:
            limit = fitted.limit(rate)
            accepted[rate] += int((alike[index, strangers] >= limit).sum())
            missed[rate] += int((alike[index, own] < limit).sum())
    return [{"stated": rate, "observed": accepted[rate] / tried, "accepted": accepted[rate],
             "tried": tried, "false_rejects": missed[rate] / shown if shown else None,
             "missed": missed[rate], "shown": shown} for rate in STATED]


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
    bank = shipped(backend).embeddings
    numbers = np.arange(len(bank)) + people.who.max() + 1
    return People(np.concatenate([people.rows, bank]), np.concatenate([people.who, numbers]),
                  (*people.names, *("bank",) * len(bank)))


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
    names = tuple(name for name, keep in zip(others.names, fresh, strict=True) if keep)
    return People(np.concatenate([people.rows, others.rows[fresh]]),
                  np.concatenate([people.who, numbers]), people.names + names)


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
    return People(np.stack(rows), np.array(who), tuple(names))


def table(backend: str, found: dict[str, Any]) -> list[str]:
    """The figures for people."""
    lines = [f"{backend}: {found['photos']} photos of {found['people']} people, "
             f"{found['genuine_pairs']} genuine and {found['impostor_pairs']} impostor pairs, "
             f"AUC {found['auc']:.6f}"]
    lines += [f"  {kind:<9} {found[kind]}" for kind in ("genuine", "impostor")]
    if found["published"]:
        at = found["published"]
        lines.append(f"  published cut {at['cut']:g}: false accepts {at['false_accepts']:.3%}, "
                     f"false rejects {at['false_rejects']:.1%}")
    lines += [f"  stated {row['stated']:.2%}: observed {row['observed']:.4%} "
              f"({row['accepted']} of {row['tried']}), missed {row['missed']} of {row['shown']}"
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
