"""What one run of sd-scripts is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Settings:
    """What one run of sd-scripts is told, and what of the recipe it cannot be told."""

    script: str
    arguments: dict[str, Any] = field(default_factory=dict)
    subset: dict[str, Any] = field(default_factory=dict)  # of the data set's file
    preset: dict[str, Any] | None = None  # LyCORIS' file of the layers that learn
    lost: dict[str, str] = field(default_factory=dict)  # recipe field -> why, or what is done
    handled: set[str] = field(default_factory=set)

    def take(self, *names: str) -> None:
        """Note recipe fields as expressed in the arguments."""
        self.handled.update(names)

    def lose(self, name: str, reason: str) -> None:
        """Note a recipe field that the script cannot follow exactly."""
        self.handled.add(name)
        self.lost[name] = reason
