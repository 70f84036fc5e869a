"""Makes the random models that the host tests run on. Runs inside the host's Python.

    python -m launcher.tiny.models --comfyui PATH --models DIR [--only NAME ...]

`demo_*` files are recognised by any ComfyUI; `tiny_*` files need the `tiny/architectures` folder
linked into the host's `custom_nodes/`. All weights are random: pictures are noise.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints import metadata
from ..hosts.host import version

if TYPE_CHECKING:
    import torch

HERE = Path(__file__).resolve().parent
_SOURCES = ("random_weights.py", "checkpoints.py", "controls.py",
            "architectures/__init__.py")
_RECIPE = "likeness_recipe"

# Every file by name: its place below the models folder.
FILES = {
    "tiny_sd15": "checkpoints/tiny_sd15.safetensors",
    "tiny_sdxl": "checkpoints/tiny_sdxl.safetensors",
    "tiny_sd3": "checkpoints/tiny_sd3.safetensors",
    "tiny_flux": "checkpoints/tiny_flux.safetensors",
    "tiny_sd15_face": "controlnet/tiny_sd15_face.safetensors",
    "tiny_sd15_pose": "controlnet/tiny_sd15_pose.safetensors",
    "tiny_sdxl_face": "controlnet/tiny_sdxl_face.safetensors",
    "tiny_sdxl_pose": "controlnet/tiny_sdxl_pose.safetensors",
    "tiny_sd3_pose": "controlnet/tiny_sd3_pose.safetensors",
    "tiny_flux_union": "controlnet/tiny_flux_union.safetensors",
    "tiny_faceid_sd15": "ipadapter/tiny_faceid_sd15.safetensors",
    "tiny_faceid_sdxl": "ipadapter/tiny_faceid_sdxl.safetensors",
    "demo_sd15": "checkpoints/likeness_demo_sd15.safetensors",
    "demo_sd15_face": "controlnet/likeness_demo_sd15_face.safetensors",
    "demo_sd15_pose": "controlnet/likeness_demo_sd15_pose.safetensors",
    "demo_faceid_sd15": "ipadapter/likeness_demo_faceid_sd15.safetensors",
}
_ID_WIDTH = 128  # of dlib's face embedding, which comes with the pack


def _build(name: str) -> tuple[Mapping[str, torch.Tensor], dict[str, str]]:
    """The tensors and the metadata of one file; ComfyUI must be importable."""
    from . import checkpoints as tiny_checkpoints  # they pull in torch and ComfyUI
    from . import controls as tiny_controls

    folder = FILES[name].split("/")[0]
    family = "demo" if name.startswith("demo") else next(
        part for part in ("sd15", "sdxl", "sd3", "flux") if part in name)
    kind = name.rsplit("_", 1)[-1]
    if folder == "checkpoints":
        return tiny_checkpoints.checkpoint(family), {}
    if folder == "ipadapter":
        return tiny_controls.face_adapter(family, _ID_WIDTH), {"recogniser": "dlib"}
    if family == "sd3":
        return tiny_controls.sd3_controlnet(kind), {}
    if family == "flux":
        return tiny_controls.flux_union_controlnet(kind), {}
    return tiny_controls.unet_controlnet(family, kind), {}


def _recipe(comfyui_version: Iterable[int]) -> str:
    """What a file remembers: changes with this code and with ComfyUI."""
    digest = hashlib.sha256(repr(tuple(comfyui_version)).encode())
    for source in _SOURCES:
        digest.update((HERE / source).read_bytes())
    return digest.hexdigest()


def present(comfyui: Path, models: Path, names: Iterable[str] = FILES) -> bool:
    """Whether files are there and made by this code; needs no packages."""
    recipe = _recipe(version(comfyui))
    return all(metadata(models / FILES[name]).get(_RECIPE) == recipe for name in names)


def make(comfyui: Path, models: Path, names: Iterable[str] = FILES,
         say: Callable[[str], None] = lambda line: None) -> dict[str, Path]:
    """Make what is missing or was made by another version of this code; return paths by name.

    Args:
        comfyui: the folder of ComfyUI, which must be importable already.
        models: a host's models folder.
        say: told one line for each file that is made.
    """
    paths = {name: models / FILES[name] for name in names}
    recipe = _recipe(version(comfyui))
    for name, path in paths.items():
        if present(comfyui, models, [name]):
            continue
        from .random_weights import write_sparse  # pulls in torch

        start = time.perf_counter()
        tensors, fields = _build(name)
        write_sparse(path, tensors, {**fields, "format": "pt", _RECIPE: recipe})
        say(f"made {FILES[name]} ({path.stat().st_size / 1e6:.1f} MB) "
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
    comfyui, names = options.comfyui.resolve(), options.only or FILES
    unknown = sorted(set(names) - FILES.keys())
    if unknown:
        parser.error(f"no model named {', '.join(unknown)}; there are {', '.join(FILES)}")
    import_comfyui(comfyui)
    make(comfyui, options.models.resolve(), names, say=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
