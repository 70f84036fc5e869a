"""ComfyUI on the CPU and the pack as `likeness`, for scripts that run outside of a host."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def prepare_imports() -> None:
    """Make ComfyUI, the launcher and the pack importable; once a process."""
    if "likeness" in sys.modules:
        return
    sys.path.insert(0, str(ROOT))
    from launcher.tiny.models import import_comfyui

    import_comfyui(Path(os.environ.get("COMFYUI_PATH") or ROOT / ".host" / "ComfyUI"))
    spec = importlib.util.spec_from_file_location(
        "likeness", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules["likeness"] = module
    spec.loader.exec_module(module)


def pack(name: str) -> ModuleType:
    """A module of the pack, such as `faces.detect`."""
    prepare_imports()
    return importlib.import_module(f"likeness.nodes.{name}")
