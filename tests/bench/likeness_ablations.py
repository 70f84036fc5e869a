"""What each choice is worth: the same run with one thing changed, on one person."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import comfy.sd
import comfy.utils
import torch
from likeness.nodes.faces.recognise.backends import BOTH
from likeness.nodes.media.images import to_image
from likeness.nodes.restore.guard import make_judge
from likeness.nodes.restore.pipeline import Settings, restore_images
from likeness.nodes.scoring.score.score import yardstick
from likeness.nodes.scoring.sweep.figures import Judge as SweepJudge
from likeness.nodes.scoring.sweep.figures import conclude
from likeness.nodes.scoring.sweep.sweep import Column, make_grid
from likeness.nodes.training.recipes.base import Recipe
from likeness.nodes.training.watch.monitor import Look, look
from likeness_contenders import JUDGES, Curve, ours
from likeness_people import near_identical
from likeness_techniques import WORD, class_photos, measured, our_recipe, train
from likeness_world import PROMPTS, TRIGGER, World, monitor, world
from torch.nn import functional

from launcher.demonstrator.install import SIDE

COUNTS = (3, 5, 8)  # photos
STRENGTHS, SEEDS = (0.0, 0.5, 0.75, 1.0, 1.25, 1.5), 2


def ablations(known: World, steps: int) -> dict[str, Mapping[str, Any]]:
    """Every question on one person, by name."""
    asked: dict[str, Callable[[World, int], Mapping[str, Any]]] = {
        "recipe": choices, "photos": counts, "variety": variety, "stop": stopping,
        "prompts and guard": drawn, "strength": strengths}
    return {name: ask(known, steps) for name, ask in asked.items()}


def choices(known: World, steps: int) -> dict[str, Any]:
    """One setting changed at a time."""
    changed: dict[str, Recipe] = {
        "as it is": our_recipe(steps),
        "face weighs no more": our_recipe(steps, background=1.0),
        "half the rate": our_recipe(steps, learning_rate=1.5e-3),
        "no min-SNR": our_recipe(steps, min_snr=0.0),
        "attention alone": our_recipe(steps, target="attention and feed-forward"),
        "batch of 1": our_recipe(steps, batch_size=1),
        "identity loss": our_recipe(steps, identity_weight=0.1),
        "a word of its own": our_recipe(steps, tokens=WORD),
        "class word kept": our_recipe(steps, class_word_weight=1.0),
        "class word kept, a word of its own": our_recipe(steps, tokens=WORD,
                                                         class_word_weight=1.0),
        "prior": our_recipe(steps)}
    return {label: _told(known, label, recipe, class_set=class_photos(known)
                         if label == "prior" else None)
            for label, recipe in changed.items()}


def counts(known: World, steps: int) -> dict[str, Any]:
    """Fewer photos, each run of as many steps."""
    whole = known.training_set
    found = {}
    for count in COUNTS:
        if count <= len(whole.items):
            part = dataclasses.replace(whole, items=whole.items[:count],
                                       key=f"{whole.key}-{count}")
            found[str(count)] = _told(known, f"{count} photos", our_recipe(steps),
                                      training_set=part)
    return found


def variety(known: World, steps: int) -> dict[str, Any]:
    """As many photos, but all nearly the same one."""
    place = known.folder / "same"
    same = world(known.base, near_identical(known.person, place), place)
    return {"varied": _told(known, "varied", our_recipe(steps)),
            "nearly the same": _told(same, "nearly the same", our_recipe(steps))}


def stopping(known: World, steps: int) -> dict[str, Any]:
    """A run that is far too long: the state that one judge chooses, by the other, and the last."""
    curve = _long(known, steps)
    found = {}
    for chooser, told in (JUDGES, JUDGES[::-1]):
        kept, last = curve.best(chooser), curve.points[-1]
        found[f"chosen by {chooser}"] = {
            "step": kept.step, told: kept.likeness.get(told), "copy": kept.copy}
        found.setdefault("last", {"step": last.step, "copy": last.copy})[told] = (
            last.likeness.get(told))
    return found


def _long(known: World, steps: int) -> Curve:
    """A run that is far too long; made once."""
    return ours(known, our_recipe(3 * steps), max(1, steps // 4), name="long")


def strengths(known: World, steps: int) -> dict[str, Any]:
    """What more of the LoRA gives and costs, and what the sweep says of it."""
    lora = comfy.utils.load_torch_file(str(_long(known, steps).outcome.files["lora"]))
    grid = make_grid([Column(f"{value:g}", value, f"{value:g}") for value in STRENGTHS], PROMPTS,
                     TRIGGER, known.subject, 1, SEEDS, 1000, True)
    pictures = []
    for column in grid.columns:
        model, _ = comfy.sd.load_lora_for_models(known.base.model, None, lora, column.strength, 0.0)
        for prompt in PROMPTS:
            asked = dataclasses.replace(monitor(), prompts=(prompt,), pictures=SEEDS)
            seen = look(model, known.base.clip, known.base.vae, known.subject, asked, 0,
                        known.judge, (SIDE, SIDE))
            pictures += [shot.pixels for shot in seen.shots]
    judge = SweepJudge(yardstick(known.subject, BOTH))
    told = conclude(grid, [judge.figures(pixels) for pixels in pictures], pictures,
                    judge.measure.calibration)
    return {"best": told.choice.best, "is a knee": int(told.choice.knee), "says": told.choice.text,
            "likeness by strength": {f"{point.strength:g}": point.likeness
                                     for point in told.points},
            "variety by strength": {f"{point.strength:g}": point.flexibility
                                    for point in told.points}}


def drawn(known: World, steps: int) -> dict[str, Any]:
    """Likeness by prompt, and what a harmful restorer does to it with the guard and without."""
    outcome = train(known, our_recipe(steps))
    seen = known.look(outcome.model, steps)
    return {"by prompt": by_prompt(seen), "restored": _restored(known, seen)}


def by_prompt(seen: Look) -> dict[str, float | None]:
    """The median likeness of each prompt's pictures; None: none could be scored."""
    found: dict[str, list[float]] = {prompt: [] for prompt in PROMPTS}
    for place, shot in enumerate(seen.shots):  # the prompts take turns
        if shot.likeness is not None:
            found[PROMPTS[place % len(PROMPTS)]].append(shot.likeness)
    return {prompt: statistics.median(values) if values else None
            for prompt, values in found.items()}


def harmful(chip: torch.Tensor) -> torch.Tensor:
    """A restorer that makes every face another one: it smooths and narrows it."""
    height, width = chip.shape[-2:]
    soft = functional.avg_pool2d(chip, 9, 1, 4, count_include_pad=False)
    narrow = functional.interpolate(soft, (height, int(width * 0.8)), mode="bilinear")
    left = (width - narrow.shape[-1]) // 2
    return functional.pad(narrow, (left, width - narrow.shape[-1] - left, 0, 0), "replicate")


def _restored(known: World, seen: Look) -> dict[str, float | None]:
    judge = make_judge(known.subject, BOTH)
    pictures = torch.cat([to_image(shot.pixels) for shot in seen.shots if shot.likeness])
    found: dict[str, float | None] = {"before": seen.likeness}
    for name, guard in (("guard off", False), ("guard on", True)):
        _, entries = restore_images(pictures, harmful, judge, Settings(strength=1.0, guard=guard))
        after = [face["likeness_after"] for entry in entries for face in entry["faces"]
                 if face["likeness_after"] is not None]
        found[name] = statistics.median(after) if after else None
    return found


def _told(known: World, label: str, recipe: Recipe, **job: Any) -> dict[str, Any]:
    outcome = train(known, recipe, **job)
    told = measured(known, label, outcome).as_dict()
    return {name: told[name] for name in ("likeness", "judges", "copy", "diversity",
                                          "class_likeness", "faces", "seconds")}

