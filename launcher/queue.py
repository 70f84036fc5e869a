"""`run.py queue`: runs a workflow file on a server, with photos in and pictures out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .client.api import Client, Run
from .client.photos import list_photos, require_loader, upload_photos
from .client.progress import Progress
from .client.refusals import Prompt
from .client.results import fetch, reported_folders, reported_paths
from .client.workflows import load_workflow, read_settings, require_inputs, with_settings
from .client.writing import require_folder
from .console import say, step
from .hosts import server
from .hosts.attach import ready_host
from .hosts.host import ROOT, Host
from .problems import Problem

LOG = ROOT / ".host" / "server.log"


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
def local_server(host: Host, environment: Mapping[str, str] | None = None) -> (
        Iterator[server.Server]):
    """A server of the host for the time of the block, with a temporary folder of its own.

    Args:
        environment: variables that the host gets beside the user's.
    """
    folders = server.Folders(temp=ROOT / ".host" / "temp")
    with step("Starting ComfyUI"):
        running = server.start(host.python, host.comfyui, LOG, folders=folders,
                               environment=environment)
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
    if request.out is not None:
        require_folder(request.out, "--out")
    if request.server is not None:
        client = Client(request.server)
        client.require_comfyui()
        _run(client, request, prompt, settings, photos, loaders)
        return
    with local_server(ready_host(request.comfyui, request.python)) as running:
        _run(Client(running.url), request, prompt, settings, photos, loaders)


def _run(client: Client, request: Request, prompt: Prompt, settings: dict[str, object],
         photos: list[Path], loaders: list[str]) -> None:
    require_inputs(prompt, settings, client)
    prompt = with_settings(prompt, settings)
    if photos:
        folder, others = upload_photos(client, photos, request.photos)
        beside = f" and {others} captions, masks and other files of theirs" if others else ""
        say(f"Uploaded {len(photos)} photos{beside} to the server's input folder `{folder}`.")
        prompt = with_settings(prompt, {f"{node}.folder": folder for node in loaders})
    run = run_with_progress(client, prompt)
    say(f"Done in {run.seconds:.1f} s.")
    if request.out is None:
        _say_folders(reported_folders(run))
        say("Files in the server's output folder:")
        for file in run.files():
            say(f"  {file.subfolder + '/' if file.subfolder else ''}{file.filename}")
        for path in reported_paths(run):
            say(f"  {path}")
        return
    fetched = fetch(client, run, request.out)
    _say_folders(fetched.folders_left)
    for path in (*fetched.files, *fetched.folders):
        say(f"  {path}")
    for text in fetched.left:
        say(f"Not fetched, because the server gives away only what lies in its output folder; it "
            f"is there as {text}, unless it was removed since.")
    if fetched.gone:
        raise Problem(f"{len(fetched.gone)} of the pictures are gone from the server's output "
                      f"folder ({', '.join(fetched.gone[:3])}): it answered from its memory of an "
                      "earlier run, and they were removed since. Everything else was fetched; "
                      "change a seed, or restart the server, and run this again.")


def _say_folders(paths: Iterable[str]) -> None:
    for path in paths:
        say(f"A folder that stays on the server: {path}")
