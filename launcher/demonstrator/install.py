"""Gives a host the demonstrator: its checkpoint, and the folder that lets the host recognise it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..console import say
from ..hosts.host import ROOT, Host
from ..hosts.links import link_folder

CHECKPOINT = "likeness_demonstrator.safetensors"
FILE = Path(__file__).resolve().parent / CHECKPOINT
SIDE = 128  # pixels that it draws
# Sizes that no released model has: ComfyUI knows SD1.5 by its widths and has to be told of others.
_ARCHITECTURES = ROOT / "launcher" / "tiny" / "architectures"
_LINK = "likeness_small_checkpoints"


def install(host: Host) -> None:
    """Put the checkpoint into the host's models and the architectures into its custom nodes.

    Raises:
        Problem: something else stands where the link belongs.
    """
    how = link_folder(_ARCHITECTURES, host.custom_nodes / _LINK)
    if how != "present" and not host.embedded:
        say(f"Put {host.custom_nodes / _LINK} there ({how}), by which ComfyUI recognises the "
            "demo's checkpoint; it adds no nodes and can be removed.")
    place = host.models / "checkpoints" / CHECKPOINT
    if _same(place):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f"{CHECKPOINT}.{os.getpid()}.part")
    shutil.copyfile(FILE, partial)
    os.replace(partial, place)


def _same(place: Path) -> bool:
    try:
        return place.read_bytes() == FILE.read_bytes()
    except OSError:
        return False
