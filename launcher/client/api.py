"""Talks to a ComfyUI server: uploads, the queue, history, files, and errors in words."""

from __future__ import annotations

import http.client
import json
import mimetypes
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..problems import Problem
from .refusals import Prompt, RejectedPrompt, Unreachable, rejection_sentence
from .websocket import WebSocket
from .writing import write_whole

# A proxy for the internet must not swallow requests to this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class FileNotGiven(Problem):
    """The server does not give a file away."""


@dataclass(frozen=True)
class FileReference:
    """A file on the server."""

    filename: str
    subfolder: str = ""
    type: str = "output"


def server_address(text: str) -> str:
    """The address of a server as a user may write it, `http://` added when no scheme is given.

    Raises:
        Problem: it is no address of a web server.
    """
    url = text.strip().rstrip("/")
    url = url if "://" in url else f"http://{url}"
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, or too large
        usable = False
    if not usable:
        raise Problem(f"`{text}` is no address of a ComfyUI server; give one such as "
                      "http://127.0.0.1:8188.")
    return url


class Client:
    """One user of a ComfyUI server."""

    def __init__(self, url: str) -> None:
        self.url = server_address(url)
        self.id = uuid.uuid4().hex

    @property
    def is_here(self) -> bool:
        """Whether the server runs on this machine, so that its paths are those of this one."""
        return urllib.parse.urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")

    def _request(self, path: str, data: bytes | None = None,
                 headers: Mapping[str, str] | None = None) -> bytes:
        request = urllib.request.Request(self.url + path, data=data, headers=dict(headers or {}))
        try:
            with _OPENER.open(request, timeout=120) as answer:
                return answer.read()
        except urllib.error.HTTPError:
            raise
        except (OSError, http.client.HTTPException) as err:
            reason = getattr(err, "reason", None) or err
            raise self._no_answer(reason) from err

    def _no_answer(self, reason: object) -> Unreachable:
        return Unreachable(f"No ComfyUI server answers on {self.url} ({reason}); start one with "
                           "`python run.py serve` or give its address with --server.")

    def listen(self) -> WebSocket:
        """A connection over which the server tells of this client's prompts.

        Raises:
            Unreachable: nobody answers.
        """
        scheme, _, rest = self.url.partition("://")
        try:
            return WebSocket(f"{'wss' if scheme == 'https' else 'ws'}://{rest}/ws"
                             f"?clientId={self.id}")
        except OSError as err:
            raise self._no_answer(err) from err

    def get(self, path: str, **query: str) -> Any:
        """GET a path and decode its JSON."""
        text = f"{path}?{urllib.parse.urlencode(query)}" if query else path
        try:
            return json.loads(self._request(text))
        except urllib.error.HTTPError as err:
            raise self._no_comfyui(f"{err.code} {err.reason} for {path}") from err
        except ValueError as err:
            raise self._no_comfyui(f"no JSON for {path}") from err

    def _no_comfyui(self, answer: str) -> Problem:
        return Problem(f"The server on {self.url} does not answer as ComfyUI does ({answer}); "
                       "check the address that --server gives.")

    def require_comfyui(self) -> None:
        """Check that the server is a ComfyUI.

        Raises:
            Problem: nobody answers, or something else does.
        """
        answer = self.get("/system_stats")
        if not isinstance(answer, dict) or "system" not in answer:
            raise self._no_comfyui("no `system` in /system_stats")

    def post(self, path: str, body: Any) -> Any:
        """POST JSON; None when the answer is empty."""
        answer = self._request(path, json.dumps(body).encode(),
                               {"Content-Type": "application/json"})
        return json.loads(answer) if answer.strip() else None

    def object_info(self, node_class: str | None = None) -> dict[str, Any]:
        """The server's nodes by class, or one of them; empty when there is none of that name."""
        name = f"/{urllib.parse.quote(node_class)}" if node_class else ""
        return self.get(f"/object_info{name}")

    def model_names(self, folder: str) -> list[str]:
        """The files in one of the host's model folders."""
        return self.get(f"/models/{urllib.parse.quote(folder)}")

    def upload(self, file: Path, subfolder: str) -> str:
        """Put a file into a subfolder of the server's input folder; return the name it got there.

        Raises:
            Problem: the file cannot be read, or the server does not take it.
        """
        try:
            content = file.read_bytes()
        except OSError as err:
            raise Problem(f"{file} could not be read: {err.strerror}; put it back or run this "
                          "again without it.") from err
        boundary = uuid.uuid4().hex
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        quoted = file.name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        fields = (f'--{boundary}\r\nContent-Disposition: form-data; name="subfolder"\r\n\r\n'
                  f'{subfolder}\r\n--{boundary}\r\nContent-Disposition: form-data; '
                  f'name="image"; filename="{quoted}"\r\nContent-Type: {kind}\r\n\r\n')
        body = fields.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        try:
            answer = self._request("/upload/image", body, {
                "Content-Type": f"multipart/form-data; boundary={boundary}"})
        except urllib.error.HTTPError as err:
            raise Problem(f"The server did not take {file.name} ({err.code} {err.reason}); "
                          "check the file and the server's log.") from err
        return str(json.loads(answer)["name"])

    def download(self, file: FileReference, target: Path) -> Path:
        """Fetch a file from the server; it appears under `target` only when it is whole.

        Raises:
            FileNotGiven: the server has no such file, or keeps it.
            Problem: it cannot be written.
        """
        query = urllib.parse.urlencode({"filename": file.filename, "subfolder": file.subfolder,
                                        "type": file.type})
        try:
            data = self._request(f"/view?{query}")
        except urllib.error.HTTPError as err:
            raise FileNotGiven(f"The server does not give {file.filename} away ({err.code} "
                               f"{err.reason}); look in its {file.type} folder.") from err
        return write_whole(target, data)

    def queue(self, prompt: Prompt, prompt_id: str = "") -> str:
        """Put a prompt into the queue and return its id.

        Args:
            prompt_id: what it shall be called; empty: a new one.

        Raises:
            RejectedPrompt: the server found a mistake in it, also when it would run the rest.
            Unreachable: nobody answers; it may have been queued.
        """
        try:
            answer = self.post("/prompt", {"prompt": prompt, "client_id": self.id,
                                           "prompt_id": prompt_id or str(uuid.uuid4())})
        except urllib.error.HTTPError as err:
            refusal = _json_or_empty(err.read())
            raise RejectedPrompt(rejection_sentence(prompt, refusal), refusal) from err
        if answer.get("node_errors"):
            self.post("/queue", {"delete": [answer["prompt_id"]]})
            self.interrupt(answer["prompt_id"])
            raise RejectedPrompt(rejection_sentence(prompt, answer), answer)
        return str(answer["prompt_id"])

    def interrupt(self, prompt_id: str) -> None:
        """Cancel a running prompt."""
        self.post("/interrupt", {"prompt_id": prompt_id})

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """What the server remembers of a finished prompt; None while it has not ended."""
        return self.get(f"/history/{prompt_id}").get(prompt_id)

    def knows(self, prompt_id: str) -> bool:
        """Whether a prompt waits, runs, or has ended."""
        return self.is_queued(prompt_id) or self.history(prompt_id) is not None

    def is_queued(self, prompt_id: str) -> bool:
        """Whether a prompt runs or waits."""
        queue = self.get("/queue")
        return any(entry[1] == prompt_id for part in ("queue_running", "queue_pending")
                   for entry in queue.get(part, ()))


def _json_or_empty(data: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(data)
    except ValueError:
        return {"error": {"message": data.decode(errors="replace")[:200]}}
    return answer if isinstance(answer, dict) else {}
