"""Unfinished runs on disk: which one a job goes on with, and which it refuses to mix up."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import LikenessError
from ...files import forget_partials, write_whole
from ..steps.loop import Trainer
from ..steps.state import read_state, write_state
from .job import ANEW, Job, differences
from .looking import Watch

logger = logging.getLogger("likeness")

WRITE_SHARE = 20.0  # seconds of training for each second of writing states
STATE_SECONDS = 300.0  # of training that a power loss may cost, however long a step takes


class Saved:
    """The place of a job's state on disk, with a note of the inputs it was made from."""

    def __init__(self, job: Job, key: str, inputs: Mapping[str, Any]) -> None:
        self.job, self.key, self.inputs = job, key, inputs
        self.path = job.work_folder / f"{key[:16]}.state"
        self.step = 0  # of the state on disk
        self._written, self._took = time.monotonic(), 0.0  # end of the last write, its seconds
        self._held = 0, 0  # steps and looks that the state on disk has

    @property
    def note(self) -> Path:
        """Beside the state: the run's name and inputs, readable without the state."""
        return self.path.with_suffix(".json")

    def restore(self, trainer: Trainer) -> Mapping[str, Any] | None:
        """Take the run up where it stopped; return what the session had added, None at a start.

        Raises:
            LikenessError: the state is damaged or of another run, or an unfinished run of the same
                name was made from other inputs; the text says which.
        """
        forget_partials(self.path)
        state = read_state(self.path)
        if state is None:
            if self.job.unfinished != ANEW:
                self._refuse_others()
            self._abandon_others()
            return None
        if state.key != self.key:
            raise LikenessError(f"The training state {self.path} belongs to another run; delete it "
                                "or choose another `name`.")
        if self.job.unfinished == ANEW:
            self.delete()
            self._abandon_others()
            return None
        trainer.restore(state)
        self.step = state.step
        self._held = state.step, len(state.extra.get("watch", {}).get("looks", ()))
        logger.info("Training of %s goes on after step %d.", self.job.name, state.step)
        return state.extra

    def due(self, regular: bool) -> bool:
        """Whether to write a state: at a regular step or when the last one is old.

        Both only where it is worth its time; a whole model's state takes a minute and more.
        """
        since = time.monotonic() - self._written
        return (regular or since >= STATE_SECONDS) and since >= WRITE_SHARE * self._took

    def write(self, trainer: Trainer, watch: Watch, measured: bool = True) -> None:
        """Store the run as it stands after the last finished step.

        Args:
            measured: whether the model was found sound after that step; where it was not asked,
                that is made up for when the run goes on.

        Raises:
            LikenessError: the disk is full or the folder cannot be written; the old state stays.
        """
        started = time.monotonic()
        write_state(self.path, trainer.state(self.key, watch=watch.state(), measured=measured))
        note = {"name": self.job.name, "step": trainer.step, "inputs": self.inputs}
        write_whole(self.note, lambda partial: partial.write_text(json.dumps(note)))
        self.step, self._held = trainer.step, (trainer.step, len(watch.looks))
        self._written, self._took = time.monotonic(), time.monotonic() - started

    def keep(self, trainer: Trainer, watch: Watch, measured: bool = True) -> None:
        """Store the run on its way out, if it stands between two steps and is not stored so."""
        if trainer.step == 0 or not trainer.whole:
            return
        if self._held == (trainer.step, len(watch.looks)) and self.path.exists():
            return
        try:
            self.write(trainer, watch, measured)
        except LikenessError as err:  # the reason for the end is what the user must read
            logger.warning("%s", err)

    def kept(self, nothing: str = "nothing was kept") -> str:
        """What of the run is on disk, for a sentence that says why it has ended.

        Args:
            nothing: what to say where there is no state.
        """
        return f"what was learned up to step {self.step} is kept" if self.step else nothing

    def delete(self) -> None:
        """Forget the run: what it made is in its files, or not worth keeping."""
        self.step, self._held = 0, (0, 0)
        for path in (self.path, self.note):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _others(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """The notes of other unfinished runs of the name that nobody has given up."""
        for path in sorted(self.job.work_folder.glob("*.json")):
            note = _read_note(path)
            if note is not None and note["name"] == self.job.name and path != self.note and (
                    not note.get("abandoned")):
                yield path, note

    def _abandon_others(self) -> None:
        """Have them refuse no further run; the same inputs still go on with their states."""
        for path, note in self._others():
            write_whole(path, lambda partial, note=note: partial.write_text(
                json.dumps({**note, "abandoned": True})))

    def _refuse_others(self) -> None:
        for _, note in self._others():
            changed = "; ".join(differences(note["inputs"], self.inputs))
            raise LikenessError(
                f"An unfinished run of `{self.job.name}` stopped at step {note['step']} with other "
                f"inputs: {changed}. Set that back to go on with it, set `unfinished` to {ANEW}, "
                "or choose another `name`.")


def _read_note(path: Path) -> dict[str, Any] | None:
    """A state's note; None without its state, or when it is damaged."""
    if not path.with_suffix(".state").exists():
        return None
    try:
        note = json.loads(path.read_text())
        return note if {"name", "step", "inputs"} <= note.keys() else None
    except (OSError, ValueError, AttributeError):
        return None
