"""Loads the pack as `likeness` inside the host's Python, with ComfyUI importable and on the CPU."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_RESIDENT = 4.5e9  # bytes that a process may hold between two files
TIDY_RESIDENT = 2e9  # below it looking for what can be freed only costs time
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".host" / "ComfyUI")

sys.path.insert(0, str(COMFYUI))
# Last, for `launcher`: `import nodes` must go on finding ComfyUI's.
sys.path.append(str(ROOT))

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
# comfy.model_management decides on a device when it is first imported.
_argv, sys.argv = sys.argv, ["pytest", "--cpu"]
import comfy.cli_args  # noqa: E402

sys.argv = _argv


def _load_pack() -> None:
    spec = importlib.util.spec_from_file_location(
        "likeness", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules["likeness"] = module
    spec.loader.exec_module(module)


_load_pack()


@pytest.hookimpl(optionalhook=True)  # of xdist, where several processes run
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Keep the tests of one file, and those that share the one server, in the same process."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            return "host" if file.startswith("tests/host/") else file

    return ByFile(config, log)


@pytest.fixture(scope="module", autouse=True)
def _given_back() -> Iterator[None]:
    """Give memory back after each file: networks hang in circles, and glibc keeps their room."""
    yield
    if sys.platform != "linux":
        gc.collect()
    elif _resident() > TIDY_RESIDENT:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        held = _resident()
        assert held < MOST_RESIDENT, f"The tests so far have left {held / 1e9:.1f} GB behind."


def _resident() -> int:
    """Bytes of memory that this process holds, on Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="session")
def assets() -> Path:
    """The committed sample photos."""
    return ROOT / "tests" / "assets"
