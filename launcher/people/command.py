"""`run.py people`: the whole path for everybody in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..client.api import Client
from ..client.photos import require_loader
from ..client.refusals import Prompt
from ..client.runs import PATIENCE
from ..client.workflows import load_workflow
from ..client.writing import require_folder
from ..console import say
from ..demo.prompts import WORKFLOW
from ..hosts.attach import ready_host
from ..problems import Problem
from ..queue import local_server
from .batch import DONE, Batch, Entry, read_state
from .figures import table
from .folders import Person, list_people


@dataclass(frozen=True)
class PeopleRequest:
    """Whom to run, with what, and where the results go."""

    folder: Path
    out: Path
    workflow: Path = WORKFLOW
    settings: tuple[str, ...] = ()  # node.input=value, for everybody
    server: str | None = None
    comfyui: str | None = None
    python: str | None = None


class SomeFailed(Problem):
    """Not everybody's run came to its end."""

    code = 8


def run_people(request: PeopleRequest) -> None:
    """Run a workflow for every person and print the table.

    Raises:
        SomeFailed: names them; everybody else is done.
        Problem: anything else that the user can mend; most of it before a server is touched.
    """
    people = list_people(request.folder)
    prompt = load_workflow(request.workflow)
    require_loader(prompt)
    require_folder(request.out, "--out")
    read_state(request.out)  # what cannot be read is told before anything runs
    if request.server is not None:
        client = Client(request.server)
        client.require_comfyui()
        entries = _run(client, request, prompt, people, PATIENCE)
    else:
        with local_server(ready_host(request.comfyui, request.python)) as running:
            entries = _run(Client(running.url), request, prompt, people, 0.0)
    failed = [name for name, entry in entries.items() if entry.status != DONE]
    if failed:
        raise SomeFailed(f"{len(failed)} of {len(entries)} people failed ({', '.join(failed)}); "
                         "mend what is said of them above and run this again: whoever is done "
                         "stays done.")


def _run(client: Client, request: PeopleRequest, prompt: Prompt, people: list[Person],
         patience: float) -> Mapping[str, Entry]:
    batch = Batch(client, prompt, request.settings, request.out, patience)
    entries = batch.run(people)
    for line in table(entries):
        say(line)
    return entries
