"""`run.py bench`: one measurement, or all of them into one file."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .client.writing import require_file_place, write_whole
from .console import say
from .hosts.host import ROOT, Host
from .problems import Problem

FOLDER = ROOT / "tests" / "bench"
ALL = "all"


def known_benches() -> list[str]:
    """The names of all measurements."""
    return sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))


def check(name: str, json_file: Path | None) -> None:
    """Check what can be checked without a host.

    Raises:
        Problem: there is no such measurement, or no place for its figures.
    """
    known = known_benches()
    if name not in (*known, ALL):
        raise Problem(f"There is no bench `{name}`; there is {', '.join(known) or 'none'}, and "
                      f"`{ALL}`.")
    if json_file is not None:
        require_file_place(json_file, "--json")


def run_bench(name: str, host: Host, arguments: Sequence[str], json_file: Path | None) -> int:
    """Measure; gives the exit code of the measurement, or 1 where one of all has failed.

    Args:
        arguments: for the measurement, or for each of all.
    """
    if name != ALL:
        return _run(name, host, arguments, json_file)
    figures, failed = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for each in known_benches():
            say(f"== {each} ==")
            file = Path(folder) / f"{each}.json"
            if _run(each, host, arguments, file) or not file.is_file():
                failed.append(each)
            else:
                figures[each] = json.loads(file.read_text("utf-8"))
            if json_file is not None:  # after each, since all together take hours
                write_whole(json_file, json.dumps(figures, indent=1).encode())
    if failed:
        raise Problem(f"{len(failed)} of {len(known_benches())} benches failed "
                      f"({', '.join(failed)}); the lines above say why.")
    return 0


def _run(name: str, host: Host, arguments: Sequence[str], json_file: Path | None) -> int:
    command = [str(host.python), str(FOLDER / f"bench_{name}.py"), *arguments]
    if json_file is not None:
        command += ["--json", str(json_file.absolute())]
    return subprocess.run(command, cwd=ROOT, env={
        **os.environ, "COMFYUI_PATH": str(host.comfyui)}).returncode
