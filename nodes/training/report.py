"""What a run says of itself when it has ended."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from . import objectives
from .job import Job
from .loop import Trainer
from .products import Products


def report(job: Job, trainer: Trainer, made: Products, key: str, seconds: Sequence[float],
           ended: str, started_at: int, looks: Sequence[Mapping[str, Any]] = (),
           quarters: Sequence[float | None] = (), reused: bool = False) -> dict[str, Any]:
    """A run's figures as plain values.

    Args:
        seconds: of each step of this call.
        ended: why the run ended before its last step; empty when it did not.
        started_at: the step that this call went on from.
        quarters: mean loss by quarter of the noise levels, from clean to noise.
        reused: nothing was trained: the files of an earlier run of the same inputs were loaded.
    """
    recipe, losses = job.recipe, trainer.losses
    learned = sum(parameter.numel() for parameter in trainer.learner.parameters)
    all_of_it = sum(weight.numel() for weight in trainer.base.diffusion_model.parameters())
    share = [objectives.face_share(sample.mask, recipe.background) for sample in trainer.samples]
    tail = losses[-max(1, len(losses) // 10):]
    flow = objectives.is_flow(trainer.base.model_sampling)
    text = None if trainer.text is None else trainer.text.encoders
    return {
        "method": recipe.method,
        "steps": len(losses),
        "kept_step": len(losses),
        "ended": ended or f"all {recipe.steps} steps are done.",
        "seconds_per_step": round(statistics.median(seconds), 4) if seconds else None,
        "files": {kind: str(path) for kind, path in made.files.items()},
        "bytes": {kind: path.stat().st_size for kind, path in made.files.items()},
        "parameters": learned,
        "parameters_share": round(learned / all_of_it, 6),
        "layers": 0 if trainer.adapters is None else len(trainer.adapters.layers),
        "text_layers": 0 if text is None or text.adapters is None else len(text.adapters.layers),
        "text_layers_left_out": [] if text is None else list(text.skipped),
        "word_vectors": 0 if text is None or text.tokens is None else recipe.tokens.vectors,
        "photos": len(trainer.samples),
        "class_photos": len(trainer.class_samples),
        "shapes": len(trainer.groups),
        "face_share": round(statistics.fmean(share), 4),
        "first_loss": round(losses[0], 6),
        "final_loss": round(statistics.fmean(tail), 6),  # mean of the last tenth
        "loss_by_noise": [None if value is None else round(value, 6) for value in quarters],
        "likeness": list(looks),
        "min_snr": None if flow or not recipe.min_snr else recipe.min_snr,
        "precision": str(trainer.dtype).removeprefix("torch."),
        "reload_error": round(made.reload_error, 6),  # relative to what training changed
        "resumed_at": 0 if reused else started_at,
        "reused": reused,
        "run": key,
        "seed": job.seed,
        "recipe": recipe.as_dict(),
    }
