"""A client for text messages over WebSocket (RFC 6455), with the standard library alone."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
import struct
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_CONTINUATION = 0x0
_ACCEPT_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class ConnectionClosed(ConnectionError):
    """The server ended the connection."""


@dataclass(frozen=True)
class Frame:
    """One frame as it travels."""

    opcode: int
    payload: bytes
    final: bool = True


def decode_frame(data: bytes | bytearray) -> tuple[Frame, int] | None:
    """Read one frame from the start of `data`.

    Returns:
        The frame and how many bytes it took, or None when more bytes are needed.
    """
    if len(data) < 2:
        return None
    final, opcode = bool(data[0] & 0x80), data[0] & 0x0F
    masked, length, start = bool(data[1] & 0x80), data[1] & 0x7F, 2
    if length >= 126:
        layout = "!H" if length == 126 else "!Q"
        start += struct.calcsize(layout)
        if len(data) < start:
            return None
        (length,) = struct.unpack_from(layout, data, 2)
    key = b""
    if masked:
        key = bytes(data[start:start + 4])
        start += 4
    end = start + length
    if len(data) < end:
        return None
    payload = bytes(data[start:end])
    return Frame(opcode, _mask(payload, key) if masked else payload, final), end


def encode_frame(frame: Frame, key: bytes) -> bytes:
    """Write one frame as a client must: masked with four random bytes."""
    first = frame.opcode | (0x80 if frame.final else 0)
    length = len(frame.payload)
    if length < 126:
        header = struct.pack("!BB", first, 0x80 | length)
    elif length < 1 << 16:
        header = struct.pack("!BBH", first, 0x80 | 126, length)
    else:
        header = struct.pack("!BBQ", first, 0x80 | 127, length)
    return header + key + _mask(frame.payload, key)


def _mask(payload: bytes, key: bytes) -> bytes:
    if not payload or len(key) < 4:
        return payload
    repeated = (key * (len(payload) // 4 + 1))[:len(payload)]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return mixed.to_bytes(len(payload), "big")


class WebSocket:
    """A connection to a `ws://` or `wss://` address."""

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        """Connect and shake hands.

        Raises:
            ConnectionError, OSError: nobody answers there, or not with WebSocket.
        """
        parts = urlsplit(url)
        secure = parts.scheme == "wss"
        host, port = parts.hostname or "127.0.0.1", parts.port or (443 if secure else 80)
        self._socket = socket.create_connection((host, port), timeout)
        if secure:
            context = ssl.create_default_context()
            self._socket = context.wrap_socket(self._socket, server_hostname=host)
        self._received = bytearray()
        self._message, self._kind = bytearray(), TEXT
        path = parts.path or "/"
        self._shake_hands(f"{host}:{port}", f"{path}?{parts.query}" if parts.query else path)

    def _shake_hands(self, host: str, path: str) -> None:
        key = base64.b64encode(os.urandom(16))
        request = (f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
                   f"Connection: Upgrade\r\nSec-WebSocket-Key: {key.decode()}\r\n"
                   "Sec-WebSocket-Version: 13\r\n\r\n")
        self._socket.sendall(request.encode())
        while b"\r\n\r\n" not in self._received:
            self._read_more()
        head, _, rest = bytes(self._received).partition(b"\r\n\r\n")
        self._received = bytearray(rest)
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip()
                   for name, _, value in (line.partition(":") for line in lines)}
        expected = base64.b64encode(hashlib.sha1(key + _ACCEPT_SUFFIX).digest()).decode()
        if " 101 " not in f"{status} " or headers.get("sec-websocket-accept") != expected:
            self._socket.close()
            raise ConnectionError(f"{host} did not open a WebSocket: {status}")

    def _read_more(self) -> None:
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionClosed("the server ended the connection")
        self._received += data

    def receive(self, timeout: float) -> str | bytes:
        """Wait for the next whole message; text comes as str, binary as bytes.

        Raises:
            TimeoutError: nothing complete arrived in time; what did arrive is kept.
            ConnectionClosed: the server ended the connection.
        """
        deadline = time.monotonic() + timeout
        while True:
            decoded = decode_frame(self._received)
            if decoded is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("no message arrived in time")
                self._socket.settimeout(left)
                self._read_more()
                continue
            frame, used = decoded
            del self._received[:used]
            message = self._take(frame)
            if message is not None:
                return message

    def _take(self, frame: Frame) -> str | bytes | None:
        if frame.opcode == CLOSE:
            raise ConnectionClosed("the server ended the connection")
        if frame.opcode == PING:
            self._send(Frame(PONG, frame.payload))
            return None
        if frame.opcode not in (TEXT, BINARY, _CONTINUATION):
            return None
        if frame.opcode != _CONTINUATION:
            self._kind, self._message = frame.opcode, bytearray()
        self._message += frame.payload
        if not frame.final:
            return None
        whole = bytes(self._message)
        return whole.decode() if self._kind == TEXT else whole

    def _send(self, frame: Frame) -> None:
        self._socket.settimeout(10.0)
        self._socket.sendall(encode_frame(frame, os.urandom(4)))

    def send_text(self, text: str) -> None:
        """Send one text message."""
        self._send(Frame(TEXT, text.encode()))

    def close(self) -> None:
        """Say goodbye and hang up; never fails."""
        try:
            self._send(Frame(CLOSE, struct.pack("!H", 1000)))
        except OSError:
            pass  # the other side may have gone already
        self._socket.close()
