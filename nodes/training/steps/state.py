"""A run's state on disk: written whole or not at all, and exact when it is taken up again."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...errors import LikenessError
from ...files import write_whole

logger = logging.getLogger("likeness")

FORMAT = 2

# States of cancelled runs that lie in one folder. Each holds adapters and optimiser, and one whose
# inputs have changed is never asked for again; three leave room to go back and forth between two
# settings. Those of a whole model take tens of gigabytes each: the newest and the one before it
# stay, so that a short run does not cost a long one that waits, others only within this size.
KEPT_STATES = 3
KEPT_BYTES = 8 * 2 ** 30


@dataclass(frozen=True, eq=False)
class RunState:
    """Everything a run needs to go on as if it had not stopped.

    Random draws are not part of it: each step's come from the seed and the step's number alone.
    """

    key: str  # of the run: photos, captions, recipe, seed and base model
    step: int  # finished steps
    tensors: Mapping[str, torch.Tensor]  # learned values by name
    optimizer: Mapping[str, Any]  # the optimiser's and the average's state
    losses: tuple[float, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)  # what the session adds, plain values


def write_state(path: Path, state: RunState) -> None:
    """Store a state, whole or not at all; of the folder's others only the newest and few stay.

    Raises:
        LikenessError: the disk is full or the folder cannot be written; the old state stays.
    """
    stored = {"format": FORMAT, **vars(state), "tensors": dict(state.tensors),
              "losses": list(state.losses), "extra": dict(state.extra)}

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            try:
                torch.save(stored, file)
            except RuntimeError as err:  # torch's way to report a failed write
                raise OSError(str(err)) from err

    write_whole(path, write, durable=True)
    _prune(path)


def _prune(newest: Path) -> None:
    others = [path for path in newest.parent.glob("*.state") if path != newest]
    others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    size = newest.stat().st_size
    for place, path in enumerate(others, start=1):
        size += path.stat().st_size
        if place == 1 or place < KEPT_STATES and size <= KEPT_BYTES:
            continue
        try:
            path.unlink()
            logger.info("The state of a cancelled run, %s, made room for newer ones.", path)
            path.with_suffix(".json").unlink(missing_ok=True)  # its note
        except OSError as err:  # held open elsewhere; the next state tries again
            logger.warning("The old training state %s could not be deleted (%s).", path, err)


def read_state(path: Path) -> RunState | None:
    """Read a run's state; None when there is none.

    Raises:
        LikenessError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        # Tensors born under inference mode could not be updated by an optimiser outside of it.
        with torch.inference_mode(False):
            stored = torch.load(path, map_location="cpu", weights_only=True)
        if stored.pop("format") != FORMAT:
            raise KeyError("format")
        return RunState(**{**stored, "losses": tuple(stored["losses"])})
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, AttributeError,
            pickle.UnpicklingError) as err:
        raise LikenessError(f"The training state {path} cannot be read ({err}); delete it to "
                            "start this run again.") from err
