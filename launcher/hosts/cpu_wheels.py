"""torch without CUDA for the embedded host: 1.9 GB on disk instead of 5.3, and how it is done.

PyPI's torchvision and torchaudio are built against CUDA's libraries. torchvision then lacks its
compiled operators but imports once two of them are declared; torchaudio only has to forget its
compiled part. Neither is used by what the host needs here.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

from ..problems import Problem

_SHIM = "_likeness_torchvision_shim"
_SHIM_SOURCE = '''\
"""Declares the operators that torchvision registers against, when torch has no CUDA."""

import importlib.abc
import sys


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda is None:
                global library
                library = torch.library.Library("torchvision", "FRAGMENT")
                for operator in ("nms", "qnms"):
                    library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold)"
                                   " -> Tensor")
        return None


sys.meta_path.insert(0, _Finder())
'''


def apply() -> bool:
    """Whether this system's ordinary torch wheels are for CUDA at all."""
    return sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64")


def write_pins(pins: Path, target: Path) -> Path:
    """Write the pins for a host without CUDA: torch's CPU build, none of its GPU libraries."""
    lines = [line for line in pins.read_text(encoding="utf-8").splitlines()
             if not re.match(r"(nvidia-|cuda-|triton==)", line)]
    text = re.sub(r"^(torch==[\d.]+)", r"\1+cpu", "\n".join(lines), flags=re.MULTILINE)
    target.write_text(text + "\n", encoding="utf-8")
    return target


def make_importable(python: Path) -> None:
    """Let torchvision and torchaudio import beside a torch without CUDA; with CUDA do nothing.

    Raises:
        Problem: they still do not.
    """
    where = subprocess.run([str(python), "-c", "import sysconfig; "
                            "print(sysconfig.get_path('purelib'))"],
                           capture_output=True, text=True, check=True).stdout.strip()
    packages = Path(where)
    if not any(packages.glob("torch-*+cpu.dist-info")):
        return
    (packages / f"{_SHIM}.py").write_text(_SHIM_SOURCE, encoding="utf-8")
    (packages / f"{_SHIM}.pth").write_text(f"import {_SHIM}\n", encoding="utf-8")
    for library in (packages / "torchaudio" / "lib").glob("*.so"):
        library.unlink()
    check = subprocess.run([str(python), "-c", "import torchaudio, torchvision.transforms.v2"],
                           capture_output=True, text=True)
    if check.returncode:
        raise Problem("torchvision does not import beside the CPU build of torch: "
                      f"{check.stderr.strip().splitlines()[-1]}; set up without --cpu-wheels.")
