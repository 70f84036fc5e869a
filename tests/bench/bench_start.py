"""Steps that a start from an encoder's knowledge saves to the same loss, on tiny models.

    python tests/bench/bench_start.py [--json FILE] [--quick]

`start_world` makes worlds of people whom a tiny model knows by name. People whom it does not know
are then learned with each start and without; runs differ in the start alone. The loss is measured
at high noise, where only the text or the patch can say who it is, on photos that do not train. The
starts of words are made for another new person too: what those save is no knowledge of who. A
ratio is how many times as many steps the run without a start takes to the loss that it ends at;
`ratios_to_half`, to the loss that it has after half of its steps.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_training import _make_importable

LEVELS = (850, 900, 950, 999)  # of a schedule of 1000, at which the loss is measured
WORD_RATE, LORA_RATE = 2e-2, 2e-3
PAIRS = {"vision_steps": ("class word", "vision"),
         "vision_of_another_steps": ("class word", "another's vision"),
         "known_faces_steps": ("class word", "known faces"),
         "known_faces_of_another_steps": ("class word", "another's faces"),
         "patch_steps": ("lora", "patch and lora")}

# Of what a start saves, what another person's may save at most, by the median.
ANOTHERS_SHARE = 0.8
HELPS = 1.1  # times as many steps from which a start is said to save any

logger = logging.getLogger("likeness")


@dataclass(frozen=True)
class Size:
    """How long everything runs."""

    worlds: int = 2
    people: int = 2  # new ones per world
    contrast: int = 300  # steps of CLIP's two towers
    teaching: int = 300  # steps of the UNet on the names
    patch: int = 200  # steps of the face patch
    looking: int = 80  # steps of the start from vision; the node's default
    steps: int = 120  # of the new word, and of the LoRA
    every: int = 3  # steps between measurements
    checked: bool = True


QUICK = Size(worlds=1, people=1, contrast=4, teaching=20, patch=4, looking=4, steps=6,
             checked=False)


def main(json_path: str | Path | None = None, quick: bool = False) -> dict[str, Any]:
    """Measure every new person; write the JSON when a path is given; return it.

    Raises:
        RuntimeError: the models do not tell the known people apart by their names, or another
            person's known faces save about as much as one's own.
    """
    _make_importable()
    import torch

    torch.set_num_threads(1)
    size, rows, worlds = QUICK if quick else Size(), [], []
    started = time.thread_time()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(size.worlds):
            worlds.append(_measure_world(seed, Path(folder) / str(seed), size, rows))
    result = {**_summary(rows), "world": {
        "worlds": worlds, "people": len(rows), "steps": size.steps, "measured_every": size.every,
        "word_rate": WORD_RATE, "lora_rate": LORA_RATE,
        "cpu_seconds": round(time.thread_time() - started, 1)}, "rows": rows}
    for line in _table(result):
        logger.info("%s", line)
    if json_path is not None:
        Path(json_path).write_text(json.dumps(result, indent=2))
    ratios = result["ratios"]
    if size.checked and not (ratios["known_faces_of_another_steps"]
                             < ANOTHERS_SHARE * ratios["known_faces_steps"]):
        raise RuntimeError(f"Another person's known faces save as much as one's own: {ratios}.")
    return result


def _measure_world(seed: int, folder: Path, size: Size,
                   rows: list[dict[str, Any]]) -> dict[str, float]:
    from start_world import World

    world = World(seed, folder, size.contrast, size.teaching)
    found = {"seed": seed, "loss_right_name": round(world.right, 4),
             "loss_wrong_name": round(world.wrong, 4), "clip_names_right": round(world.named, 4)}
    logger.info("world %s", json.dumps(found))
    if size.checked and not (world.right < 0.5 * world.wrong and world.named > 0.9):
        raise RuntimeError(f"World {seed} does not tell people apart by their names: {found}.")
    maps = world.teach_patch(size.patch)
    for number in range(size.people):
        rows.append({"world": seed, **_measure_person(world, maps, number, size)})
        logger.info("%s", json.dumps(rows[-1]))
    return found


def _measure_person(world: Any, maps: Any, number: int, size: Size) -> dict[str, Any]:
    person, another = world.newcomers(number)
    seen_rows, seen = world.from_vision(person, size.looking)
    mixed_rows, shares = world.from_known_faces(person)
    starts = {"class word": None, "vision": seen_rows, "known faces": mixed_rows,
              "another's vision": world.from_vision(another, size.looking)[0],
              "another's faces": world.from_known_faces(another)[0]}
    curves = {name: _learn_word(world, person, rows, size) for name, rows in starts.items()}
    curves["lora"] = _learn_lora(world, world.model, person, size)
    curves["patch and lora"] = _learn_lora(world, world.with_face(maps, person), person, size)
    steps = {}
    for without, start in PAIRS.values():
        for name in (without, start):
            steps[f"{name} to the end of {without}"] = _reaches(
                curves[name], curves[without][-1], size.every)
    return {"mixed_of": person.mixed_of, "another_of": another.mixed_of,
            "vision_cosine": [round(seen.before, 4), round(seen.after, 4)],
            "shares": {name: round(share, 2) for name, share in shares.items()},
            "ratios": {name: _saved(curves[without], curves[start], -1, size)
                       for name, (without, start) in PAIRS.items()},
            "ratios_to_half": {name: _saved(curves[without], curves[start],
                                            len(curves[without]) // 2, size)
                               for name, (without, start) in PAIRS.items()},
            "steps": steps,
            "first_loss": {name: round(curve[0], 4) for name, curve in curves.items()},
            "last_loss": {name: round(curve[-1], 4) for name, curve in curves.items()}}


def _reaches(curve: Sequence[float], level: float, every: int) -> int | None:
    """The first measured step at which a loss is down at a level; None: never."""
    return next((every * at for at, loss in enumerate(curve) if loss <= level), None)


def _saved(without: Sequence[float], start: Sequence[float], at: int, size: Size) -> float:
    """How many times as many steps the run without a start takes to a loss of its own curve.

    A start that is there at once counts as one measurement; one that never is, as all its steps
    and one measurement more, so that it stays below 1.
    """
    reached = _reaches(start, without[at], size.every)
    steps = size.steps + size.every if reached is None else max(size.every, reached)
    return round(max(size.every, _reaches(without, without[at], size.every)) / steps, 3)


def _learn_word(world: Any, person: Any, start: Any, size: Size) -> list[float]:
    """Losses while a new word is learned, from its first value on."""
    from likeness.nodes.training.recipes.base import TokenSettings
    from likeness.nodes.training.recipes.whole import TextualInversionRecipe
    from likeness.nodes.training.samples.data import seeded
    from likeness.nodes.training.text.encoders import TextEncoders
    from likeness.nodes.training.text.live import LiveText
    from start_world import NOUN, TRIGGER

    recipe = TextualInversionRecipe(tokens=TokenSettings(vectors=1, learning_rate=WORD_RATE),
                                    **_plain(size, WORD_RATE))
    encoders = TextEncoders(world.clip, recipe, TRIGGER, NOUN, start,
                            generator=seeded(world.seed, "text"))
    return _curve(world.model, person.own, person.unseen, recipe, world.seed, size,
                  LiveText(encoders, person.own.texts))


def _learn_lora(world: Any, model: Any, person: Any, size: Size) -> list[float]:
    """Losses while a LoRA learns on a MODEL."""
    from likeness.nodes.training.recipes.adapters import LoRARecipe

    recipe = LoRARecipe(rank=4, alpha=4.0, **_plain(size, LORA_RATE))
    return _curve(model, person.captioned, person.unseen_captioned, recipe, world.seed, size)


def _plain(size: Size, rate: float) -> dict[str, Any]:
    """Settings under which the loss is the plain error of the velocity, mostly at high noise."""
    return {"steps": size.steps, "learning_rate": rate, "batch_size": 4, "background": 1.0,
            "caption_dropout": 0.0, "min_snr": 0.0, "gradient_checkpointing": False,
            "balance_poses": False, "timesteps": "logit-normal", "logit_mean": 2.0}


def _curve(model: Any, own: Any, unseen: Any, recipe: Any, seed: int, size: Size,
           text: Any = None) -> list[float]:
    from likeness.nodes.training.steps.loop import Trainer

    trainer = Trainer(model, own, recipe, seed, text=text)
    measure = _measure(trainer, unseen)
    with trainer.attached():
        losses = [measure()]
    with closing(trainer.run()) as steps:
        losses += [measure() for result in steps if result.step % size.every == 0]
    return losses


def _measure(trainer: Any, unseen: Any) -> Callable[[], float]:
    """The mean error of the velocity that a trainer's model predicts, with fixed noise."""
    import torch
    from likeness.nodes.training.objective import objectives
    from likeness.nodes.training.samples.data import collate, load_samples, main_captions, seeded

    sampling = trainer.base.model_sampling
    photos = load_samples(trainer.base, unseen, trainer.recipe, trainer.device)
    samples = [photo for photo in photos for _ in LEVELS]
    keys = main_captions(samples)
    sigmas = sampling.sigmas[torch.tensor(LEVELS * len(photos))]
    noise = torch.randn(len(samples), *photos[0].latent.shape, generator=seeded(0, "unseen"))

    def measure() -> float:
        with torch.no_grad():
            live = None
            if trainer.text is not None:
                one = trainer.text.conds(trainer.base, samples[:1], keys[:1], 1.0, trainer.device)
                live = {name: value.expand(len(samples), *value.shape[1:])
                        for name, value in one.items()}
            batch = collate(samples, keys, trainer.device, live)
            noisy = sampling.noise_scaling(sigmas, noise, batch.latents)
            estimate = trainer.predict(noisy, sigmas, batch.conds)
            return float(objectives.residual(sampling, sigmas, estimate,
                                             batch.latents).square().mean())

    return measure


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def median(kind: str, name: str) -> float | None:
        values = [row[kind][name] for row in rows]
        return None if None in values else round(statistics.median(values), 4)

    spread = {name: sorted(row["ratios"][name] for row in rows) for name in PAIRS}
    return {"ratios": {name: round(statistics.median(values), 2)
                       for name, values in spread.items()},
            "all_ratios": spread,
            "medians": {kind: {name: median(kind, name) for name in rows[0][kind]}
                        for kind in ("ratios_to_half", "steps", "first_loss", "last_loss")}}


def _table(result: dict[str, Any]) -> list[str]:
    medians = result["medians"]
    lines = [f"{'run':<18}{'first loss':>12}{'last loss':>12}"]
    lines += [f"{name:<18}{first:>12.4f}{medians['last_loss'][name]:>12.4f}"
              for name, first in medians["first_loss"].items()]
    lines.append(f"{'saved':<30}{'median':>8}{'least':>8}{'most':>8}{'to half':>9}")
    lines += [f"{name:<30}{ratio:>8.2f}{result['all_ratios'][name][0]:>8.2f}"
              f"{result['all_ratios'][name][-1]:>8.2f}{medians['ratios_to_half'][name]:>9.2f}"
              for name, ratio in result["ratios"].items()]
    idle = [name for name, ratio in result["ratios"].items()
            if ratio < HELPS and "another" not in name]
    lines += [f"{name}: this start saves no steps here." for name in idle]
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--quick", action="store_true", help="a few steps: does it run at all")
    chosen = parser.parse_args()
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(sys.stdout))
    main(chosen.json, chosen.quick)
