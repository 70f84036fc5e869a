"""Gets a host ready for the pack: the embedded one set up, or the user's own checked and linked."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..console import say, step
from ..problems import Problem
from . import embedded, native
from .host import PACK, ROOT, Host, chosen_folder, user_host
from .links import link_folder

_MODULES = ("mediapipe", "imagehash", "matplotlib")  # of requirements.txt
# Packages of test-requirements.txt that tests import, by module. A user's own ComfyUI may need
# other versions of them than the embedded one.
_TEST_MODULES = {
    "pytest": "pytest", "xdist": "pytest-xdist", "diffusers": "diffusers", "peft": "peft",
    "accelerate": "accelerate", "insightface": "insightface", "onnxruntime": "onnxruntime",
    "onnx": "onnx", "playwright": "playwright", "skimage": "scikit-image",
    "bitsandbytes": "bitsandbytes", "lion_pytorch": "lion-pytorch", "prodigyopt": "prodigyopt",
    "schedulefree": "schedulefree"}


def ready_host(comfyui: str | None = None, python: str | None = None, *, tests: bool = False,
               cpu_wheels: bool = False) -> Host:
    """Find the host, complete it, and link the pack into it.

    Args:
        comfyui: the value of --comfyui.
        python: the value of --python, for a host of the user's own.
        tests: the tests will run in its environment.
        cpu_wheels: torch for the CPU, in an embedded host.

    Raises:
        Problem: what is missing and cannot be had.
    """
    folder = chosen_folder(comfyui)
    if folder is None:
        host = embedded.setup(embedded.Embedded(), tests=tests, cpu=cpu_wheels)
    else:
        host = user_host(folder, python)
        _complete_user_host(host, tests)
    link_pack(host.custom_nodes)
    return host


def link_pack(custom_nodes: Path, pack: Path = ROOT) -> None:
    """Put the pack into a host, unless it is there under whatever name; twice it would not load.

    Raises:
        Problem: something else stands where the link belongs.
    """
    if custom_nodes.is_dir() and any(
            entry.samefile(pack) for entry in custom_nodes.iterdir()
            if entry.is_dir() and not entry.name.endswith(".disabled")):  # the host skips those
        return
    how = link_folder(pack.resolve(), custom_nodes / PACK)
    if how != "present":
        say(f"Put the pack into {custom_nodes / PACK} ({how}).")


def _complete_user_host(host: Host, tests: bool) -> None:
    """Install the pack's few requirements into the user's environment when they are missing.

    Raises:
        Problem: the tests' pins are missing; they are many and fix versions, so the user decides.
    """
    if tests and not _has(host.python, tuple(_TEST_MODULES)):
        raise Problem(f"The Python of your ComfyUI lacks packages that the tests need, and nothing "
                      f"is installed there unasked; run `{host.python} -m pip install "
                      f"{' '.join(_TEST_MODULES.values())}` or leave out --comfyui to use the "
                      "embedded host.")
    requirements = ROOT / "requirements.txt"
    if not _has(host.python, _MODULES):
        with step(f"Installing the pack's requirements with {host.python}"):
            if subprocess.run([str(host.python), "-m", "pip", "install", "--quiet", "-r",
                               str(requirements)]).returncode:
                raise Problem("The pack's requirements could not be installed; the lines above "
                              f"say why. Install {requirements} yourself and run this again.")
    native.require_loadable(host.python)


def _has(python: Path, modules: Sequence[str]) -> bool:
    code = ("import importlib.util, sys; "
            f"sys.exit(any(importlib.util.find_spec(name) is None for name in {list(modules)!r}))")
    return subprocess.run([str(python), "-c", code]).returncode == 0
