"""Starts a ComfyUI process on a free port, waits until it answers, and stops it cleanly."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ..client.api import Client
from ..problems import Problem

ADDRESS = "127.0.0.1"
START_SECONDS = 300.0  # a first start on a slow disk compiles every module
_STOP_SECONDS = 15.0


@dataclass(frozen=True)
class Folders:
    """Where a host process reads and writes; None leaves ComfyUI's own choice."""

    base: Path | None = None  # models, custom_nodes, and whatever is not named below
    input: Path | None = None
    output: Path | None = None
    temp: Path | None = None
    user: Path | None = None

    def arguments(self) -> list[str]:
        """ComfyUI's options for these folders, which are made when missing."""
        found: list[str] = []
        for name in ("base", "input", "output", "temp", "user"):
            path: Path | None = getattr(self, name)
            if path is not None:
                path.mkdir(parents=True, exist_ok=True)
                found += [f"--{name}-directory", str(path.resolve())]
        if self.user is not None:
            found += ["--database-url", f"sqlite:///{(self.user / 'comfyui.db').resolve()}"]
        return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return probe.getsockname()[1]


def require_free(port: int) -> None:
    """Check that a port can be listened on.

    Raises:
        Problem: another program has it, or it is no port that this user may have.
    """
    if not 0 < port < 1 << 16:
        raise Problem(f"{port} is no port; choose one from 1024 to 65535 with --port.")
    with socket.socket() as probe:
        if os.name != "nt":  # there it would allow taking a port that is in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except PermissionError as err:
            raise Problem(f"Port {port} may not be used ({err.strerror}); choose one from 1024 to "
                          "65535 with --port.") from err
        except OSError as err:
            raise Problem(f"Port {port} is taken by another program; stop it or choose another "
                          "port with --port.") from err


# Importing torch takes seconds; on Linux every kind of GPU shows itself under /dev.
_GPU_DEVICES = ("nvidiactl", "kfd", "dxg", "dri/renderD*")


def sees_gpu(python: Path) -> bool:
    """Whether the host's torch has something better than the CPU to run on."""
    if sys.platform == "linux" and not any(
            found for name in _GPU_DEVICES for found in Path("/dev").glob(name)):
        return False
    code = ("import torch; print(torch.cuda.is_available() or "
            "(hasattr(torch, 'xpu') and torch.xpu.is_available()) or "
            "torch.backends.mps.is_available())")
    answer = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    return answer.stdout.strip() == "True"


class Server:
    """A ComfyUI process; leaving the `with` block stops it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process, self.log = process, log
        self.url = f"http://{ADDRESS}:{port}"

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.stop()

    def wait_until_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait for the first answer.

        Raises:
            Problem: the process ended, or did not answer in time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            code = self.process.poll()
            if code is not None:
                raise Problem(f"ComfyUI stopped while starting (exit code {code}): "
                              f"{self._last_words()} The whole log is {self.log}.")
            try:
                Client(self.url).get("/system_stats")
                return
            except Problem:
                time.sleep(0.1)
        raise Problem(f"ComfyUI did not answer on {self.url} within {seconds:.0f} s; "
                      f"its log is {self.log}.")

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f"{lines[-1].strip().rstrip('.')}." if lines else "it printed nothing."

    def stop(self) -> None:
        """Ask the process to end, and insist when it does not."""
        if self.process.poll() is None:
            soft = signal.CTRL_BREAK_EVENT if os.name == "nt" else signal.SIGINT
            for ask in (lambda: self.process.send_signal(soft), self.process.terminate,
                        self.process.kill):
                ask()
                try:
                    self.process.wait(_STOP_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    continue


def start(python: Path, comfyui: Path, log: Path, *, folders: Folders | None = None,
          port: int | None = None, cpu: bool | None = None, arguments: Sequence[str] = (),
          environment: Mapping[str, str] | None = None) -> Server:
    """Start ComfyUI and wait until it answers.

    Args:
        python: the interpreter of the host's environment.
        comfyui: the folder of `main.py`.
        log: everything the process prints.
        port: None for a free one.
        cpu: None to ask torch whether there is a GPU.
        arguments: further options for ComfyUI.
        environment: variables that the process gets beside the user's.

    Raises:
        Problem: the port is taken, or the process does not come up.
    """
    if port is None:
        port = free_port()
    else:
        require_free(port)
    command = [str(python), "-u", str(comfyui / "main.py"), "--listen", ADDRESS, "--port",
               str(port), "--disable-auto-launch", *(folders or Folders()).arguments(), *arguments]
    if cpu if cpu is not None else not sees_gpu(python):
        command.append("--cpu")
    log.parent.mkdir(parents=True, exist_ok=True)
    flags = subprocess.CREATE_NEW_PROCESS_GROUP if sys.platform == "win32" else 0
    with log.open("wb") as output:
        # Its own session: a Ctrl-C in the terminal reaches the launcher, which stops the host.
        process = subprocess.Popen(command, cwd=comfyui, stdout=output,
                                   env={**os.environ, **(environment or {})},
                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   start_new_session=os.name != "nt", creationflags=flags)
    server = Server(process, port, log)
    try:
        server.wait_until_ready()
    except BaseException:
        server.stop()
        raise
    return server
