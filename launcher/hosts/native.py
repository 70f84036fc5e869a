"""Checks that the system libraries that MediaPipe needs are installed, and names their packages."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from ..problems import Problem

# System library -> Debian's package.
PACKAGES = {"libEGL.so.1": "libegl1", "libGLESv2.so.2": "libgles2", "libGL.so.1": "libgl1",
            "libglib-2.0.so.0": "libglib2.0-0", "libgthread-2.0.so.0": "libglib2.0-0",
            "libxcb.so.1": "libxcb1"}

# Importing mediapipe does not load its own library, so a missing one shows only at the first face.
_PROBE = """
import ctypes, importlib.util, pathlib
folder = pathlib.Path(importlib.util.find_spec("mediapipe").submodule_search_locations[0])
for library in folder.rglob("libmediapipe*"):
    if library.suffix in (".so", ".dylib", ".dll"):
        ctypes.CDLL(str(library))
import mediapipe
"""


def require_loadable(python: Path) -> None:
    """Load MediaPipe's own library in the host's Python.

    Raises:
        Problem: a system library is missing, or it does not load for another reason.
    """
    done = subprocess.run([str(python), "-c", _PROBE], capture_output=True, text=True,
                          errors="replace")
    if done.returncode == 0:
        return
    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    missing = re.search(r"(lib[\w.+-]+\.so[\d.]*): cannot open shared object", done.stderr)
    if missing is None:
        raise Problem(f"MediaPipe, which finds the faces, does not load: {last}")
    packages = " ".join(sorted(set(PACKAGES.values())))
    raise Problem(f"MediaPipe, which finds the faces, needs the system library {missing.group(1)}; "
                  f"install it (Debian, Ubuntu: apt-get install {packages}) and run this again.")
