"""The field's techniques on one person: what each gives and costs, by Compare Techniques."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from likeness.nodes.sockets import TrainingSet
from likeness.nodes.training.compare.measure import Technique, measure
from likeness.nodes.training.pictures.class_nodes import ClassPhotosNode
from likeness.nodes.training.recipes.adapters import (
    DoRARecipe,
    LoHaRecipe,
    LoKrRecipe,
    LoRARecipe,
    OFTRecipe,
)
from likeness.nodes.training.recipes.base import Recipe, TokenSettings
from likeness.nodes.training.recipes.whole import DreamBoothRecipe, TextualInversionRecipe
from likeness.nodes.training.run.job import Job, Outcome
from likeness.nodes.training.run.session import run
from likeness.nodes.training.watch.divergence import Diverged
from likeness_world import SAMPLING, World, monitor

from launcher.demonstrator.install import SIDE

logger = logging.getLogger("likeness")
RANK = 16
CLASS_PHOTOS = 32
_Result = TypeVar("_Result")
_RUN = {"batch_size": 4, "gradient_checkpointing": False, "precision": "float32"}
_LAYERS = {"target": "all linear and convolutions", **_RUN}
_SIZED = {"rank": RANK, "alpha": float(RANK), "learning_rate": 2e-3, **_LAYERS}
_OURS = {"rank": RANK, "alpha": 2.0 * RANK, "learning_rate": 3e-3, "schedule": "cosine", **_LAYERS}
# A word of its own, from the first step to the last; a plain one this base looks past.
WORD = TokenSettings(vectors=2, learning_rate=2e-2, share=1.0)


def our_recipe(steps: int, **fields: Any) -> Recipe:
    """What the pack trains this base with; chosen on one person who is not in the other half."""
    return LoRARecipe(steps=steps, **{**_OURS, **fields})


def recipes(steps: int) -> dict[str, Recipe]:
    """The techniques of the table."""
    made = {f"LoRA {rank}": our_recipe(steps, rank=rank, alpha=2.0 * rank)
            for rank in (4, 16, 48)}  # the narrowest layer has 48
    return made | {
        "DoRA": DoRARecipe(steps=steps, **_SIZED),
        # At 2e-3 its first step makes this base worse.
        "LoHa": LoHaRecipe(steps=steps, **{**_SIZED, "learning_rate": 5e-4}),
        "LoKr": LoKrRecipe(steps=steps, **_SIZED),
        "OFT": OFTRecipe(steps=steps, learning_rate=2e-3, **_LAYERS),
        "pivotal": our_recipe(steps, tokens=WORD),
        "textual inversion": TextualInversionRecipe(
            steps=steps, tokens=TokenSettings(vectors=4, learning_rate=5e-3), **_RUN),
        "DreamBooth": DreamBoothRecipe(steps=steps, learning_rate=2e-4, **_LAYERS),
        "DreamBooth, prior": DreamBoothRecipe(steps=steps, learning_rate=2e-4, **_LAYERS)}


def techniques(world: World, steps: int) -> list[Technique]:
    """One row for each technique, after that of the model as it was."""
    rows = [untrained(world)]
    for label, recipe in recipes(steps).items():
        prior = class_photos(world) if label.endswith("prior") else None
        try:
            outcome, peak = with_peak(lambda recipe=recipe, prior=prior: train(
                world, recipe, class_set=prior))
        except Diverged as err:  # a figure too; hours of others must not be lost
            logger.info("%s, %s: %s", world.person.name, label, err)
            rows.append(Technique(label, recipe.method))
            continue
        rows.append(dataclasses.replace(measured(world, label, outcome), peak_bytes=peak))
    return rows


def untrained(world: World) -> Technique:
    """The row to compare with."""
    base = world.base
    return measure("untrained", base.model, base.clip, base.vae, world.subject, monitor(),
                   (SIDE, SIDE))


def train(world: World, recipe: Recipe, training_set: TrainingSet | None = None, seed: int = 0,
          class_set: TrainingSet | None = None) -> Outcome:
    """One run to its last step, without looks."""
    base, folder = world.base, world.folder / "runs" / world.person.name.replace(" ", "_")
    name = recipe.method.replace(" ", "_")  # an embedding's name has no spaces
    return run(Job(base.model, training_set or world.training_set, world.subject, recipe, seed,
                   name, folder / "loras", folder / "work", clip=base.clip, vae=base.vae,
                   class_set=class_set), lambda result: None)


def measured(world: World, label: str, outcome: Outcome) -> Technique:
    """What a run gives and costs."""
    word = outcome.files.get("embedding")
    return measure(label, outcome.model, outcome.clip, world.base.vae, world.subject, monitor(),
                   (SIDE, SIDE), json.dumps(outcome.report),
                   "" if word is None else f"embedding:{word.stem}")


def class_photos(world: World) -> TrainingSet:
    """Pictures of the class word that the base draws, made once."""
    return ClassPhotosNode.execute(
        world.base.model, world.base.clip, world.base.vae, world.subject.class_noun,
        "photo of a {class}\nheadshot of a {class}", "", CLASS_PHOTOS, 7, SIDE, SIDE,
        SAMPLING.steps, SAMPLING.cfg, SAMPLING.sampler, SAMPLING.scheduler, 0.0,
        subject=world.subject, judge_photos="off").result[0]


def with_peak(work: Callable[[], _Result]) -> tuple[_Result, int | None]:
    """What some work gives, and the memory of this process that it added at its highest.

    None where the system does not count it anew (only Linux does).
    """
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return work(), None
    reset.write_text("5")  # VmHWM begins anew
    before = _kilobytes(status, "VmRSS")
    done = work()
    return done, 1024 * max(0, _kilobytes(status, "VmHWM") - before)


def _kilobytes(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def plain(rows: list[Technique]) -> list[Mapping[str, Any]]:
    """Rows as a JSON holds them."""
    return [row.as_dict() for row in rows]
