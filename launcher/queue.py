"""`run.py queue` and `fetch`: a workflow file on a server, with photos in and pictures out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .client import runs
from .client.api import Client
from .client.photos import list_photos, require_loader, upload_photos
from .client.progress import Progress
from .client.refusals import Prompt
from .client.results import fetch, reported_folders, reported_paths
from .client.runs import Run
from .client.workflows import load_workflow, read_settings, require_inputs, with_settings
from .client.writing import require_file_place, require_folder, write_whole
from .console import say, step
from .hosts import server
from .hosts.attach import ready_host
from .hosts.host import ROOT, Host
from .problems import Problem

LOG = ROOT / ".host" / "server.log"
TEMP = ROOT / ".host" / "temp"  # of servers that live for one run


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
    json: Path | None = None  # takes what came of it
    wait: bool = True  # until it has ended


@contextmanager
def local_server(host: Host, environment: Mapping[str, str] | None = None) -> (
        Iterator[server.Server]):
    """A server of the host for the time of the block, with a temporary folder of its own.

    Args:
        environment: variables that the host gets beside the user's.
    """
    folders = server.Folders(temp=TEMP)
    with step("Starting ComfyUI"):
        running = server.start(host.python, host.comfyui, LOG, folders=folders,
                               environment=environment)
    with running:
        yield running


def run_with_progress(client: Client, prompt: Prompt, patience: float = 0.0) -> Run:
    """Run a prompt and show how far it is."""
    progress = Progress(prompt)
    try:
        return runs.run(client, prompt, progress, patience=patience)
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
    _check_places(request.out, request.json)
    if not request.wait:
        _check_no_wait(request)
    if request.server is None:
        with local_server(ready_host(request.comfyui, request.python)) as running:
            _run(Client(running.url), request, prompt, settings, photos, loaders)
        return
    client = Client(request.server)
    client.require_comfyui()
    _run(client, request, prompt, settings, photos, loaders)


def _check_places(out: Path | None, json_file: Path | None) -> None:
    if out is not None:
        require_folder(out, "--out")
    if json_file is not None:
        require_file_place(json_file, "--json")


def _check_no_wait(request: Request) -> None:
    if request.server is None:
        raise Problem("`--no-wait` needs a server that stays; name it with --server.")
    if request.out is not None or request.json is not None:
        raise Problem("`--no-wait` ends before there is anything to fetch; leave `--out` and "
                      "`--json` out, and give them to `python run.py fetch`.")


def _run(client: Client, request: Request, prompt: Prompt, settings: dict[str, object],
         photos: list[Path], loaders: list[str]) -> None:
    require_inputs(prompt, settings, client)
    prompt = with_settings(prompt, settings)
    if photos:
        folder, others = upload_photos(client, photos, request.photos)
        beside = f" and {others} captions, masks and other files of theirs" if others else ""
        say(f"Uploaded {len(photos)} photos{beside} to the server's input folder `{folder}`.")
        prompt = with_settings(prompt, {f"{node}.folder": folder for node in loaders})
    if not request.wait:
        say(f"Queued as {client.queue(prompt)}; python run.py fetch does the rest.")
        return
    run = run_with_progress(client, prompt, 0.0 if request.server is None else runs.PATIENCE)
    say(f"Done in {run.seconds:.1f} s.")
    _deliver(client, run, request.out, request.json)


def run_fetch(address: str, prompt_id: str, out: Path | None, json_file: Path | None) -> None:
    """Tell of a workflow that was queued, and fetch what it made.

    Raises:
        FailedPrompt, InterruptedPrompt: it did not run to its end.
        Problem: it has not ended, or the server does not know it.
    """
    _check_places(out, json_file)
    client = Client(address)
    client.require_comfyui()
    record = client.history(prompt_id)
    if record is None:
        if client.is_queued(prompt_id):
            raise Unfinished(f"The workflow {prompt_id} has not ended; ask again later.")
        raise Problem(f"The server on {client.url} knows no workflow {prompt_id}; check the id. A "
                      "server forgets its workflows when it is started anew.")
    prompt = record["prompt"][2]  # number, id, prompt, ...
    _deliver(client, runs.finished(prompt, prompt_id, record, 0.0), out, json_file)


class Unfinished(Problem):
    """A workflow still runs or waits."""

    code = 7


def _deliver(client: Client, run: Run, out: Path | None, json_file: Path | None) -> None:
    """Say and write where everything is, fetched where it was asked."""
    told: dict[str, object] = {"prompt_id": run.prompt_id, "seconds": round(run.seconds, 1)}
    if out is None:
        made = [f"{file.subfolder + '/' if file.subfolder else ''}{file.filename}"
                for file in run.files()]
        folders, paths = list(reported_folders(run)), list(reported_paths(run))
        _say_folders(folders)
        say("Files in the server's output folder:")
        for text in (*made, *paths):
            say(f"  {text}")
        _write_told(json_file, {**told, "files": made + paths, "folders_left": folders})
        return
    fetched = fetch(client, run, out)
    _say_folders(fetched.folders_left)
    for path in (*fetched.files, *fetched.folders):
        say(f"  {path}")
    for text in fetched.left:
        say(f"Not fetched, because the server gives away only what lies in its output folder; it "
            f"is there as {text}, unless it was removed since.")
    _write_told(json_file, {
        **told, "files": [str(path) for path in (*fetched.files, *fetched.folders)],
        "folders_left": list(fetched.folders_left), "left": list(fetched.left),
        "gone": list(fetched.gone)})
    if fetched.gone:
        raise Problem(f"{len(fetched.gone)} of the pictures are gone from the server's output "
                      f"folder ({', '.join(fetched.gone[:3])}): it answered from its memory of an "
                      "earlier run, and they were removed since. Everything else was fetched; "
                      "change a seed, or restart the server, and run this again.")


def _write_told(file: Path | None, told: Mapping[str, object]) -> None:
    if file is not None:
        write_whole(file, json.dumps(told, indent=1).encode())


def _say_folders(paths: Iterable[str]) -> None:
    for path in paths:
        say(f"A folder that stays on the server: {path}")
