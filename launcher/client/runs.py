"""Runs a prompt on a server and waits for its end, also over a connection that breaks."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..problems import Problem
from .api import Client, FileReference
from .refusals import (
    FailedPrompt,
    Forgotten,
    InterruptedPrompt,
    Prompt,
    Unreachable,
    failure_sentence,
)
from .websocket import WebSocket

Event = dict[str, Any]  # {"type": ..., "data": {...}} as the server sends it

PATIENCE = 120.0  # seconds for which a server elsewhere may be out of reach
_QUIET_SECONDS = 2.0  # after this long without a message, ask the history instead
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds between attempts to reach a server; the last repeats


@dataclass(frozen=True)
class Run:
    """A finished prompt."""

    prompt_id: str
    outputs: Mapping[str, Mapping[str, Any]]  # node id -> what its `ui` held
    seconds: float
    executed: frozenset[str] = field(default_factory=frozenset)  # ids that ran, not cached

    def files(self, node_id: str | None = None, kind: str = "output") -> tuple[FileReference, ...]:
        """Every file that the nodes (or one of them) report, of one of the server's folders."""
        found = []
        for node, output in self.outputs.items():
            if node_id in (None, node):
                for items in output.values():
                    found += [FileReference(item["filename"], item.get("subfolder", ""), kind)
                              for item in items if isinstance(item, dict)
                              and item.get("type") == kind and "filename" in item]
        return tuple(dict.fromkeys(found))

    def text(self, node_id: str) -> str:
        """What a node shows as text."""
        return "\n".join(str(line) for line in self.outputs.get(node_id, {}).get("text", ()))


def run(client: Client, prompt: Prompt, on_event: Callable[[Event], None] | None = None,
        timeout: float | None = None, patience: float = 0.0,
        on_queued: Callable[[str], None] = lambda prompt_id: None) -> Run:
    """Queue a prompt and wait until it has ended.

    Args:
        on_event: told each event about this prompt, from this thread.
        timeout: seconds after which the prompt is cancelled; None waits for ever.
        patience: seconds for which the server may be out of reach; what was queued once is not
            queued again.
        on_queued: told the prompt's id once the server has it.

    Raises:
        RejectedPrompt, FailedPrompt, InterruptedPrompt: it did not run to its end.
        Unreachable, Forgotten: the server went away, or was started anew.
        Problem: the time was up.
    """
    start = time.monotonic()
    socket = client.listen()  # before the prompt, so that nothing is missed
    try:
        prompt_id = _queue(client, prompt, patience)
    except BaseException:
        socket.close()
        raise
    on_queued(prompt_id)
    return _until_end(client, prompt, prompt_id, socket, on_event, timeout, patience, start)


def join(client: Client, prompt: Prompt, prompt_id: str,
         on_event: Callable[[Event], None] | None = None, patience: float = 0.0) -> Run:
    """Wait for a prompt that was queued before.

    Raises: as `run` does, of what can happen after queuing.
    """
    return _until_end(client, prompt, prompt_id, client.listen(), on_event, None, patience,
                      time.monotonic())


def _until_end(client: Client, prompt: Prompt, prompt_id: str, socket: WebSocket,
               on_event: Callable[[Event], None] | None, timeout: float | None, patience: float,
               start: float) -> Run:
    try:
        record = _Wait(client, prompt_id, on_event, patience,
                       None if timeout is None else start + timeout).until_end(socket)
    except BaseException as err:
        if not isinstance(err, Unreachable | Forgotten):
            client.interrupt(prompt_id)
        raise
    return finished(prompt, prompt_id, record, time.monotonic() - start)


def _queue(client: Client, prompt: Prompt, patience: float) -> str:
    """Queue a prompt once, however often the connection breaks; gives its id."""
    prompt_id, sent = str(uuid.uuid4()), False
    while True:
        try:
            # The request may have arrived before its answer was lost.
            if sent and client.knows(prompt_id):
                return prompt_id
            sent = True
            return client.queue(prompt, prompt_id)
        except Unreachable:
            if not _reached(client, patience):
                raise


def _reached(client: Client, patience: float) -> bool:
    """Whether the server answers again within some seconds."""
    end, attempt = time.monotonic() + patience, 0
    while time.monotonic() < end:
        time.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
        attempt += 1
        try:
            client.require_comfyui()
            return True
        except Unreachable:
            continue
    return False


@dataclass(frozen=True)
class _Wait:
    """Waiting for one prompt's end."""

    client: Client
    prompt_id: str
    on_event: Callable[[Event], None] | None
    patience: float
    deadline: float | None

    def until_end(self, socket: WebSocket) -> dict[str, Any]:
        """The history's record of the prompt."""
        while True:
            try:
                return self._listen(socket)
            except Unreachable as err:
                lost = err
            finally:
                socket.close()
            socket = self._connect_again(lost)

    def _connect_again(self, lost: Unreachable) -> WebSocket:
        while _reached(self.client, self.patience):
            try:
                self._require_known()
                return self.client.listen()
            except Unreachable as err:  # it went away between two questions
                lost = err
        raise Unreachable(f"The ComfyUI server on {self.client.url} went away while the workflow "
                          "ran; its log says why.") from lost

    def _listen(self, socket: WebSocket) -> dict[str, Any]:
        while self.deadline is None or time.monotonic() < self.deadline:
            message = self._next_message(socket)
            if isinstance(message, bytes):
                continue  # a preview picture
            if message and not self._ends(json.loads(message)):
                continue
            record = self.client.history(self.prompt_id)
            if record is not None:
                return record
        raise Problem("The workflow did not end in the time it was given; it has been cancelled.")

    def _next_message(self, socket: WebSocket) -> str | bytes:
        """What the server says next; empty when it says nothing for a while."""
        try:
            return socket.receive(_QUIET_SECONDS)
        except TimeoutError:
            return ""  # perhaps the last message was missed
        except OSError as err:
            raise Unreachable(f"The connection to {self.client.url} broke: {err}.") from err

    def _ends(self, event: Event) -> bool:
        data = event.get("data") or {}
        if data.get("prompt_id") != self.prompt_id:
            return False
        if self.on_event is not None:
            self.on_event(event)
        return event["type"] == "executing" and data.get("node") is None

    def _require_known(self) -> None:
        if self.client.knows(self.prompt_id):
            return
        raise Forgotten(f"The ComfyUI server on {self.client.url} was started anew and has "
                        "forgotten the workflow; run this again: training goes on where it "
                        "stopped.")


def finished(prompt: Prompt, prompt_id: str, record: Mapping[str, Any], seconds: float) -> Run:
    """What a prompt made, from the history's record.

    Raises:
        FailedPrompt, InterruptedPrompt: it did not run to its end.
    """
    messages = record.get("status", {}).get("messages", [])
    cached: set[str] = set()
    for kind, data in messages:
        if kind == "execution_error":
            raise FailedPrompt(failure_sentence(prompt, data), data)
        if kind == "execution_interrupted":
            raise InterruptedPrompt("The workflow was cancelled before it ended.")
        if kind == "execution_cached":
            cached.update(data.get("nodes", ()))
    return Run(prompt_id, record.get("outputs", {}), seconds, frozenset(set(prompt) - cached))
