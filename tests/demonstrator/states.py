"""What the training scripts share: a state that survives any kill, averages, arguments."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch


def write(content: Any, file: Path) -> None:
    """Write a file whole or not at all."""
    part = file.with_suffix(".part")
    torch.save(content, part)
    os.replace(part, file)


class State:
    """Parts of a training (whatever has a state_dict) with the number of the step and seconds."""

    def __init__(self, file: Path, parts: Mapping[str, Any]) -> None:
        self.file, self.parts = file, parts
        self.step, self.seconds = 0, 0.0
        if file.is_file():
            stored = torch.load(file, weights_only=True)
            for name, part in parts.items():
                part.load_state_dict(stored[name])
            self.step, self.seconds = stored["step"], stored["seconds"]

    def store(self) -> None:
        write({name: part.state_dict() for name, part in self.parts.items()}
              | {"step": self.step, "seconds": self.seconds}, self.file)


def follow(averages: Sequence[torch.nn.Module], networks: Sequence[torch.nn.Module], step: int,
           most: float) -> None:
    """Move averages towards the weights; each step keeps a share of them that grows to `most`."""
    keep = min(most, (step + 1) / (step + 10))
    with torch.no_grad():
        for average, network in zip(averages, networks, strict=True):
            for mean, value in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(value, 1 - keep)


def run(train: Callable[[Path, float, Path | None], None], about: str) -> None:
    """Train as the command line says: WORK --minutes M [--start CHECKPOINT]."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, required=True, help="of training in all")
    parser.add_argument("--start", type=Path, metavar="CHECKPOINT")
    options = parser.parse_args()
    train(options.work, options.minutes, options.start)
