"""What came of a demo: the reports of its nodes put together, and printed for a person."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..client.runs import Run
from ..console import say


def collect(run: Run, photos: list[Path]) -> dict[str, Any]:
    """Put the reports of curation, training and scoring together, with absolute paths.

    Args:
        photos: the user's files; the reports speak of the server's copies of them.
    """
    originals = {photo.name: photo for photo in photos}
    curated, trained, scored = (json.loads(run.text(node)) for node in ("curate", "train", "score"))
    return {
        "photos": [{"file": str(originals.get(entry["name"], Path(entry["file"])).absolute()),
                    "verdict": entry["verdict"],
                    "reasons": [reason["text"] for reason in entry["reasons"]]}
                   for entry in curated["photos"]],
        "training": {"steps": trained["steps"], "seconds_per_step": trained["seconds_per_step"],
                     "lora": trained["files"]["lora"], "bytes": trained["bytes"]["lora"],
                     "parameters_share": trained["parameters_share"]},
        "images": [{**{name: entry[name] for name in ("file", "score", "verdict")},
                    "judges": {judge["backend"]: {"score": judge["score"],
                                                  "verdict": judge["verdict"]}
                               for judge in entry["judges"]}}
                   for entry in scored["images"]],
        "report": scored["report"],
    }


def show(results: dict[str, Any], seconds: float) -> None:
    """Print the results for a person."""
    say(f"The workflow ran in {seconds:.0f} s.")
    say("Photos:")
    for photo in results["photos"]:
        say(f"  {photo['verdict']:<7} {Path(photo['file']).name} "
            f"{' '.join(photo['reasons'])}".rstrip())
    training = results["training"]
    say(f"Training: {training['steps']} steps, {training['seconds_per_step'] or 0:.2f} s each, "
        f"{training['parameters_share']:.2%} of the model's parameters.")
    say(f"LoRA: {training['lora']} ({training['bytes'] / 1e6:.2f} MB)")
    say("Pictures, best first:")
    for image in results["images"]:
        score = "no score" if image["score"] is None else f"score {image['score']:.3f}"
        alone = ", ".join(f"{name} {judge['score']:.2f} {judge['verdict']}"
                          for name, judge in image["judges"].items()
                          if judge["score"] is not None)
        say(f"  {image['verdict']:<7} {score:<11} {f'({alone})' if alone else '':<48} "
            f"{image['file']}")
    say(f"Report: {results['report']}")
