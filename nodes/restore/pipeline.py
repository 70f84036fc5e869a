"""Restore the faces of a batch of pictures and say what was done to each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..errors import LikenessError
from ..faces.align import FFHQ_512, five_points, similarity_transform
from ..faces.detect import find_faces
from ..faces.mesh import face_mask
from ..media.images import to_uint8
from ..sockets import EMPTY, Face
from .guard import LOWERS, SOMEBODY_ELSE, UNSEEN, Judge, Trial, strongest
from .paste import cut, paste
from .registry import CHIP, Restorer, restore_chip

SUBJECT_FACE = "most like the subject"
WHICH = ("all", "largest", SUBJECT_FACE)
NO_FACE = ("keep the picture", "error")

Network = Callable[[torch.Tensor], torch.Tensor]  # (1, 3, 512, 512) in [-1, 1] -> the same


@dataclass(frozen=True)
class Settings:
    """What the user asked of a restoration."""

    strength: float = 0.8  # 0 leaves the face, 1 shows the restored one alone
    guard: bool = True
    which: str = "all"
    no_face: str = "keep the picture"
    grow: float = -0.05  # share of the face; below 0 the mask's soft edge stays inside it

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise LikenessError(f"`strength` must be between 0 and 1, got {self.strength}.")
        if self.which not in WHICH:
            raise LikenessError(f"`faces` must be one of {', '.join(WHICH)}; got {self.which}.")
        if self.no_face not in NO_FACE:
            raise LikenessError(f"`no_face` must be one of {', '.join(NO_FACE)}; "
                                f"got {self.no_face}.")


@dataclass(frozen=True)
class Outcome:
    """How hard one face was restored, and why."""

    strength: float
    before: float | None  # likeness; None: the recogniser sees no face
    after: float | None
    trials: tuple[Trial, ...] = ()
    reason: str = ""  # why the face stayed as it was
    # By each of several judges alone, before and after; empty: there is one judge.
    alone: Mapping[str, tuple[float, float]] = field(default_factory=lambda: EMPTY)

    @property
    def disputed(self) -> bool:
        """Whether one judge alone finds the face less alike than before, and another does not."""
        return len({after < before for before, after in self.alone.values()}) > 1


def restore_images(images: torch.Tensor, network: Network, judge: Judge, settings: Settings,
                   on_item: Callable[[int], None] = lambda done: None,
                   ) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """Restore the chosen faces of every picture.

    Args:
        images: (B, H, W, 3) in [0, 1]; not changed.
        network: the restorer, as `restore_chip` calls it.
        judge: measures likeness before and after.
        on_item: called with the number of pictures done.

    Returns:
        (B, H, W, 3) and one report entry for each picture.

    Raises:
        LikenessError: a picture without a face under the policy `error`.
    """
    restored, entries = [], []
    for index, image in enumerate(images):
        result, entry = _restore_picture(image[..., :3], index, network, judge, settings)
        restored.append(result)
        entries.append(entry)
        on_item(index + 1)
    return torch.stack(restored), entries


def _restore_picture(image: torch.Tensor, index: int, network: Network, judge: Judge,
                     settings: Settings) -> tuple[torch.Tensor, dict[str, Any]]:
    pixels = to_uint8(image)
    faces = find_faces(pixels)
    if not faces:
        if settings.no_face == "error":
            raise LikenessError(f"No face found in image {index + 1} of the batch; leave it out, "
                                "or set `no_face` to keep such pictures as they are.")
        return image, {"index": index, "status": "no_face", "faces_found": 0, "faces": []}
    entries = []
    for face in _choose(pixels, faces, judge, settings.which):
        image, entry = _restore_face(image, face, network, judge, settings)
        entries.append(entry)
    status = "restored" if any(e["status"] == "restored" for e in entries) else "unchanged"
    return image, {"index": index, "status": status, "faces_found": len(faces), "faces": entries}


def _choose(pixels: np.ndarray, faces: Sequence[Face], judge: Judge, which: str) -> Sequence[Face]:
    if which == "all":
        return faces
    if which == "largest":
        return faces[:1]
    looks = [judge.look(pixels, face) for face in faces]
    alike = [judge.likeness(look, look) for look in looks]
    seen = [place for place, value in enumerate(alike) if value is not None]
    return [faces[max(seen, key=lambda place: alike[place])]] if seen else []


def _restore_face(image: torch.Tensor, face: Face, network: Network, judge: Judge,
                  settings: Settings) -> tuple[torch.Tensor, dict[str, Any]]:
    height, width = image.shape[:2]
    to_chip = similarity_transform(five_points(face), FFHQ_512)
    mask = torch.from_numpy(face_mask(face, height, width, settings.grow)).to(image.device)
    chip = restore_chip(network, cut(image, to_chip, CHIP)).to(image.device)

    def blended(strength: float) -> torch.Tensor:
        return paste(image, chip, to_chip, mask, strength)

    outcome = _decide(image, blended, face, judge, settings)
    result = blended(outcome.strength) if outcome.strength > 0 else image
    entry = _entry(face, outcome, judge)
    entry["mean_change"] = round(_mean_change(image, result, mask), 5)
    # Below 1 the network saw the face smaller than it is, so restoring costs detail.
    entry["chip_pixels_per_pixel"] = round(float(np.hypot(*to_chip[0, :2])), 3)
    return result, entry


def _decide(image: torch.Tensor, blended: Callable[[float], torch.Tensor], face: Face,
            judge: Judge, settings: Settings) -> Outcome:
    look_before = judge.look(to_uint8(image), face)
    before = judge.likeness(look_before, look_before)

    seen: dict[float, np.ndarray | None] = {}

    def measure(strength: float) -> float | None:
        seen[strength] = judge.look(to_uint8(blended(strength)), face)
        return judge.likeness(seen[strength], look_before)

    def alone(strength: float) -> dict[str, tuple[float, float]]:
        after = judge.alone(seen[strength], look_before)
        return {id: (value, after[id]) for id, value
                in judge.alone(look_before, look_before).items() if id in after}

    if settings.strength == 0:
        return Outcome(0.0, before, before, reason="The strength is 0.")
    if not settings.guard:
        after = measure(settings.strength)
        return Outcome(settings.strength, before, after, (Trial(settings.strength, after),),
                       alone=alone(settings.strength))
    if before is None:
        return Outcome(0.0, None, None, reason=UNSEEN)
    whole = judge.look(to_uint8(blended(1.0)), face)
    if not judge.same_person(whole, look_before):
        trial = Trial(1.0, judge.likeness(whole, look_before))
        return Outcome(0.0, before, before, (trial,), SOMEBODY_ELSE)
    strength, trials = strongest(measure, settings.strength, judge.least(before))
    if strength == 0:
        return Outcome(0.0, before, before, trials, LOWERS)
    return Outcome(strength, before, trials[-1].likeness, trials, alone=alone(strength))


def _mean_change(before: torch.Tensor, after: torch.Tensor, mask: torch.Tensor) -> float:
    """Mean absolute change of values in [0, 1] inside the mask."""
    inside = mask > 0
    return float((after - before)[inside].abs().mean()) if bool(inside.any()) else 0.0


def _entry(face: Face, outcome: Outcome, judge: Judge) -> dict[str, Any]:
    return {
        "box": [round(float(edge), 1) for edge in face.box],
        "status": "restored" if outcome.strength > 0 else "unchanged",
        "reason": outcome.reason,
        "strength": round(outcome.strength, 3),
        "likeness_before": _round(outcome.before),
        "likeness_after": _round(outcome.after),
        "judges": {id: {"before": _round(first), "after": _round(last)}
                   for id, (first, last) in outcome.alone.items()},
        "judges_differ": outcome.disputed,
        "compared_with": judge.compared_with,
        "tried": [{"strength": round(trial.strength, 3), "likeness": _round(trial.likeness)}
                  for trial in outcome.trials],
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def report(entries: Sequence[dict[str, Any]], restorer: Restorer, settings: Settings,
           backend: str) -> dict[str, Any]:
    """Sum up a restoration for the JSON output."""
    architecture = restorer.architecture
    if architecture is None:
        return {"status": "bypassed", "restorer": None,
                "text": "No restorer was chosen; the pictures are as they came."}
    faces = [face for entry in entries for face in entry["faces"]]
    refused = sum(face["status"] == "unchanged" for face in faces)
    return {
        "status": "restored" if refused < len(faces) else "unchanged",
        "restorer": {"file": restorer.file, "architecture": architecture.id,
                     "licence": architecture.licence},
        "judge": backend,
        "guard": settings.guard,
        "strength": settings.strength,
        "faces_restored": len(faces) - refused,
        "faces_left": refused,
        "pictures_without_face": sum(entry["status"] == "no_face" for entry in entries),
        "judges_differ": sum(face["judges_differ"] for face in faces),
        "mean_likeness_before": _mean([face["likeness_before"] for face in faces]),
        "mean_likeness_after": _mean([face["likeness_after"] for face in faces]),
        "text": _sentence(len(faces), refused, settings),
        "images": list(entries),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 4) if known else None


def _sentence(faces: int, refused: int, settings: Settings) -> str:
    if not faces:
        return "No face was found, so the pictures are as they came."
    text = f"{faces - refused} of {faces} faces were restored."
    if refused and settings.guard and settings.strength > 0:
        text += f" {refused} stayed as they were, so as not to lose likeness."
    return text
