"""What a run says of itself when it has ended."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import torch

from ...sockets import EMPTY
from ..frozen.formats import coarsest_format
from ..objective import objectives
from ..steps.loop import Trainer
from ..steps.memory import MemoryPlan
from .job import Job
from .judges import disagreement, judging
from .products import Products

_WORTH_SAYING = 0.1  # of what training changed, lost in loading it back; of layers, idle


def report(job: Job, trainer: Trainer, made: Products, key: str, said: Mapping[str, Any],
           plan: MemoryPlan, cost: Mapping[str, Any], seconds: Mapping[str, float | None] = EMPTY,
           started_at: int = 0, reused: bool = False) -> dict[str, Any]:
    """A run's figures as plain values.

    Args:
        said: what the run's files tell of it.
        cost: of the whole run, as `Watch.cost` gives it.
        seconds: medians of this call's steps, of `Watch.seconds_per_step`.
        started_at: the step that this call went on from.
        reused: nothing was trained: the files of an earlier run of the same inputs were loaded.
    """
    recipe, losses = job.recipe, said["losses"]
    learned = sum(parameter.numel() for parameter in trainer.learner.parameters)
    all_of_it = sum(weight.numel() for weight in trainer.base.diffusion_model.parameters())
    share = [objectives.face_share(sample.mask, recipe.background) for sample in trainer.samples]
    tail = losses[-max(1, len(losses) // 10):]
    text = None if trainer.text is None else trainer.text.encoders
    return {
        "method": recipe.method,
        "steps": said.get("steps", len(losses)),
        "kept_step": said["kept_step"],
        "ended": said["ended"] or f"all {recipe.steps} steps are done.",
        "seconds_per_step": seconds.get("all"),
        "seconds_with_identity": seconds.get("with_identity"),
        "seconds_without_identity": seconds.get("without_identity"),
        **cost,
        "files": {kind: str(path) for kind, path in made.files.items()},
        "bytes": {kind: path.stat().st_size for kind, path in made.files.items()},
        "parameters": learned,
        "parameters_share": round(learned / all_of_it, 6),
        "layers": 0 if trainer.adapters is None else len(trainer.adapters.layers),
        "layers_without_gradient": list(trainer.reach.missed),
        "text_layers": 0 if text is None or text.adapters is None else len(text.adapters.layers),
        "text_layers_left_out": [] if text is None else list(text.skipped),
        "word_vectors": 0 if text is None or text.tokens is None else recipe.tokens.vectors,
        "photos": len(trainer.samples),
        "class_photos": len(trainer.class_samples),
        "shapes": len(trainer.groups),
        "face_share": round(statistics.fmean(share), 4),
        "first_loss": round(losses[0], 6),
        "final_loss": round(statistics.fmean(tail), 6),  # mean of the last tenth
        "loss_by_noise": said["loss_by_noise"],  # mean by quarter of the levels, clean to noise
        "likeness": said["looks"],
        "judges_differ": disagreement(said["looks"]),
        "memory_plan": plan.as_dict(),
        "warnings": _warnings(job, trainer, made),
        "min_snr": recipe.min_snr if objectives.uses_min_snr(trainer.sampling, recipe) else None,
        "precision": str(trainer.dtype).removeprefix("torch."),
        "reload_error": round(made.reload_error, 6),  # relative to what training changed
        "resumed_at": started_at,
        "reused": reused,
        "run": key,
        "seed": job.seed,
        "recipe": recipe.as_dict(),
    }


def _warnings(job: Job, trainer: Trainer, made: Products) -> list[str]:
    """What makes the figures say less than they seem to."""
    found = [_reload_warning(part, error, trainer)
             for part, error in made.reload_errors.items() if error > _WORTH_SAYING]
    if job.monitor is not None and judging(job) != job.monitor.backend:
        found.append(f"The recogniser {job.monitor.backend} taught this run and does not judge it "
                     "alone: its verdict counts beside that of another one.")
    missed = trainer.reach.missed
    if missed and len(missed) > _WORTH_SAYING * len(trainer.adapters.layers):
        found.append(f"{len(missed)} of {len(trainer.adapters.layers)} layers got no gradient in "
                     f"the first steps and learned nothing, `{missed[0]}` among them; choose "
                     "another `target`.")
    if len(job.training_set.items) == 1:
        found.append("One photo shows one pose and one light, and both are learned with the face; "
                     "add photos.")
    return found


def _reload_warning(part: str, error: float, trainer: Trainer) -> str:
    """What loading a part back costs, and why where that is known."""
    if part == "lora":
        owner, network, adapters = "model", trainer.base.diffusion_model, trainer.adapters
        formats = [trainer.dtype]
    elif part == "text lora":
        text = trainer.text.encoders
        owner, network, adapters, formats = "text encoder", text.network, text.adapters, []
    else:  # nothing is added to weights
        return (f"Loaded back, the {part} differs by {error:.0%} from what was trained; judge it "
                "by its pictures.")
    formats.append(coarsest_format(network.get_submodule(path).weight for path in adapters.layers))
    coarsest = max(formats, key=lambda kind: torch.finfo(kind).eps)
    coarse = torch.finfo(coarsest).bits == 8
    name = "8 bits or fewer" if coarse else str(coarsest).removeprefix("torch.")
    remedy = f"load the {owner} with 16-bit weights for pictures, or train" if coarse else "train"
    return (f"Loaded back, the LoRA of the {owner} differs from what was trained by {error:.0%} of "
            f"what training changed, because ComfyUI adds it to the {owner}'s weights and rounds "
            f"the sum to {name}; {remedy} until the change is larger than that rounding.")
