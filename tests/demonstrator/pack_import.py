"""ComfyUI on the CPU and the pack as `likeness`, for scripts that run outside of a host."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def pack(name: str) -> ModuleType:
    """A module of the pack, such as `faces.detect`."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from launcher.makers import limits

    return limits.pack(name)


def prepare_imports() -> None:
    """Make ComfyUI, the launcher and the pack importable."""
    pack("sockets")
