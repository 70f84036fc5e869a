"""A TCP proxy before a server whose connections break when a test says so."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress


class FlakyProxy:
    """Passes bytes on, until told otherwise.

    Attributes:
        swallow: answers to requests that begin so are lost once, after the server has given them.
        url: where it listens.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.swallow = b""
        self.refused_until = 0.0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, seconds: float) -> None:
        """Break every connection, and all that come within some seconds."""
        self.refused_until = time.monotonic() + seconds
        for one in self._open:
            _end(one)
        self._open.clear()

    def close(self) -> None:
        """Listen no more."""
        self.cut(0)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if time.monotonic() < self.refused_until:
                    _end(client)
                    continue
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            server = socket.create_connection(self._target)
            self._open += [client, server]
            first = client.recv(1 << 16)
            server.sendall(first)
            lost = bool(self.swallow) and first.startswith(self.swallow)
            if lost:
                self.swallow = b""
            threading.Thread(target=_pump, args=(client, server), daemon=True).start()
            if lost:
                server.recv(1 << 16)
                _end(client)
            else:
                _pump(server, client)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    _end(target)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
