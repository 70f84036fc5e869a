"""ICC profiles of RGB spaces, made from their colorants, and what their colours are in sRGB."""

from __future__ import annotations

import struct

import numpy as np

GAMMA = 563 / 256  # Adobe RGB's, as profiles hold it
# Name -> XYZ of red, green and blue under D50, one a column.
SPACES = {
    "Adobe RGB": [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322],
                  [0.01947, 0.06087, 0.74457]],
    "Display P3": [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657],
                   [-0.00105, 0.04189, 0.78407]],
    "ProPhoto": [[0.79767, 0.13519, 0.03134], [0.28803, 0.71187, 0.00009],
                 [0.00000, 0.00000, 0.82491]],
}
_SRGB = [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]


def profile(name: str) -> bytes:
    """A version 2 profile with three colorants and one gamma."""
    text = name.encode() + b"\0"
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 78,
            b"cprt": b"text\0\0\0\0none\0", b"wtpt": _xyz((0.9642, 1.0, 0.8249))}
    for place, channel in enumerate(b"rgb"):
        column = [row[place] for row in SPACES[name]]
        tags[bytes([channel]) + b"XYZ"] = _xyz(column)
        tags[bytes([channel]) + b"TRC"] = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, 563)
    table, body = struct.pack(">I", len(tags)), b""
    for tag, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        table += tag + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content
    head = struct.pack(">I4sI4s4s4s12s4s", 128 + len(table) + len(body), b"\0" * 4, 0x02400000,
                       b"mntr", b"RGB ", b"XYZ ", b"\0" * 12, b"acsp")
    head += b"\0" * 28 + _xyz((0.9642, 1.0, 0.8249))[8:]
    return head + b"\0" * (128 - len(head)) + table + body


def in_srgb(pixels: np.ndarray, name: str) -> np.ndarray:
    """What uint8 colours of a space are in sRGB, as uint8."""
    light = (pixels / 255.0) ** GAMMA @ (np.linalg.inv(_SRGB) @ np.array(SPACES[name])).T
    light = np.clip(light, 0, 1)
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.uint8(np.round(coded * 255))


def _xyz(values) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)
