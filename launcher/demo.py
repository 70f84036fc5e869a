"""`run.py demo`: the whole path on ten sample photos, from a bare machine to scored pictures."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checkpoints import read_family
from .client.api import Client, Run
from .client.photos import list_photos, upload_photos
from .client.refusals import Prompt
from .client.workflows import load_workflow, with_settings
from .client.writing import write_whole
from .console import say, step
from .hosts.host import ROOT, Host
from .problems import Problem
from .queue import local_server, run_with_progress
from .tiny import models as tiny_models

WORKFLOW = ROOT / "workflows" / "api" / "selfies_to_headshots.json"
SAMPLES = ROOT / ".host" / "sample_photos"
CHECKPOINT = "likeness_demo_sd15.safetensors"
# Small enough for a computer without a graphics card; random weights gain nothing from more.
_QUICK = {"prepare.resolution": 192, "recipe.steps": 20, "canvas.width": 192,
          "canvas.height": 240, "canvas.batch_size": 4, "face_map.width": 192,
          "face_map.height": 240, "face_map.smallest_face": 48, "pose_map.width": 192,
          "pose_map.height": 240, "sample.steps": 4}
# In a workflow with a real checkpoint: what goes past the demo's random control files.
_WITHOUT_CONTROL = {"sample.positive": ["positive", 0], "sample.negative": ["negative", 0],
                    "sample.model": ["train", 0]}
_CONTROL = ("face_map", "pose_map", "face_control", "pose_control", "face_stack", "pose_stack",
            "apply_control", "face_adapter", "inject")


@dataclass(frozen=True)
class DemoRequest:
    """What the user asked for."""

    checkpoint: str | None  # None: the small one with random weights
    photos: Path | None  # None: the sample photos
    json: Path | None


def check(request: DemoRequest) -> None:
    """Check what can be checked without a host.

    Raises:
        Problem: the photo folder or the place for the JSON file cannot be used.
    """
    if request.json is not None and not request.json.absolute().parent.is_dir():
        raise Problem(f"The folder of {request.json} does not exist; make it or choose another "
                      "file with --json.")
    if request.json is not None and request.json.is_dir():
        raise Problem(f"{request.json} is a folder; name a file in it with --json.")
    if request.photos is not None:
        list_photos(request.photos)


def run_demo(request: DemoRequest, host: Host) -> None:
    """Make what is missing, run the workflow, and print what came of it.

    Raises:
        Problem: anything the user can mend.
    """
    photos = _photos(request, host)
    if request.checkpoint is None and not tiny_models.present(host.comfyui, host.models,
                                                              tiny_models.DEMO):
        with step("Making the demo's models"):
            _in_host(host, "tiny.models", "--comfyui", str(host.comfyui), "--models",
                     str(host.models), "--only", *tiny_models.DEMO)
    with local_server(host, _environment(request, host)) as running:
        client = Client(running.url)
        prompt = _prompt(request, host, client)
        folder, _ = upload_photos(client, photos, request.photos or SAMPLES)
        prompt = with_settings(prompt, {"photos.folder": folder})
        run = run_with_progress(client, prompt)
    results = collect(run, photos)
    show(results, run.seconds)
    if request.checkpoint is None:
        say("The demo checkpoint has random weights, so its pictures are noise: this run proves "
            "the plumbing. `python run.py demo --checkpoint NAME` makes real headshots with a "
            "model of your host.")
    if request.json is not None:
        write_whole(request.json, (json.dumps(results, indent=2) + "\n").encode())


def _environment(request: DemoRequest, host: Host) -> dict[str, str]:
    """What the demo's own host gets beside the user's environment; a user's host gets nothing."""
    if not host.embedded:
        return {}
    chosen = {"HF_HUB_OFFLINE": "1"}
    if request.checkpoint is None and "OMP_NUM_THREADS" not in os.environ:
        # On two cores a second thread saves a fifth of the time when both are free, and makes
        # training three times slower when other work has one.
        chosen["OMP_NUM_THREADS"] = "1"
    return chosen


def _photos(request: DemoRequest, host: Host) -> list[Path]:
    if request.photos is not None:
        return list_photos(request.photos)
    with step("Making the sample photos"):
        _in_host(host, "makers.sample_photos", "--out", str(SAMPLES))
    return list_photos(SAMPLES)


def _in_host(host: Host, module: str, *arguments: str) -> None:
    """Run one of the launcher's modules with the host's packages."""
    done = subprocess.run([str(host.python), "-m", f"launcher.{module}", *arguments], cwd=ROOT,
                          capture_output=True, text=True, errors="replace",
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise Problem(f"launcher.{module} failed: {last}")


def _prompt(request: DemoRequest, host: Host, client: Client) -> Prompt:
    """The workflow with the demo's settings, or with the user's checkpoint.

    Raises:
        Problem: the host has no checkpoint of that name.
    """
    prompt = load_workflow(WORKFLOW)
    if request.checkpoint is None:
        return with_settings(prompt, {**_QUICK, "checkpoint.ckpt_name": CHECKPOINT})
    known = client.model_names("checkpoints")
    if request.checkpoint not in known:
        raise Problem(f"There is no checkpoint `{request.checkpoint}`; the host has "
                      f"{', '.join(known) or 'none'} (folder {host.models / 'checkpoints'}).")
    say("ControlNets and the face adapter are left out, because the demo's are random; to use "
        f"yours, run {WORKFLOW.name} with `run.py queue`.")
    settings: dict[str, Any] = {**_WITHOUT_CONTROL, "checkpoint.ckpt_name": request.checkpoint}
    changed = with_settings(prompt, settings | _fitting(host, request.checkpoint))
    return {node: content for node, content in changed.items() if node not in _CONTROL}


def _fitting(host: Host, checkpoint: str) -> dict[str, Any]:
    """Sizes and sampling for the checkpoint's family; the workflow's own when it does not tell."""
    family = read_family(host.models / "checkpoints" / checkpoint)
    if family is None:
        say(f"{checkpoint} does not tell its family, so sizes and sampling stay as for Stable "
            "Diffusion 1.5.")
        return {}
    settings = {"prepare.resolution": family.side, "canvas.width": family.side,
                "canvas.height": family.side * 5 // 4}
    if family.cfg is None:
        return settings
    say(f"Sampling for {family.title}: cfg {family.cfg}, {family.sampler}, {family.scheduler}.")
    return {**settings, "sample.cfg": family.cfg, "sample.sampler_name": family.sampler,
            "sample.scheduler": family.scheduler}


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
        "images": [{name: entry[name] for name in ("file", "score", "verdict")}
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
        say(f"  {image['verdict']:<7} {score:<11} {image['file']}")
    say(f"Report: {results['report']}")
