"""The command itself: make what is missing, queue, collect."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints import read_family
from ..client.api import Client
from ..client.photos import list_photos, upload_photos
from ..client.refusals import Prompt
from ..client.runs import Run
from ..client.workflows import with_settings
from ..client.writing import require_file_place, write_whole
from ..console import say, step
from ..demonstrator.install import install
from ..hosts.host import ROOT, Host
from ..problems import Problem
from ..queue import local_server, run_with_progress
from .prompts import WORKFLOW, with_checkpoint, with_demonstrator
from .results import collect, show

SAMPLES = ROOT / ".host" / "sample_photos"


@dataclass(frozen=True)
class DemoRequest:
    """What the user asked for."""

    checkpoint: str | None  # None: the small one that comes with the pack
    photos: Path | None  # None: the sample photos
    json: Path | None


def check(request: DemoRequest) -> None:
    """Check what can be checked without a host.

    Raises:
        Problem: the photo folder or the place for the JSON file cannot be used.
    """
    if request.json is not None:
        require_file_place(request.json, "--json")
    if request.photos is not None:
        list_photos(request.photos)


def run_demo(request: DemoRequest, host: Host) -> None:
    """Make what is missing, run the workflow, and print what came of it.

    Raises:
        Problem: anything the user can mend.
    """
    photos = _photos(request, host)
    if request.checkpoint is None:
        install(host)
    with local_server(host, _environment(request, host)) as running:
        client = Client(running.url)
        prompt = make_prompt(request, host, client)
        folder, _ = upload_photos(client, photos, request.photos or SAMPLES)
        run = run_with_progress(client, with_settings(prompt, {"photos.folder": folder}))
    results = collect(run, photos)
    show(results, run.seconds)
    if request.checkpoint is None:
        try:
            results["strip"] = str(_strip(host, run, results))
            say(f"Photos, before training, after it, with a style: {results['strip']}")
        except Problem as problem:  # everything else is done and must not be lost
            say(f"The strip of pictures was not drawn: {problem}")
        say("These pictures come from the small model of the pack, 128 pixels wide. "
            "`python run.py demo --checkpoint NAME` makes headshots with a model of your host.")
    if request.json is not None:
        write_whole(request.json, (json.dumps(results, indent=2) + "\n").encode())


def make_prompt(request: DemoRequest, host: Host, client: Client) -> Prompt:
    """The workflow with the demo's settings, or with the user's checkpoint.

    Raises:
        Problem: the host has no checkpoint of that name.
    """
    if request.checkpoint is None:
        return with_demonstrator("man" if request.photos is None else "person")
    known = client.model_names("checkpoints")
    if request.checkpoint not in known:
        raise Problem(f"There is no checkpoint `{request.checkpoint}`; the host has "
                      f"{', '.join(known) or 'none'} (folder {host.models / 'checkpoints'}).")
    say("ControlNets and the face adapter are left out, because they belong to one model; to use "
        f"yours, run {WORKFLOW.name} with `run.py queue`.")
    family = read_family(host.models / "checkpoints" / request.checkpoint)
    if family is None:
        say(f"{request.checkpoint} does not tell its family, so sizes and sampling stay as for "
            "Stable Diffusion 1.5.")
    elif family.cfg is not None:
        say(f"Sampling for {family.title}: cfg {family.cfg}, {family.sampler}, "
            f"{family.scheduler}.")
    return with_checkpoint(request.checkpoint, family)


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


def _strip(host: Host, run: Run, results: dict) -> Path:
    """Draw photos, pictures before and after training and styled ones side by side."""
    output = Path(results["report"]).parents[2]
    kept = [photo["file"] for photo in results["photos"] if photo["verdict"] == "keep"]
    drawn = {name: [str(output / file.subfolder / file.filename) for file in run.files(name)]
             for name in ("before", "after")}
    target = output / "likeness" / "demo" / "strip.png"
    _in_host(host, "makers.strip", "--out", str(target), "--photos", *kept, "--before",
             *drawn["before"], "--after", *drawn["after"], "--styled",
             *[image["file"] for image in results["images"]])
    return target


def _in_host(host: Host, module: str, *arguments: str) -> None:
    """Run one of the launcher's modules with the host's packages."""
    done = subprocess.run([str(host.python), "-m", f"launcher.{module}", *arguments], cwd=ROOT,
                          capture_output=True, text=True, errors="replace",
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise Problem(f"launcher.{module} failed: {last}")
