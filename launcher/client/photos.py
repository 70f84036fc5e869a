"""The user's photo folder: what is in it, and how it gets to a server."""

from __future__ import annotations

import uuid
from pathlib import Path

from ..problems import Problem
from .api import Client
from .refusals import Prompt

EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic",
                        ".heif"))  # what the loader reads
LOADER = "LikenessLoadPhotos"


def list_photos(folder: Path) -> list[Path]:
    """The photos in a folder, by name.

    Raises:
        Problem: there is no such folder, or no photo in it.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise Problem(f"The photo folder {folder} {what}; give a folder that holds photos.")
    try:
        found = sorted(path for path in folder.iterdir()
                       if path.is_file() and path.suffix.lower() in EXTENSIONS)
    except OSError as err:
        raise Problem(f"The photo folder {folder} cannot be read: {err.strerror}.") from err
    if not found:
        kinds = ", ".join(sorted(extension[1:] for extension in EXTENSIONS))
        raise Problem(f"There is no photo in {folder}; put some there ({kinds}).")
    return found


def require_loader(prompt: Prompt) -> list[str]:
    """The ids of the nodes that load photos.

    Raises:
        Problem: the workflow loads none.
    """
    found = [node for node, content in prompt.items() if content["class_type"] == LOADER]
    if not found:
        raise Problem(f"The workflow has no `{LOADER}` node to give the photos to; leave out "
                      "--photos or add that node.")
    return found


def upload_photos(client: Client, photos: list[Path]) -> str:
    """Put photos into a fresh subfolder of the server's input folder; return its name."""
    subfolder = f"likeness_{uuid.uuid4().hex[:10]}"
    for photo in photos:
        client.upload(photo, subfolder)
    return subfolder
