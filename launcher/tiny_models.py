"""Makes the random models that the demo and the host tests run on. Runs inside the host's Python.

    python -m launcher.tiny_models --comfyui PATH --models DIR [--only NAME ...]

`demo_*` files are recognised by any ComfyUI; `tiny_*` files need the `tiny_architectures` folder
linked into the host's `custom_nodes/`. All weights are random: pictures are noise.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
_SOURCES = ("random_weights.py", "tiny_checkpoints.py", "tiny_controls.py",
            "tiny_architectures/__init__.py")
_RECIPE = "likeness_recipe"

DEMO = ("demo_sd15", "demo_sd15_face", "demo_sd15_pose", "demo_faceid_sd15")


@dataclass(frozen=True)
class ModelFile:
    """A file to make: its place below the models folder and how its tensors are built."""

    path: str
    tensors: Callable[[], Mapping[str, object]]
    metadata: Mapping[str, str] = field(default_factory=dict)


def catalogue() -> dict[str, ModelFile]:
    """Every file by name; imports ComfyUI, which must be importable."""
    from . import tiny_checkpoints as full  # pulls in torch and ComfyUI
    from . import tiny_controls as control

    dlib = {"recogniser": "dlib"}
    files = {f"tiny_{name}": ModelFile(f"checkpoints/tiny_{name}.safetensors",
                                       lambda name=name: full.checkpoint(name))
             for name in ("sd15", "sdxl", "sd3", "flux")}
    files["demo_sd15"] = ModelFile("checkpoints/likeness_demo_sd15.safetensors",
                                   lambda: full.checkpoint("demo"))
    for name, base, folder in (("tiny_sd15", "sd15", "tiny_sd15"),
                               ("tiny_sdxl", "sdxl", "tiny_sdxl"),
                               ("demo_sd15", "demo", "likeness_demo_sd15")):
        for kind in ("face", "pose"):
            files[f"{name}_{kind}"] = ModelFile(
                f"controlnet/{folder}_{kind}.safetensors",
                lambda base=base, kind=kind: control.unet_controlnet(base, kind))
    files["tiny_sd3_pose"] = ModelFile("controlnet/tiny_sd3_pose.safetensors",
                                       lambda: control.sd3_controlnet("pose"))
    files["tiny_flux_union"] = ModelFile("controlnet/tiny_flux_union.safetensors",
                                         lambda: control.flux_union_controlnet("union"))
    for name, base, file in (("tiny_faceid_sd15", "sd15", "tiny_faceid_sd15"),
                             ("tiny_faceid_sdxl", "sdxl", "tiny_faceid_sdxl"),
                             ("demo_faceid_sd15", "demo", "likeness_demo_faceid_sd15")):
        files[name] = ModelFile(f"ipadapter/{file}.safetensors",
                                lambda base=base: control.face_adapter(base, 128), dlib)
    return files


def _recipe(comfyui_version: str) -> str:
    digest = hashlib.sha256(comfyui_version.encode())
    for source in _SOURCES:
        digest.update((HERE / source).read_bytes())
    return digest.hexdigest()


def make(models: Path, names: Iterable[str] | None = None,
         say: Callable[[str], None] = lambda line: None) -> dict[str, Path]:
    """Make what is missing or was made by another version of this code; return paths by name.

    Args:
        models: a host's models folder.
        names: which files; None for all.
        say: told one line for each file that is made.
    """
    import comfyui_version

    from .random_weights import read_metadata, write_sparse

    recipe = _recipe(comfyui_version.__version__)
    paths = {}
    for name, file in catalogue().items():
        if names is not None and name not in names:
            continue
        paths[name] = path = models / file.path
        if read_metadata(path).get(_RECIPE) == recipe:
            continue
        start = time.perf_counter()
        write_sparse(path, file.tensors(), {**file.metadata, "format": "pt", _RECIPE: recipe})
        say(f"made {file.path} ({path.stat().st_size / 1e6:.1f} MB) "
            f"in {time.perf_counter() - start:.1f} s")
    return paths


def import_comfyui(comfyui: Path) -> None:
    """Make ComfyUI importable in this process, on the CPU."""
    sys.path.insert(0, str(comfyui))
    arguments, sys.argv = sys.argv, [sys.argv[0], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args  # noqa: F401 - reads sys.argv now

    sys.argv = arguments


def main() -> None:
    parser = argparse.ArgumentParser(description="Make random models for the demo and the tests.")
    parser.add_argument("--comfyui", type=Path, required=True, help="folder of ComfyUI's main.py")
    parser.add_argument("--models", type=Path, required=True, help="a host's models folder")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="which files; default: all")
    options = parser.parse_args()
    import_comfyui(options.comfyui.resolve())
    names = options.only or list(catalogue())
    unknown = sorted(set(names) - set(catalogue()))
    if unknown:
        parser.error(f"no model named {', '.join(unknown)}; there are {', '.join(catalogue())}")
    make(options.models.resolve(), names, say=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
