"""Gets what a finished run made: the files it shows, and the ones its reports name by path."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..problems import Problem
from .api import Client, FileNotGiven, FileReference
from .runs import Run
from .writing import write_whole

_REPORTED = ("lora", "embedding", "report")  # under which nodes name files that are no pictures


@dataclass(frozen=True)
class Fetched:
    """What came of fetching a run's files."""

    files: tuple[Path, ...]
    left: tuple[str, ...]  # paths on the server of what could not be had
    folders: tuple[Path, ...] = ()  # copied whole
    folders_left: tuple[str, ...] = ()  # paths on the server of folders that stay there
    gone: tuple[str, ...] = ()  # below the output folder: what a node shows and the server lacks


def reported_paths(run: Run) -> tuple[str, ...]:
    """The trained files and reports that nodes name in their JSON, as paths on the server."""
    found = [path for report in _reports(run) for path in _named(report)]
    return tuple(dict.fromkeys(path for path in found if re.search(r"[\\/]", path)))


def reported_folders(run: Run) -> tuple[str, ...]:
    """The folders that nodes name in their JSON, such as an exported set, as whole paths on the
    server.
    """
    return tuple(path for path, _ in _folders(run))


def _folders(run: Run) -> tuple[tuple[str, bool], ...]:
    """Reported folders, each with whether it is a saved set of photos."""
    found: dict[str, bool] = {}
    for report in _reports(run):
        path = report.get("folder")
        if isinstance(path, str) and re.match(r"/|[A-Za-z]:[\\/]|\\\\", path):
            found[path] = found.get(path, False) or "load_as" in report
    return tuple(found.items())


def _named(report: dict[str, Any]) -> Iterator[str]:
    files = report.get("files")  # of Train: kind -> path
    named = [*(files.values() if isinstance(files, dict) else ()), *map(report.get, _REPORTED)]
    yield from (path for path in named if isinstance(path, str))


def places(run: Run, path: str) -> tuple[FileReference, ...]:
    """Where below the server's output folder a path may lie, the likeliest first.

    The output folder is known when a report names a saved picture by its whole path; otherwise it
    may be any folder called `output` in the path.
    """
    path = path.replace("\\", "/")
    roots = _output_roots(run)
    if roots:
        inside = [path[len(root):] for root in roots if path.startswith(root)]
    else:
        inside = [path[match.end():] for match in re.finditer(r"/output/", path)][::-1]
    split = [text.rpartition("/") for text in inside]
    return tuple(FileReference(name, folder) for folder, _, name in split)


def _reports(run: Run) -> Iterator[dict[str, Any]]:
    for node in run.outputs:
        try:
            report = json.loads(run.text(node))
        except ValueError:
            continue
        if isinstance(report, dict):
            yield report


def _output_roots(run: Run) -> set[str]:
    """What stands before a saved file's place in the whole paths that reports name."""
    ends = [f"/{file.subfolder}/{file.filename}".replace("\\", "/").replace("//", "/")
            for file in run.files()]
    texts = [text.replace("\\", "/") for report in _reports(run) for text in _texts(report)]
    return {text[:-len(end)] + "/" for end in ends for text in texts
            if text.endswith(end) and len(text) > len(end)}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def fetch(client: Client, run: Run, out: Path) -> Fetched:
    """Fetch everything into a folder, below it as on the server; nothing leaves the folder.

    A picture that is gone, because the run came from the server's memory and the file was removed
    since, keeps nothing else from being fetched. A reported file that the server does not give away
    is copied when this machine has that path.
    So are saved sets of a server on this machine; an export for another trainer stays, because its
    settings name their own place, and so do folders that the next run takes up again.

    Raises:
        Problem: the folder cannot be written to.
    """
    files, left, gone = [], [], []
    for file in run.files():
        try:
            files.append(client.download(file, _inside(out, file)))
        except FileNotGiven:
            gone.append(f"{file.subfolder}/{file.filename}".lstrip("/"))
    for path in reported_paths(run):
        file = _fetch_reported(client, run, path, out)
        if file is None:
            left.append(path)
        else:
            files.append(file)
    folders, folders_left = [], []
    for path, saved_set in _folders(run):
        if saved_set and client.is_here and Path(path).is_dir():
            folders.append(_copy_folder(run, path, out))
        else:
            folders_left.append(path)
    return Fetched(tuple(dict.fromkeys(files)), tuple(left), tuple(folders), tuple(folders_left),
                   tuple(gone))


def _copy_folder(run: Run, path: str, out: Path) -> Path:
    source = Path(path).resolve()
    place = next(iter(places(run, path)), FileReference(source.name, source.parent.name))
    target = _inside(out, place)
    if target == source:
        return target
    for file in [file for file in sorted(source.rglob("*")) if file.is_file()]:
        try:
            data = file.read_bytes()
        except OSError as err:
            raise Problem(f"{file} could not be read: {err.strerror}.") from err
        write_whole(target / file.relative_to(source), data)
    return target


def _fetch_reported(client: Client, run: Run, path: str, out: Path) -> Path | None:
    for place in places(run, path):
        try:
            return client.download(place, _inside(out, place))
        except FileNotGiven:
            continue
    local = Path(path)
    try:
        data = local.read_bytes()
    except OSError:
        return None
    return write_whole(out.resolve() / local.parent.name / local.name, data)


def _inside(out: Path, file: FileReference) -> Path:
    out = out.resolve()
    target = (out / file.subfolder / file.filename).resolve()
    if out not in target.parents:
        raise Problem(f"The server names a file outside the folder, {file.subfolder}/"
                      f"{file.filename}; it was not fetched.")
    return target
