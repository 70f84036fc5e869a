"""Class photos before the judge of photos: a clear face of one person who is not the subject."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import LikenessError
from ...faces.recognise.embed import subject_embeddings
from ...faces.recognise.points import as_points
from ...quality.judge import judge
from ...quality.look import RECOGNISER, Seen, look
from ...quality.rules import Rules
from ...sockets import Reason, Subject, Verdict
from .class_photos import ClassPhoto

JUDGE = ("report", "leave out", "off")
# Class photos show what a class looks like, from close-up to full body: a face may be small, but
# below 64 pixels it is no more than eight cells of a latent. A base that draws shall go on drawing.
RULES = Rules(min_face=64, even=1.0, strokes=(1.0, 1.0))


@dataclass(frozen=True)
class Judged:
    """One class photo and what speaks against it."""

    photo: ClassPhoto
    reasons: tuple[Reason, ...]

    @property
    def rejected(self) -> bool:
        """Whether the judge would leave it out."""
        return any(reason.verdict is Verdict.REJECT for reason in self.reasons)


def judge_pictures(photos: Sequence[ClassPhoto], subject: Subject | None,
                   on_photo: Callable[[int], None]) -> tuple[Judged, ...]:
    """Look at every picture and judge it by `RULES`.

    Args:
        subject: who the pictures must not show; None: not known.
        on_photo: called with the number of finished pictures; may raise to cancel.

    Raises:
        LikenessError: a picture is gone.
    """
    centre = None
    if subject is not None and subject.photos:
        centre = as_points(subject_embeddings(subject, RECOGNISER), RECOGNISER).mean(0)
    judged = []
    for done, photo in enumerate(photos, start=1):
        try:
            seen = look(photo.picture, hashlib.sha256(photo.picture.read_bytes()).hexdigest())
        except OSError as err:
            raise LikenessError(f"The class photo {photo.picture.name} cannot be read "
                                f"({err.strerror or err}); run Class Photos again.") from err
        found = _shows_subject(seen, centre, subject.name if subject is not None else "")
        judged.append(Judged(photo, (*judge(seen, RULES), *found)))
        on_photo(done)
    return tuple(judged)


def kept(judged: Sequence[Judged]) -> list[ClassPhoto]:
    """The photos that are not rejected.

    Raises:
        LikenessError: all are.
    """
    photos = [entry.photo for entry in judged if not entry.rejected]
    if not photos:
        counts = ", ".join(f"{rule} {count}" for rule, count in _by_rule(judged).items())
        raise LikenessError(f"All {len(judged)} class photos are rejected ({counts}); look at "
                            "them, change `prompt` or `steps`, or set `judge_photos` to report.")
    return photos


def judged_report(judged: Sequence[Judged], left_out: bool) -> dict[str, Any]:
    """Counts and reasons as JSON data."""
    rejected = sum(entry.rejected for entry in judged)
    return {
        "kept": len(judged) - rejected if left_out else len(judged),
        "rejected": rejected,
        "left_out": rejected if left_out else 0,
        "by_rule": _by_rule(judged),
        "photos": [{"file": entry.photo.picture.name, "rejected": entry.rejected,
                    "reasons": [reason.text for reason in entry.reasons]}
                   for entry in judged if entry.reasons],
    }


def _by_rule(judged: Sequence[Judged]) -> dict[str, int]:
    return dict(Counter(reason.rule for entry in judged for reason in entry.reasons
                        if reason.verdict is Verdict.REJECT).most_common())


def _shows_subject(seen: Seen, centre: np.ndarray | None, name: str) -> tuple[Reason, ...]:
    """Whether one of the faces is the subject's, by the limits that tell photos apart."""
    distances = [float(np.linalg.norm(face.embedding - centre)) for face in seen.faces
                 if centre is not None and face.embedding is not None]
    near, far = RULES.stranger
    if not distances or min(distances) > far:
        return ()
    certain = min(distances) <= near
    return (Reason("the_subject", f"This {'is' if certain else 'may be'} {name}: the face is "
                   f"{min(distances):.2f} away from the subject's; class photos show other "
                   "people.", Verdict.REJECT if certain else Verdict.UNSURE),)
