"""The one-way flow of imports, read from the source.

Folders are floors: a file imports from its own folder and from floors below it, never upwards and
never in a circle. ARCHITECTURE.md draws what stands here as data.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import likeness
import pytest

PACK = Path(likeness.__file__).parent
ROOT = PACK / "nodes"
# From the ground up; what stands in one tuple may not import each other.
FLOORS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "nodes": (
        ("errors", "sockets", "brackets", "made_files"), ("files", "incoming"),
        ("media", "tensors", "cache_limit"), ("runtime", "schema", "patching"), ("faces",),
        ("quality", "models"),
        ("control", "dataset", "identity", "restore", "scoring", "style", "training")),
    "nodes/media": (
        ("colour", "decoding", "lettering", "texts"), ("images", "photo_files"), ("views",)),
    "nodes/faces": (
        ("align", "boxes", "memory", "mesh", "tasks", "turned"), ("body", "masks", "orientation"),
        ("detect",), ("recognise",)),
    "nodes/dataset": (
        ("files",), ("curate",), ("subject", "coach"), ("caption",), ("prepare",), ("saved",),
        ("nodes",)),
    "nodes/scoring": (
        ("drawing", "calibration"), ("bank",), ("score",), ("pick", "sweep"), ("report",),
        ("nodes",)),
    "nodes/training": (
        ("parametrisation",), ("recipes",), ("frozen", "kohya"), ("samples",), ("adapters",),
        ("text",), ("start", "objective"), ("steps",), ("export",), ("apply",),
        ("pictures",), ("watch",), ("compare", "run"), ("nodes",)),
    "launcher": (
        ("problems", "console", "checkpoints"), ("client",), ("hosts",), ("tiny", "demonstrator"),
        ("makers",), ("queue", "inputs", "bench"), ("demo",), ("people",), ("command_line",)),
}
FEATURES = FLOORS["nodes"][-1]
FACADES = {"schema", "runtime", "patching", "models"}
HOST = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "nodes", "server", "execution"}
# Files whose subject is the host's own model objects.
HOST_LOGIC = {
    "identity/inject.py",
    *(f"training/{name}.py" for name in (
        "adapters/attach", "adapters/group", "apply/applied_file", "export/checkpoint",
        "export/diffusers", "apply/fitted", "apply/host_places", "export/keys", "export/lora",
        "apply/scales", "apply/trained", "frozen/attention", "frozen/beside", "frozen/carried",
        "frozen/host_operations", "frozen/layers", "frozen/quantise", "frozen/rotary",
        "pictures/sampling", "run/products", "run/session", "steps/loop", "steps/plan",
        "text/encoders"))}
FILES = sorted(path for path in ROOT.rglob("*.py") if "models" not in path.parts[-2:-1])
HEAVY = {"cv2", "mediapipe", "insightface", "onnxruntime", "matplotlib", "scipy", "imagehash",
         "spandrel", "spandrel_extra_arches", "transformers", "peft", "diffusers", "pillow_heif"}
SOURCES = {file.relative_to(PACK).with_suffix("").as_posix().removesuffix("/__init__"): file
           for top in ("nodes", "launcher") for file in (PACK / top).rglob("*.py")}


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _imports(path: Path, top_level: bool = False) -> set[str]:
    """Dotted names a file imports; relative ones from the pack's root, as `nodes.<...>`."""
    tree = ast.parse(path.read_text())
    package = list(path.relative_to(PACK).parts[:-1])
    found = set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = package[:len(package) - node.level + 1]
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{stem}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return found


def _modules(path: Path) -> Iterator[str]:
    """The pack's own files that a file imports, as paths without suffix."""
    for name in _imports(path):
        place = name.replace(".", "/")
        for candidate in (place, place.rpartition("/")[0]):
            if candidate in SOURCES:
                yield candidate
                break


def _is_node_file(path: Path) -> bool:
    """Schemas and their execute, and the inputs that several of them share."""
    return path.name.endswith(("nodes.py", "widgets.py")) or path == ROOT / "__init__.py"


def _floor(folder: str, module: str) -> int:
    """The floor of a module in a folder; a room that is on no floor fails the test."""
    room = module.removeprefix(f"{folder}/").split("/")[0]
    levels = [level for level, rooms in enumerate(FLOORS[folder]) if room in rooms]
    assert levels, f"{module}: `{room}` stands on no floor of {folder}; place it in FLOORS"
    return levels[0]


@pytest.mark.parametrize("folder", FLOORS)
def test_imports_run_downwards(folder):
    for module, path in SOURCES.items():
        if not module.startswith(f"{folder}/"):
            continue
        own = module.removeprefix(f"{folder}/").split("/")[0]
        for name in _modules(path):
            other = name.removeprefix(f"{folder}/").split("/")[0]
            if name.startswith(f"{folder}/") and other != own:
                assert _floor(folder, name) < _floor(folder, module), f"{module} imports {name}"


def test_no_two_files_import_each_other_in_a_circle():
    arrows = {module: set(_modules(path)) - {module} for module, path in SOURCES.items()}
    while True:
        ends = {module for module, targets in arrows.items() if not targets}
        if not ends:
            break
        arrows = {module: targets - ends for module, targets in arrows.items()
                  if module not in ends}
    assert not arrows, f"in or above a circle: {sorted(arrows)}"


def test_every_folder_says_in_one_sentence_what_it_holds():
    for top in ("nodes", "launcher"):
        for folder in {path.parent for path in (PACK / top).rglob("*.py")}:
            text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
            assert text, f"{folder} has no docstring"
            rooms = [path for path in folder.iterdir() if path.suffix == ".py"]
            assert len(rooms) <= 22, f"{folder} holds {len(rooms)} files"


@pytest.mark.parametrize("path", FILES, ids=_relative)
def test_only_files_about_the_host_know_it(path):
    facade = len(path.relative_to(ROOT).parts) == 1 and path.stem in FACADES
    if _is_node_file(path) or facade or _relative(path) in HOST_LOGIC:
        return
    for name in _imports(path):
        assert name.startswith("nodes.") or name.split(".")[0] not in HOST, name
        assert not name.startswith("nodes.") or name.split(".")[1] not in FACADES, name


def test_the_list_of_files_about_the_host_is_no_longer_than_needed():
    for name in HOST_LOGIC:
        names = {part.split(".")[1] if part.startswith("nodes.") else part.split(".")[0]
                 for part in _imports(ROOT / name)}
        assert names & (FACADES | HOST), f"{name} does not know the host; take it off the list"


@pytest.mark.parametrize("path", FILES, ids=_relative)
def test_heavy_libraries_load_only_inside_functions(path):
    for name in _imports(path, top_level=True):
        assert name.split(".")[0] not in HEAVY, f"{_relative(path)} imports {name} at the top"


@pytest.mark.parametrize("path", FILES, ids=_relative)
def test_files_keep_to_one_subject_in_size(path):
    assert len(path.read_text().splitlines()) <= 350
