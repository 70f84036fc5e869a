"""The one-way flow of imports, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import likeness
import pytest

ROOT = Path(likeness.__file__).parent / "nodes"
FEATURES = {"dataset", "training", "control", "identity", "restore", "scoring", "style"}
SHARED = {"sockets", "images", "errors", "files", "cache_limit", "tensors", "lettering", "faces",
          "quality"}
FACADES = {"schema", "runtime", "patching", "models"}
HOST = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "nodes", "server", "execution"}
# Files whose subject is the host's own model objects.
HOST_LOGIC = {
    "control/stack.py", "identity/inject.py", "restore/registry.py",
    *(f"training/{name}.py" for name in (
        "adapters/attach", "adapters/group", "adapters/lora", "attention", "carried", "conds",
        "denoise", "export/checkpoint", "export/diffusers", "export/keys", "export/lora",
        "export/text_lora", "frozen", "loop", "pictures", "plan", "products", "quantise", "rotary",
        "scope", "session", "text/encoders", "trained"))}
FILES = sorted(path for path in ROOT.rglob("*.py") if "models" not in path.parts[-2:-1])
HEAVY = {"cv2", "mediapipe", "insightface", "onnxruntime", "matplotlib", "scipy", "imagehash",
         "spandrel", "spandrel_extra_arches", "transformers", "peft", "diffusers", "pillow_heif"}


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _imports(path: Path, top_level: bool = False) -> set[str]:
    """Dotted names a file imports; relative ones as `nodes.<...>`."""
    tree = ast.parse(path.read_text())
    package = ["nodes", *path.relative_to(ROOT).parts[:-1]]
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


def _is_node_file(path: Path) -> bool:
    """Schemas and their execute, and the inputs that several of them share."""
    return path.name.endswith(("nodes.py", "widgets.py")) or path == ROOT / "__init__.py"


@pytest.mark.parametrize("path", FILES, ids=_relative)
def test_features_import_only_below_themselves(path):
    parts = path.relative_to(ROOT).parts
    if len(parts) == 1:
        return_to = SHARED | FACADES | (FEATURES if path.name == "__init__.py" else set())
        own = set()
    else:
        own = {parts[0]}
        return_to = SHARED - ({"faces", "quality"} if parts[0] == "faces" else set())
        host_side = _is_node_file(path) or _relative(path) in HOST_LOGIC
        return_to = return_to | (FACADES if host_side else set())
    for name in _imports(path):
        if name.startswith("nodes."):
            room = name.split(".")[1]
            assert room in own | return_to, f"{_relative(path)} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=_relative)
def test_logic_does_not_know_comfyui(path):
    facade = len(path.relative_to(ROOT).parts) == 1 and path.stem in FACADES
    if _is_node_file(path) or facade or _relative(path) in HOST_LOGIC:
        return
    for name in _imports(path):
        assert name.startswith("nodes.") or name.split(".")[0] not in HOST, name


@pytest.mark.parametrize("path", FILES, ids=_relative)
def test_heavy_libraries_load_only_inside_functions(path):
    for name in _imports(path, top_level=True):
        assert name.split(".")[0] not in HEAVY, f"{_relative(path)} imports {name} at the top"


@pytest.mark.parametrize("path", FILES, ids=_relative)
def test_files_keep_to_one_subject_in_size(path):
    assert len(path.read_text().splitlines()) <= 350
