"""Looks at a run: sample pictures from fixed seeds, and how like the person they are.

Two numbers belong together. Likeness is the similarity to photos that never train; copy-paste
says by how much a picture is nearer to one training photo than to what the person looks like
elsewhere, by the formula that scores use. Real photos of one person are far from equal (a median
cosine near 0.46, https://arxiv.org/abs/2510.14975), so that likeness alone is best for a copy.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FaceNotFoundError, LikenessError
from ...faces.detect import find_faces
from ...faces.recognise import backends, embed
from ...faces.recognise.centre import robust_centre
from ...faces.recognise.copying import copy_paste
from ...media.images import read_photo
from ...sockets import EMPTY, Subject
from ..pictures.sampling import Sampling, decode, encode_text, latent_size, sample, write_png
from .stopping import HELD_OUT, Mark, StopRule

SCORED, NO_FACE, NOT_SCOREABLE = "scored", "no_face", "not_scoreable"
DEFAULT_PROMPTS = "a photo of {subject}\na portrait of {subject} outdoors, smiling"

# Beyond this recognisers compare head poses rather than people (SceneWorks pull request 979).
_MAX_YAW = 35.0


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """When to look at a run, at what, and when to end it.

    Raises:
        LikenessError: no prompt, an unknown recogniser, or a number out of range.
    """

    every: int = 200  # steps between looks; 0: no looks
    prompts: tuple[str, ...] = tuple(DEFAULT_PROMPTS.splitlines())  # used in turn
    negative: str = ""
    pictures: int = 4  # in each look
    seed: int = 0  # of the first picture; the same in every look
    width: int = 0  # pixels; 0: as the photos train
    height: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    backend: str = backends.BOTH  # the recogniser that judges
    rule: StopRule = field(default_factory=StopRule)

    def __post_init__(self) -> None:
        backends.backend(self.backend)
        if not self.prompts:
            raise LikenessError("`prompts` must have at least one line, such as a photo of "
                                "{subject}.")
        for name, low, high in (("every", 0, 10**6), ("pictures", 1, 64), ("width", 0, 8192),
                                ("height", 0, 8192)):
            if not low <= getattr(self, name) <= high:
                raise LikenessError(f"`{name}` must be {low} to {high}, got {getattr(self, name)}.")

    def due(self, step: int, steps: int) -> bool:
        """Whether to look after so many finished steps of a run; the last state is looked at."""
        return self.every > 0 and (step % self.every == 0 or step == steps)

    def texts(self, subject: Subject) -> tuple[str, ...]:
        """The prompt of each picture of a look, its fields filled in."""
        words = {"{subject}": f"{subject.trigger} {subject.class_noun}".strip(),
                 "{trigger}": subject.trigger, "{class}": subject.class_noun}
        filled = []
        for index in range(self.pictures):
            text = self.prompts[index % len(self.prompts)]
            for name, word in words.items():
                text = text.replace(name, word)
            filled.append(text)
        return tuple(filled)

    def as_dict(self) -> dict[str, Any]:
        """Every field as plain values, for reports and run keys."""
        return {**dataclasses.asdict(self), "prompts": list(self.prompts)}


@dataclass(frozen=True, eq=False)
class Judge:
    """What pictures of one person are measured with."""

    backend: str
    centre: np.ndarray  # (D,) robust, of the held-out photos, or of all when there are none
    held_out: bool  # whether the centre is that of photos that never train
    training: np.ndarray  # (N, D) of the photos that train
    names: tuple[str, ...]  # of these
    others: np.ndarray  # (M, D) of the photos that never train; of those that do without any

    def alone(self, row: np.ndarray) -> dict[str, float]:
        """Likeness of an embedding (D,) by each of several judges; empty where there is one."""
        parts = backends.parts_of(self.backend)
        rows = zip(parts, *(embed.split_parts(one, self.backend) for one in (row, self.centre)),
                   strict=True)
        return {} if len(parts) == 1 else {
            part: _rounded(embed.similarity(own, centre, part)) for part, own, centre in rows}

    def copy_paste(self, row: np.ndarray, place: int) -> float | None:
        """Copy-paste of an embedding (D,) and the training photo at a place; None: it is all."""
        others = self.others if self.held_out else np.delete(self.others, place, axis=0)
        if not len(others):
            return None
        return copy_paste(row, others, self.training[place], self.backend)

    @property
    def measured(self) -> str:
        """What its likeness is called."""
        return HELD_OUT if self.held_out else "likeness to all photos (none is held out)"


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture of a look. Numbers are None unless the status is `scored`.

    They have four decimals, so that a run that goes on from a report decides as one that did not
    stop.
    """

    prompt: str
    seed: int
    status: str
    faces: int = 0
    likeness: float | None = None  # to the judge's centre
    nearest: float | None = None  # to the nearest single training photo
    nearest_photo: str = ""
    copy: float | None = None  # None also when one photo is all there is to compare with
    # Likeness by each of several judges alone; none: there is but one.
    judges: Mapping[str, float] = field(default_factory=lambda: EMPTY)
    file: str = ""  # name of the picture's file, once saved
    # (H, W, 3) uint8; None once saved, since those of a long run would fill the memory.
    pixels: np.ndarray | None = None
    embedding: np.ndarray | None = None  # (D,) by the judge; None once saved
    folder: Path | None = None  # where the file lies

    def as_dict(self) -> dict[str, Any]:
        """Everything but pixels, embedding and where they lie."""
        plain = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)
                 if entry.name not in ("pixels", "embedding", "folder")}
        return {**plain, "judges": dict(self.judges)}

    def picture(self) -> np.ndarray | None:
        """The pixels, read from the file once they were saved; None when that is gone."""
        if self.pixels is not None or self.folder is None or not self.file:
            return self.pixels
        try:
            return read_photo(self.folder / self.file)
        except OSError:  # deleted since; the numbers are what counts
            return None


@dataclass(frozen=True, eq=False)
class Look:
    """What was seen after a number of finished steps."""

    step: int
    backend: str
    held_out: bool  # whether likeness is to photos that never train
    shots: tuple[Shot, ...]

    @property
    def likeness(self) -> float | None:
        """Median over the scored pictures; None without any."""
        return _median([shot.likeness for shot in self.shots])

    @property
    def copy(self) -> float | None:
        """Median copy-paste over the scored pictures."""
        return _median([shot.copy for shot in self.shots])

    @property
    def scored(self) -> int:
        """How many pictures have a face that could be compared."""
        return sum(shot.status == SCORED for shot in self.shots)

    @property
    def judges(self) -> dict[str, float]:
        """The median by each of several judges alone."""
        known = [shot.judges for shot in self.shots if shot.judges]
        return {id: statistics.median(one[id] for one in known)
                for id in (known[0] if known else ())}

    @property
    def mark(self) -> Mark:
        """What the stop rule reads."""
        return Mark(self.step, self.likeness, self.copy, self.scored, len(self.shots))

    def summary(self) -> dict[str, Any]:
        """The numbers alone, for events and a file's metadata; names no photo."""
        return {"step": self.step, "likeness": _rounded(self.likeness),
                "copy": _rounded(self.copy), "scored": self.scored, "pictures": len(self.shots),
                "judges": {id: _rounded(value) for id, value in self.judges.items()},
                "backend": self.backend, "held_out": self.held_out}

    def as_dict(self) -> dict[str, Any]:
        """The numbers and every picture's, for reports and for going on with a run."""
        return {**self.summary(), "shots": [shot.as_dict() for shot in self.shots]}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], folder: Path | None = None) -> Look:
        """Read what `as_dict` gave; the pictures are read from the folder when they are asked."""
        shots = tuple(Shot(**shot, folder=folder) for shot in plain["shots"])
        return cls(plain["step"], plain["backend"], plain["held_out"], shots)

    def saved(self, folder: Path) -> Look:
        """Write the pictures as step_000200_0.png and so on; gives the look with their names alone.

        Raises:
            LikenessError: the folder cannot be written.
        """
        shots = []
        for index, shot in enumerate(self.shots):
            name = f"step_{self.step:06d}_{index}.png"
            write_png(folder / name, shot.pixels)
            shots.append(dataclasses.replace(shot, file=name, pixels=None, embedding=None,
                                             folder=folder))
        return dataclasses.replace(self, shots=tuple(shots))


def judge_for(subject: Subject, backend: str = backends.BOTH) -> Judge:
    """Measure a subject's own photos, so that pictures can be compared with them.

    Raises:
        LikenessError: the subject has no photo that trains, or a photo is gone.
        MissingModelError: the recogniser's files are absent.
    """
    backends.require(backend)
    if not subject.references:
        raise LikenessError(f"`{subject.name}` has no reference photos to compare with; add "
                            "photos or disconnect the monitor.")
    rows = embed.subject_embeddings(subject, backend)
    count = len(subject.references)
    held_out = rows[count:]
    return Judge(backend, robust_centre(held_out if len(held_out) else rows, backend),
                 len(held_out) > 0, rows[:count], tuple(photo.name for photo in subject.references),
                 held_out if len(held_out) else rows)


def look(model: Any, clip: Any, vae: Any, subject: Subject, monitor: Monitor, step: int,
         judge: Judge, training_size: tuple[int, int] = (1024, 1024),
         on_picture: Callable[[int, np.ndarray], None] = lambda done, pixels: None) -> Look:
    """Sample a monitor's pictures and judge them; seeds are fixed, so looks can be compared.

    Args:
        model: MODEL with what has been learned so far as ordinary patches.
        clip: the text encoder, with what has been learned so far.
        training_size: width and height in pixels where the monitor names none.
        on_picture: called with the number of pictures so far and the newest one.

    Raises:
        LikenessError: there is no VAE or no text encoder.
        runtime.Interrupted: the user pressed cancel.
    """
    size = latent_size(vae, monitor.width or training_size[0],
                       monitor.height or training_size[1])
    texts = monitor.texts(subject)
    encoded = {text: encode_text(clip, text) for text in {*texts, monitor.negative}}
    seeds = [monitor.seed + index for index in range(monitor.pictures)]
    # All latents first: model and VAE would take each other's place on a small card.
    latents = [sample(model, encoded[text], encoded[monitor.negative], size, seed,
                      monitor.sampling) for text, seed in zip(texts, seeds, strict=True)]
    seen = []
    for latent in latents:
        seen.append(decode(vae, latent))
        on_picture(len(seen), seen[-1])
    return judged(seen, texts, seeds, step, judge)


def judged(seen: Sequence[np.ndarray], texts: Sequence[str], seeds: Sequence[int], step: int,
           judge: Judge) -> Look:
    """Judge pictures (H, W, 3) uint8 by the largest face of each."""
    shots = [dataclasses.replace(_judged(pixels, judge), prompt=text, seed=seed, pixels=pixels)
             for pixels, text, seed in zip(seen, texts, seeds, strict=True)]
    return Look(step, judge.backend, judge.held_out, tuple(shots))


def _judged(pixels: np.ndarray, judge: Judge) -> Shot:
    faces = find_faces(pixels)
    if not faces:
        return Shot("", 0, NO_FACE)
    if abs(faces[0].pose.yaw) > _MAX_YAW:
        return Shot("", 0, NOT_SCOREABLE, len(faces))
    try:
        row = embed.embed(pixels, faces[0], judge.backend)
    except FaceNotFoundError:
        return Shot("", 0, NOT_SCOREABLE, len(faces))
    nearest, place = _nearest(row, judge.training, judge.backend)
    copy = judge.copy_paste(row, place)
    likeness = embed.similarity(row, judge.centre, judge.backend)
    return Shot("", 0, SCORED, len(faces), _rounded(likeness), _rounded(nearest),
                judge.names[place], _rounded(copy), judge.alone(row), embedding=row)


def _nearest(row: np.ndarray, others: np.ndarray, backend: str) -> tuple[float, int]:
    """The similarity of the most alike of several embeddings (N, D), and its place."""
    alike = [embed.similarity(row, other, backend) for other in others]
    place = int(np.argmax(alike))
    return alike[place], place


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
