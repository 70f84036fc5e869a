"""`run.py forget`: says what there is of a person, removes it, and searches for what is left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from ..client.writing import write_whole
from ..console import say
from ..problems import Problem
from .batch import STATE, read_state
from .belongings import Found, Places, find, is_name, previews, traces


def run_forget(name: str, places: Places, out: Path | None, sure: bool) -> None:
    """Say what there is of a person and, where that is wanted, remove it.

    Args:
        out: results of `run.py people`, which lose the person too.

    Raises:
        Problem: the name is none, there is nothing, or something cannot be removed.
    """
    if not is_name(name):
        raise Problem(f"`{name}` is no person's name; give the one that the Subject has.")
    found, results = find(name, places), _results(name, out)
    removed = [*found.folders, *found.files, *results]
    if not removed:
        raise Problem(f"Nothing of `{name}` is in {places.reports}; give the name that the Subject "
                      "has, and the host with --comfyui.")
    passing = previews(places)
    _tell(found, removed, len(passing))
    if not sure:
        say(f"Nothing was removed; add --yes to remove these {len(removed)}.")
        return
    _remove([*removed, *passing])
    if out is not None:
        _forget_state(name, out)
    left = traces(found, places)
    if left:
        raise Problem(f"{len(left)} files still name a photo of `{name}`: "
                      f"{', '.join(map(str, left[:3]))}; look at them and remove them by hand.")
    say(f"Removed {len(removed)}; no file in the host's folders is one of the "
        f"{len(found.hashes)} photos or names one any more. Restart ComfyUI if it is running: its "
        "memory may hold pictures.")


def _tell(found: Found, removed: Iterable[Path], passing: int) -> None:
    others: dict[Path, list[str]] = {}
    for path, other in found.other_names:
        others.setdefault(path, []).append(other)
    for path in removed:
        names = ", ".join(others.get(path, ()))
        say(f"  {path}" + (f"   (of the same photos, under the name {names})" if names else ""))
    if passing:
        say(f"  {passing} previews of everybody, which ComfyUI removes at every start")
    for path in found.own:
        say(f"  your own photo, which stays: {path}")


def _results(name: str, out: Path | None) -> list[Path]:
    return [] if out is None or not (out / name).is_dir() else [out / name]


def _remove(paths: Iterable[Path]) -> None:
    left = []
    for path in paths:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as err:
            left.append(f"{path} ({err.strerror})")
    if left:
        raise Problem(f"{len(left)} could not be removed: {', '.join(left[:3])}; close what holds "
                      "them and run this again.")


def _forget_state(name: str, out: Path) -> None:
    if name in read_state(out):
        plain = json.loads((out / STATE).read_text("utf-8"))
        del plain[name]
        write_whole(out / STATE, json.dumps(plain, indent=1).encode())
