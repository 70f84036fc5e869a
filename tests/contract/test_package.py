"""What is shipped, what it costs to load, and what it must not touch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import likeness

ROOT = Path(likeness.__file__).parent
FORBIDDEN = ("cv2", "mediapipe", "insightface", "onnxruntime", "matplotlib", "imagehash",
             "peft", "diffusers", "pillow_heif", "spandrel_extra_arches")

_PROBE = """
import sys, asyncio
sys.path.insert(0, {comfyui!r})
import comfy.options
comfy.options.enable_args_parsing()
sys.argv = ["probe", "--cpu"]
import comfy.sd, comfy.sample, comfy_api.latest, folder_paths  # a host has them before any pack
import importlib.util
before = set(sys.modules)
spec = importlib.util.spec_from_file_location(
    "likeness", {init!r}, submodule_search_locations=[{root!r}])
module = importlib.util.module_from_spec(spec)
sys.modules["likeness"] = module
spec.loader.exec_module(module)
extension = asyncio.run(module.comfy_entrypoint())
asyncio.run(extension.get_node_list())
print("modules", *sorted(set(sys.modules) - before))
"""


def _load_in_fresh_process() -> set[str]:
    comfyui = os.environ.get("COMFYUI_PATH") or str(ROOT / ".host" / "ComfyUI")
    code = _PROBE.format(comfyui=comfyui, init=str(ROOT / "__init__.py"), root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    return set(lines["modules"].split())


def test_loading_the_pack_stays_light():
    modules = _load_in_fresh_process()
    heavy = {name.split(".")[0] for name in modules} & set(FORBIDDEN)
    assert not heavy, f"loaded at start: {sorted(heavy)}"


def _project() -> dict:
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_requirements_equal_the_projects_dependencies():
    lines = (ROOT / "requirements.txt").read_text().split("\n")
    assert [line for line in lines if line] == _project()["project"]["dependencies"]


def test_nothing_a_host_owns_is_pinned():
    for line in _project()["project"]["dependencies"]:
        name = re.split(r"[<>=\[ ]", line)[0].lower()
        assert name not in {"torch", "torchvision", "torchaudio", "numpy", "opencv-python",
                            "opencv-python-headless", "onnxruntime", "onnxruntime-gpu"}


def _shipped() -> list[Path]:
    ignored = [line.rstrip("/") for line in (ROOT / ".comfyignore").read_text().split() if line]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True,
                             check=True).stdout.split("\n")
    return [ROOT / name for name in tracked
            if name and not any(name == path or name.startswith(path + "/") for path in ignored)]


def test_shipped_code_opens_no_network_and_runs_no_strings():
    pattern = re.compile(r"(?<![.\w])(eval|exec)\(|"
                         r"^\s*(import|from) (requests|urllib|socket|subprocess)\b",
                         re.MULTILINE)
    for path in _shipped():
        if path.suffix == ".py":
            assert not pattern.search(path.read_text()), path.name


def test_only_the_named_places_ship():
    places = {path.relative_to(ROOT).parts[0] for path in _shipped()}
    assert places <= {"nodes", "workflows", "web", "locales", "__init__.py", "requirements.txt",
                      "pyproject.toml", "README.md", "LICENSE", ".comfyignore", ".gitignore"}


def test_vendored_models_stay_small_and_are_what_they_say():
    import hashlib

    folder = ROOT / "nodes" / "faces" / "models"
    licences = (folder / "LICENSES.md").read_text()
    files = [path for path in folder.iterdir()
             if path.suffix in {".task", ".tflite", ".safetensors", ".binarypb", ".zip"}]
    assert files and sum(path.stat().st_size for path in files) < 35e6
    for path in files:
        assert path.name in licences
        assert hashlib.sha256(path.read_bytes()).hexdigest() in licences, path.name


def test_workflows_name_no_private_path():
    for path in (ROOT / "workflows").rglob("*.json"):
        text = path.read_text()
        assert "/home/" not in text and "/root/" not in text and "C:\\\\" not in text
