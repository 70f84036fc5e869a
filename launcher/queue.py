"""`run.py queue`: runs a workflow file on a server, with photos in and pictures out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import server
from .attach import ready_host
from .client import Client, FileReference, Prompt, Run
from .console import say, step
from .host import ROOT, Host
from .photos import list_photos, require_loader, upload_photos
from .problems import Problem
from .progress import Progress
from .workflows import load_workflow, read_settings, require_inputs, with_settings

LOG = ROOT / ".host" / "server.log"
_REPORTED = ("lora", "report")  # keys under which nodes name files that are not pictures


@dataclass(frozen=True)
class Request:
    """What to run and where the results go."""

    workflow: Path
    settings: list[str]  # node.input=value
    photos: Path | None
    out: Path | None
    server: str | None  # None: start a host for this run
    comfyui: str | None = None
    python: str | None = None


@contextmanager
def local_server(host: Host, port: int | None = None) -> Iterator[server.Server]:
    """A server of the host for the time of the block, with a temporary folder of its own."""
    folders = server.Folders(temp=ROOT / ".host" / "temp")
    with step("Starting ComfyUI"):
        running = server.start(host.python, host.comfyui, LOG, folders=folders, port=port)
    with running:
        yield running


def run_with_progress(client: Client, prompt: Prompt) -> Run:
    """Run a prompt and show how far it is."""
    progress = Progress(prompt)
    try:
        return client.run(prompt, progress)
    finally:
        progress.finish()


def run_queue(request: Request) -> None:
    """Run the request.

    Raises:
        Problem: anything the user can mend; everything that can be checked before the server is
            started or touched is.
    """
    prompt = load_workflow(request.workflow)
    settings = read_settings(prompt, request.settings)
    photos = list_photos(request.photos) if request.photos else []
    loaders = require_loader(prompt) if photos else []
    if request.out is not None and request.out.exists() and not request.out.is_dir():
        raise Problem(f"{request.out} is a file; give a folder with --out.")
    if request.server is not None:
        _run(Client(request.server), request, prompt, settings, photos, loaders)
        return
    with local_server(ready_host(request.comfyui, request.python)) as running:
        _run(Client(running.url), request, prompt, settings, photos, loaders)


def _run(client: Client, request: Request, prompt: Prompt, settings: dict[str, object],
         photos: list[Path], loaders: list[str]) -> None:
    require_inputs(prompt, settings, client)
    prompt = with_settings(prompt, settings)
    if photos:
        folder = upload_photos(client, photos)
        say(f"Uploaded {len(photos)} photos to the server's input folder `{folder}`.")
        prompt = with_settings(prompt, {f"{node}.folder": folder for node in loaders})
    run = run_with_progress(client, prompt)
    files = tuple(dict.fromkeys(run.files() + reported_files(run)))
    say(f"Done in {run.seconds:.1f} s with {len(files)} file{'' if len(files) == 1 else 's'}.")
    if request.out is None:
        for file in files:
            say(f"  {file.subfolder + '/' if file.subfolder else ''}{file.filename} "
                "(in the server's output folder)")
        return
    for path in download_all(client, files, request.out):
        say(f"  {path}")


def reported_files(run: Run) -> tuple[FileReference, ...]:
    """The LoRA and report files that nodes name in their JSON, where the server gives them away."""
    found = []
    for node in run.outputs:
        try:
            report = json.loads(run.text(node))
        except ValueError:
            continue
        for key in _REPORTED if isinstance(report, dict) else ():
            below = re.search(r"[\\/]output[\\/](.+)$", str(report.get(key, "")))
            if below is not None:
                folder, _, name = below.group(1).replace("\\", "/").rpartition("/")
                found.append(FileReference(name, folder))
    return tuple(found)


def download_all(client: Client, files: tuple[FileReference, ...], out: Path) -> list[Path]:
    """Fetch files into a folder, below it as on the server; nothing leaves the folder."""
    out = out.resolve()
    paths = []
    for file in files:
        target = (out / file.subfolder / file.filename).resolve()
        if out not in target.parents:
            raise Problem(f"The server names a file outside the folder, {file.subfolder}/"
                          f"{file.filename}; it was not fetched.")
        paths.append(client.download(file, target))
    return paths
