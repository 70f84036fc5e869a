"""Runs one workflow for each person; what is done stays done, and nobody's failure stops others."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..client import runs
from ..client.api import Client
from ..client.photos import require_loader, upload_photos
from ..client.progress import Progress
from ..client.refusals import Prompt, Unreachable
from ..client.results import fetch
from ..client.workflows import read_settings, require_inputs, with_settings
from ..client.writing import write_whole
from ..console import complain, say
from ..problems import Problem
from .figures import figures
from .folders import Person

SUBJECT = "LikenessSubject"
STATE = "people.json"
DONE, FAILED, RUNNING, WAITING = "done", "failed", "running", "waiting"


@dataclass(frozen=True)
class Entry:
    """What is known of one person."""

    status: str = WAITING
    key: str = ""  # of the photos and the workflow that it was for
    server: str = ""
    prompt_id: str = ""  # while it runs
    seconds: float = 0.0
    files: tuple[str, ...] = ()  # fetched
    error: str = ""
    figures: dict[str, Any] | None = None


class Batch:
    """A batch of people on one server, with its state in OUT/people.json.

    Args:
        out: takes one folder for each person, and the state.
        patience: seconds for which the server may be out of reach.
    """

    def __init__(self, client: Client, prompt: Prompt, settings: Sequence[str], out: Path,
                 patience: float = 0.0) -> None:
        self.client, self.prompt, self.settings = client, prompt, tuple(settings)
        self.out, self.patience = out, patience
        self.entries = read_state(out)

    def run(self, people: Sequence[Person]) -> dict[str, Entry]:
        """Run whoever is not done yet; gives everybody's entry.

        Raises:
            Unreachable: the server went away; whoever is done stays done.
        """
        prompts = {person.name: self._prompt_of(person) for person in people}
        for number, person in enumerate(people, start=1):
            prompt = prompts[person.name]
            key = _key(person, prompt)
            entry = self.entries.get(person.name, Entry())
            head = f"[{number}/{len(people)}] {person.name}"
            if self._is_done(entry, key):
                say(f"{head}: done before")
                continue
            say(f"{head}: {len(person.photos)} photos")
            self._run_one(person, prompt, key, entry)
        return {person.name: self.entries[person.name] for person in people}

    def _prompt_of(self, person: Person) -> Prompt:
        """The workflow for one person, checked before anything runs."""
        texts = [*self.settings, *person.settings]
        try:
            settings = read_settings(self.prompt, texts)
            require_inputs(self.prompt, settings, self.client)
        except Unreachable:
            raise
        except Problem as problem:
            raise Problem(f"{person.name}: {problem}") from problem
        named = {f"{node}.name": person.name for node, content in self.prompt.items()
                 if content["class_type"] == SUBJECT}
        return with_settings(self.prompt, {**settings, **named})

    def _is_done(self, entry: Entry, key: str) -> bool:
        return entry.status == DONE and entry.key == key and all(
            (self.out / file).is_file() for file in entry.files)

    def _run_one(self, person: Person, prompt: Prompt, key: str, entry: Entry) -> None:
        started = time.monotonic()
        try:
            run = self._joined(prompt, key, entry) or self._started(person, prompt, key)
            found = fetch(self.client, run, self.out / person.name)
            made = Entry(DONE, key, files=tuple(path.relative_to(self.out).as_posix()
                                                for path in found.files),
                         figures=figures(run))
        except Unreachable:
            raise  # nobody else would fare better
        except Problem as problem:
            complain(f"{person.name}: {problem}")
            made = Entry(FAILED, key, error=str(problem))
        except KeyboardInterrupt:
            self._note(person.name, Entry(WAITING, key))
            raise
        self._note(person.name, replace(made, seconds=round(time.monotonic() - started, 1)))

    def _joined(self, prompt: Prompt, key: str, entry: Entry) -> runs.Run | None:
        """Wait for a run that an earlier batch has left on this server; None: there is none."""
        if entry.status != RUNNING or (entry.key, entry.server) != (key, self.client.url):
            return None
        if not self.client.knows(entry.prompt_id):
            return None
        say("  it still runs or has just ended; waiting for that")
        progress = Progress(prompt)
        try:
            return runs.join(self.client, prompt, entry.prompt_id, progress, self.patience)
        finally:
            progress.finish()

    def _started(self, person: Person, prompt: Prompt, key: str) -> runs.Run:
        folder, _ = upload_photos(self.client, list(person.photos), person.folder)
        given = with_settings(prompt, {f"{node}.folder": folder for node in require_loader(prompt)})
        progress = Progress(given)
        try:
            return runs.run(
                self.client, given, progress, patience=self.patience,
                on_queued=lambda prompt_id: self._note(
                    person.name, Entry(RUNNING, key, self.client.url, prompt_id)))
        finally:
            progress.finish()

    def _note(self, name: str, entry: Entry) -> None:
        self.entries[name] = entry
        told = {one: asdict(known) for one, known in sorted(self.entries.items())}
        write_whole(self.out / STATE, json.dumps(told, indent=1).encode())


def read_state(out: Path) -> dict[str, Entry]:
    """What an earlier batch has left in a folder; empty without one.

    Raises:
        Problem: the file is damaged or is something else.
    """
    file = out / STATE
    if not file.is_file():
        return {}
    try:
        plain = json.loads(file.read_text("utf-8"))
        return {name: Entry(**{**entry, "files": tuple(entry["files"])})
                for name, entry in plain.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as err:
        raise Problem(f"{file} is no state of a batch of people; move it away, and everybody is "
                      "run anew.") from err


def _key(person: Person, prompt: Prompt) -> str:
    return hashlib.sha256((person.key() + json.dumps(prompt, sort_keys=True)).encode()
                          ).hexdigest()[:16]
