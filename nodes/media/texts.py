"""Text files that people bring along, read in one way wherever they lie."""

from __future__ import annotations

import codecs
from pathlib import Path

from ..errors import LikenessError

_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path) -> str:
    """A text file in UTF-8, or UTF-16 where its byte order mark says so, without that mark.

    Other encodings do not say which one they are, and a wrong guess would train wrong words.

    Raises:
        FileNotFoundError: there is no such file.
        LikenessError: it cannot be opened, or is no such text; says which line is not.
    """
    try:
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except FileNotFoundError:
        raise
    except OSError as err:
        raise LikenessError(f"{path.name} cannot be read ({err.strerror or err}); give ComfyUI "
                            "access to it or remove it.") from err
    kind = "UTF-16" if data.startswith(_WIDE) else "UTF-8"
    try:
        text = data.decode(kind)
    except UnicodeDecodeError as err:
        line = data[:err.start].count(b"\n") + 1
        raise LikenessError(f"{path.name} is no {kind} text (line {line} holds the byte "
                            f"{data[err.start]:#04x}); open it in an editor and save it as UTF-8."
                            ) from err
    return text.replace("\r\n", "\n").replace("\r", "\n")
