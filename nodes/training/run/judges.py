"""Who judges a run, so that nobody judges himself, and where the judges disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...faces.recognise.backends import BOTH
from ..objective.identity_loss import RECOGNISER
from .job import Job


def judging(job: Job) -> str:
    """Who judges a run: whom the monitor names, and both where that one teaches the run."""
    named = job.monitor.backend
    return BOTH if job.recipe.identity_weight > 0 and named == RECOGNISER else named


def disagreement(looks: Sequence[Mapping[str, Any]]) -> str:
    """Which step each of several judges alone finds most alike, where they differ; else nothing."""
    counted = [one for one in looks if one.get("judges") and one["step"] > 0]
    if not counted:
        return ""
    best = {id: max(counted, key=lambda one, id=id: (one["judges"][id], -one["step"]))["step"]
            for id in counted[0]["judges"]}
    if len(set(best.values())) < 2:
        return ""
    told = ", ".join(f"{id} step {step}" for id, step in best.items())
    return f"Alone the judges find different steps the most alike: {told}."
