"""Gets a host ready for the pack: the embedded one set up, or the user's own checked and linked."""

from __future__ import annotations

import subprocess

from . import embedded, native
from .console import say, step
from .host import PACK, ROOT, Host, chosen_folder, user_host
from .links import link_folder
from .problems import Problem


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
    how = link_folder(ROOT.resolve(), host.custom_nodes / PACK)
    if how != "present":
        say(f"Put the pack into {host.custom_nodes / PACK} ({how}).")
    return host


def _complete_user_host(host: Host, tests: bool) -> None:
    """Install the pack's few requirements into the user's environment when they are missing."""
    files = [ROOT / "requirements.txt"]
    modules = ["mediapipe", "imagehash", "matplotlib"]
    if tests:
        files.append(embedded.TEST_PINS)
        modules.append("pytest")
    code = ("import importlib.util, sys; "
            f"sys.exit(any(importlib.util.find_spec(name) is None for name in {modules!r}))")
    if subprocess.run([str(host.python), "-c", code]).returncode:
        command = [str(host.python), "-m", "pip", "install", "--quiet"]
        for file in files:
            command += ["-r", str(file)]
        with step(f"Installing the pack's requirements with {host.python}"):
            if subprocess.run(command).returncode:
                raise Problem("The pack's requirements could not be installed; the lines above "
                              f"say why. Install {files[0]} yourself and run this again.")
    native.require_loadable(host.python)
