"""Shows a running workflow: one live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

from .refusals import Prompt, node_title
from .runs import Event

_BAR = 24  # characters
_QUIET_SECONDS = 10.0  # between plain lines of one node


class Progress:
    """Receives the server's events about one prompt and prints where it is.

    Args:
        prompt: what runs; gives titles and the number of nodes.
        live: redraw one line; None when `stream` is a terminal.
    """

    def __init__(self, prompt: Prompt, stream: TextIO | None = None,
                 live: bool | None = None) -> None:
        self._prompt, self._stream = prompt, stream or sys.stdout
        self._live = self._stream.isatty() if live is None else live
        self._done: set[str] = set()
        self._current: str | None = None
        self._steps = (0, 0)  # done, of
        self._started = self._node_started = self._printed = time.monotonic()

    def __call__(self, event: Event) -> None:
        data = event.get("data") or {}
        match event.get("type"):
            case "execution_cached":
                self._done.update(node for node in data.get("nodes", ()) if node in self._prompt)
            case "executing":
                self._enter(data.get("node"))
            case "executed":
                self._done.add(data.get("node"))
            case "progress":
                if data.get("node") == self._current:
                    self._advance(int(data.get("value", 0)), int(data.get("max", 0)))

    def _enter(self, node: str | None) -> None:
        if self._current is not None:
            self._done.add(self._current)
        self._current, self._steps = node, (0, 0)
        self._node_started = time.monotonic()
        if node is None:
            self.finish()
        elif self._live:
            self._redraw()
        else:
            self._line(f"[{len(self._done & self._prompt.keys()) + 1}/{len(self._prompt)}] "
                       f"{node_title(self._prompt, node)}")

    def _advance(self, value: int, total: int) -> None:
        self._steps = (value, total)
        if self._live:
            self._redraw()
        elif total > 1 and (value == total
                            or time.monotonic() - self._printed > _QUIET_SECONDS):
            self._line(f"    {value}/{total}{self._pace()}")

    def _pace(self) -> str:
        done, _ = self._steps
        seconds = time.monotonic() - self._node_started
        return f", {seconds / done:.2f} s each" if done and seconds > 1 else ""

    def _line(self, text: str) -> None:
        self._printed = time.monotonic()
        print(text, file=self._stream, flush=True)

    def _redraw(self) -> None:
        done, total = self._steps
        finished = len(self._done & self._prompt.keys())
        share = (finished + (done / total if total else 0.0)) / max(1, len(self._prompt))
        filled = round(min(1.0, share) * _BAR)
        steps = f" {done}/{total}{self._pace()}" if total > 1 else ""
        text = (f"[{'#' * filled}{'.' * (_BAR - filled)}] {finished}/{len(self._prompt)} "
                f"{node_title(self._prompt, self._current or '')}{steps} "
                f"({time.monotonic() - self._started:.0f} s)")
        width = shutil.get_terminal_size().columns - 1
        self._stream.write("\r" + text[:width].ljust(width))
        self._stream.flush()

    def finish(self) -> None:
        """Clear the live line, so that what follows starts on a clean one."""
        if self._live:
            self._stream.write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
            self._stream.flush()
