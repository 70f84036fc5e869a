"""Finds the ComfyUI to work with: a user's own, or the embedded one under `.host/`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..problems import Problem

# Not resolved: a pack that is linked into custom_nodes/ belongs to that host.
ROOT = Path(__file__).absolute().parents[2]
PACK = "comfyui-likeness"
FLOOR = (0, 3, 75)


@dataclass(frozen=True)
class Host:
    """A ComfyUI and the Python that runs it."""

    comfyui: Path  # folder of main.py
    python: Path
    embedded: bool

    @property
    def custom_nodes(self) -> Path:
        """Where packs live."""
        return self.comfyui / "custom_nodes"

    @property
    def models(self) -> Path:
        """Where models live."""
        return self.comfyui / "models"


def version(comfyui: Path) -> tuple[int, ...]:
    """The version of a ComfyUI folder.

    Raises:
        Problem: there is no ComfyUI, or its version cannot be told.
    """
    if not (comfyui / "main.py").is_file():
        raise Problem(f"There is no ComfyUI in {comfyui} (no main.py); give the folder that holds "
                      "its main.py with --comfyui or COMFYUI_PATH.")
    try:
        text = (comfyui / "comfyui_version.py").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"""__version__\s*=\s*["'](\d+(?:\.\d+)*)""", text)
    if found is None:
        raise Problem(f"The ComfyUI in {comfyui} does not say its version, so it is older than "
                      f"{_dotted(FLOOR)}, the oldest that Likeness runs on; update it.")
    return tuple(int(part) for part in found.group(1).split("."))


def require_new_enough(comfyui: Path) -> None:
    """Check that a ComfyUI is not older than the pack's floor.

    Raises:
        Problem: it is, or there is none.
    """
    found = version(comfyui)
    if found < FLOOR:
        raise Problem(f"The ComfyUI in {comfyui} is version {_dotted(found)}, but Likeness needs "
                      f"{_dotted(FLOOR)} or newer; update it, or leave out --comfyui to use an "
                      "embedded one.")


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def chosen_folder(option: str | None, environment: Mapping[str, str] = os.environ,
                  root: Path = ROOT) -> Path | None:
    """The user's own ComfyUI folder; None when the embedded host is to be used.

    Args:
        option: the value of --comfyui.
        root: the pack's folder; inside `custom_nodes/` its host is the folder above.
    """
    named = option or environment.get("COMFYUI_PATH")
    if named:
        return Path(named).expanduser().absolute()
    if root.parent.name == "custom_nodes" and (root.parent.parent / "main.py").is_file():
        return root.parent.parent
    return None


def environment_python(environment: Path) -> Path:
    """The interpreter of a virtual environment."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _pythons(comfyui: Path) -> Iterator[Path]:
    for folder in (comfyui, comfyui.parent):
        for name in ("venv", ".venv"):
            yield environment_python(folder / name)
    yield comfyui.parent / "python_embeded" / "python.exe"  # the portable Windows build's spelling
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if os.environ.get(variable):
            yield environment_python(Path(os.environ[variable]))
    yield Path(sys.executable)


def _has_torch(python: Path) -> bool:
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)"
    try:
        return subprocess.run([str(python), "-c", code], capture_output=True).returncode == 0
    except OSError:
        return False


def user_host(comfyui: Path, python: str | None = None) -> Host:
    """A user's own ComfyUI with the Python that runs it.

    Args:
        python: the value of --python; None to look in the usual places.

    Raises:
        Problem: no ComfyUI there, too old, or no Python with torch.
    """
    require_new_enough(comfyui)
    if python is not None:
        named = Path(python).expanduser().absolute()  # the host starts in another folder
        if not _has_torch(named):
            raise Problem(f"{python} is no Python with torch; give the one that runs ComfyUI.")
        return Host(comfyui, named, embedded=False)
    for candidate in _pythons(comfyui):
        if candidate.is_file() and _has_torch(candidate):
            return Host(comfyui, candidate, embedded=False)
    raise Problem(f"No Python with torch was found for the ComfyUI in {comfyui}; name the one that "
                  "runs it with --python.")
