"""Puts the pack into a host's `custom_nodes/` without copying it, where the system allows that."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from ..problems import Problem

_LEFT_OUT = shutil.ignore_patterns(".git", ".host", ".ci", "tests", "__pycache__", "*.pyc")


def link_folder(source: Path, target: Path) -> str:
    """Make `target` show the folder `source`; return how: present, link, junction or copy.

    Windows gives symbolic links to administrators only, but junctions to everybody; a copy, made
    where neither works (another drive, a network folder), is renewed at every call.

    Raises:
        Problem: something else already stands at `target`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if _same(source, target):
        return "present"
    if os.path.lexists(target):
        if target.is_symlink():
            target.unlink()  # to a folder that has moved
        elif (target / ".likeness_copy").exists():
            shutil.rmtree(target)
        else:
            raise Problem(f"{target} is in the way; move it elsewhere, so that the pack can be "
                          f"linked there from {source}.")
    try:
        target.symlink_to(source, target_is_directory=True)
        return "link"
    except FileExistsError:
        return "present"  # another process was faster
    except OSError:
        return _junction_or_copy(source, target)


def _same(source: Path, target: Path) -> bool:
    try:
        return target.samefile(source)
    except OSError:
        return False


def _junction_or_copy(source: Path, target: Path) -> str:
    if os.name == "nt":
        made = subprocess.run(["cmd", "/c", "mklink", "/J", str(target), str(source)],
                              capture_output=True)
        if made.returncode == 0:
            return "junction"
    partial = target.with_name(target.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, ignore=_LEFT_OUT)
    (partial / ".likeness_copy").touch()
    partial.replace(target)
    return "copy"
