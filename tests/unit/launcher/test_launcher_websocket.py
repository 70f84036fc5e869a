"""The WebSocket client against a real socket server that speaks the protocol byte by byte."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import threading

import pytest

from launcher.client.websocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    ConnectionClosed,
    Frame,
    WebSocket,
    decode_frame,
    encode_frame,
)


def server_frame(opcode: int, payload: bytes, final: bool = True) -> bytes:
    """A frame as a server sends it: not masked."""
    first = opcode | (0x80 if final else 0)
    if len(payload) < 126:
        return struct.pack("!BB", first, len(payload)) + payload
    if len(payload) < 1 << 16:
        return struct.pack("!BBH", first, 126, len(payload)) + payload
    return struct.pack("!BBQ", first, 127, len(payload)) + payload


class Peer(threading.Thread):
    """Accepts one connection, answers the handshake, sends given bytes, keeps what it receives."""

    def __init__(self, script: list[bytes], accept: bytes | None = None) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self.listener.getsockname()[1]}/ws?clientId=abc"
        self.script, self.accept = script, accept
        self.request, self.received = b"", b""
        self.go_on = threading.Event()

    def run(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            while b"\r\n\r\n" not in self.request:
                self.request += connection.recv(4096)
            key = next(line.split(b": ")[1] for line in self.request.split(b"\r\n")
                       if line.lower().startswith(b"sec-websocket-key"))
            accept = self.accept or base64.b64encode(hashlib.sha1(
                key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                               b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept
                               + b"\r\n\r\n")
            for part in self.script:
                if part == b"wait":
                    self.go_on.wait(10)
                else:
                    connection.sendall(part)
            connection.settimeout(1)
            try:
                while data := connection.recv(4096):
                    self.received += data
            except OSError:
                pass


@pytest.fixture
def connect():
    """Connect to a peer with a script; give both ends."""
    opened = []

    def start(*script: bytes) -> tuple[WebSocket, Peer]:
        peer = Peer(list(script))
        peer.start()
        client = WebSocket(peer.url)
        opened.append(client)
        return client, peer

    yield start
    for client in opened:
        client.close()


@pytest.mark.parametrize("size", [0, 5, 125, 126, 65535, 65536])
def test_text_of_every_length_class_arrives_whole(connect, size):
    text = "x" * size
    client, _ = connect(server_frame(TEXT, text.encode()))
    assert client.receive(5) == text


def test_binary_messages_come_as_bytes(connect):
    client, _ = connect(server_frame(BINARY, b"\x00\xff"))
    assert client.receive(5) == b"\x00\xff"


def test_a_message_in_pieces_is_joined_even_with_a_ping_between(connect):
    client, peer = connect(server_frame(TEXT, b"one ", final=False), server_frame(PING, b"hi"),
                           server_frame(0, b"two ", final=False), server_frame(0, b"three"))
    assert client.receive(5) == "one two three"
    client.close()
    peer.join(5)
    frame, used = decode_frame(peer.received)
    assert (frame.opcode, frame.payload) == (PONG, b"hi")
    assert decode_frame(peer.received[used:])[0].opcode == CLOSE


def test_half_a_frame_survives_a_timeout(connect):
    whole = server_frame(TEXT, b"late but whole")
    client, peer = connect(whole[:5], b"wait", whole[5:])
    with pytest.raises(TimeoutError):
        client.receive(0.2)
    peer.go_on.set()
    assert client.receive(5) == "late but whole"


def test_a_close_frame_ends_the_connection(connect):
    client, _ = connect(server_frame(CLOSE, b"\x03\xe8"))
    with pytest.raises(ConnectionClosed):
        client.receive(5)


def test_the_request_names_path_and_query(connect):
    client, peer = connect(server_frame(TEXT, b"ok"))
    client.receive(5)
    assert peer.request.startswith(b"GET /ws?clientId=abc HTTP/1.1\r\n")


def test_a_wrong_handshake_is_refused():
    peer = Peer([], accept=b"nonsense")
    peer.start()
    with pytest.raises(ConnectionError, match="did not open a WebSocket"):
        WebSocket(peer.url)


def test_what_the_client_sends_is_masked_and_reads_back():
    sent = encode_frame(Frame(TEXT, b"hello" * 50), b"\x01\x02\x03\x04")
    assert sent[1] & 0x80 and b"hello" not in sent
    frame, used = decode_frame(sent)
    assert (frame.payload, used) == (b"hello" * 50, len(sent))
