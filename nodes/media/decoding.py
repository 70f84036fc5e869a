"""Picture files by what they hold, whatever they are called, opened within stated bounds."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, UnidentifiedImageError, features

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff",
                        ".heic", ".heif", ".avif", ".gif", ".jp2"})
WHOLE = 178_956_970  # pixels, Pillow's own limit; larger JPEGs are decoded at half their sides
LARGEST = 512_000_000  # pixels; libjpeg holds the whole of a progressive file
# What Pillow's readers raise on damaged files, beside OSError.
DAMAGED = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError,
           MemoryError, Image.DecompressionBombError)
_HEADS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF8": "GIF",
          b"II*\0": "TIFF", b"MM\0*": "TIFF", b"\xff\x4f\xff\x51": "JPEG 2000",
          b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000"}
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_FULL = "likeness_full_size"  # where an opened picture says what it was before it was reduced
_FEATURES = {"AVIF": "avif", "JPEG 2000": "jpg_2000"}  # what Pillow calls the readers it may lack


class RefusedError(OSError):
    """A picture that is not read, for a reason that is a sentence of its own."""


def kind_of(head: bytes) -> str:
    """The format that a file's first 64 bytes tell; empty when it is none that is read."""
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[at:at + 4] for at in range(16, len(head), 4))}
        return "AVIF" if brands & {b"avif", b"avis"} else "HEIC" if head[8:12] in _HEIF else ""
    if head[:4] == b"RIFF":
        return "WebP" if head[8:12] == b"WEBP" else ""
    if head[:2] == b"BM":
        return "BMP" if head[6:10] == b"\0\0\0\0" else ""
    return next((kind for start, kind in _HEADS.items() if head.startswith(start)), "")


def is_photo(path: Path) -> bool:
    """Whether a file is to be read as a photo: by its name, or by what it holds."""
    if not path.is_file():
        return False
    if path.suffix.lower() in EXTENSIONS:
        return True  # also when it is damaged, which the user shall hear
    try:
        with path.open("rb") as file:
            kind = kind_of(file.read(64))
    except OSError:
        return False
    # Cameras' raw files are TIFF, too, and what Pillow finds in them is a thumbnail.
    return bool(kind) and (kind != "TIFF" or not path.suffix)


@functools.cache
def heif_is_readable() -> bool:
    """Whether the optional HEIC reader is there; teaches Pillow to use it."""
    try:
        from pillow_heif import register_heif_opener  # optional package
    except ImportError:
        return False
    register_heif_opener()
    return True


@contextlib.contextmanager
def opened(source: Path | str | bytes, least: int | None = None,
           reduced: int = 1) -> Iterator[Image.Image]:
    """A picture as Pillow opens it, by a path or by the bytes of its file.

    Args:
        least: pixels a side that will do; JPEGs decode smaller and faster then.
        reduced: 1, 2, 4 or 8, how many times fewer pixels a side a JPEG is decoded with than it is
            read with otherwise; other files stay as they are.

    Raises:
        RefusedError: it has too many pixels, or its reader is missing.
        OSError, or another of `DAMAGED`: it cannot be read.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        kind = kind_of(file.read(64))
        file.seek(0)
        if kind == "HEIC" and not heif_is_readable():
            raise RefusedError("HEIC photos need the Python package pillow-heif; install it or "
                               "save the photo as JPEG.")
        with _open(file, kind) as picture:
            if least is not None:
                picture.draft("RGB", (least, least))
            else:
                _reduce(picture, kind, reduced)
            yield picture


def _open(file: io.BufferedIOBase, kind: str) -> Image.Image:
    try:
        return Image.open(file)
    except UnidentifiedImageError as err:
        if _FEATURES.get(kind) in (None, *features.get_supported()):
            raise
        raise RefusedError(f"{kind} photos need a newer Pillow than this Python has; update it or "
                           "save the photo as JPEG.") from err
    except Image.DecompressionBombError as err:
        if kind != "JPEG":
            raise _too_large(kind) from err
    from PIL.JpegImagePlugin import JpegImageFile  # opened past the limit, to be read reduced

    file.seek(0)
    return JpegImageFile(file)


def _reduce(picture: Image.Image, kind: str, reduced: int) -> None:
    """Have a JPEG decoded smaller, in one step: a second `draft` would count from the first."""
    width, height = picture.size
    if width * height > WHOLE:
        if kind != "JPEG" or width * height > LARGEST:
            raise _too_large(kind)
        picture.info[_FULL] = (width, height)
        reduced = min(2 * reduced, 8)
    if kind == "JPEG" and reduced > 1:
        picture.draft(None, (max(width // reduced, 1), max(height // reduced, 1)))


def told_of_size(picture: Image.Image) -> str:
    """That an opened picture is read smaller than it is, in a sentence; empty where it is not."""
    full = picture.info.get(_FULL)
    return "" if full is None else (f"It has {full[0]} x {full[1]} pixels and is read at half its "
                                    "sides.")


def _too_large(kind: str) -> RefusedError:
    most = LARGEST if kind == "JPEG" else WHOLE
    other = "" if kind == "JPEG" else f", or as JPEG of up to {LARGEST // 10**6}"
    return RefusedError(f"The photo has more than the {most // 10**6} megapixels that are read of "
                        f"{kind or 'such'} files; export it smaller{other}.")
