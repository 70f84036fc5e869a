"""From curated photos to the Subject: who it is, what trains, what is held out, how it varies."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from ...errors import LikenessError
from ...faces.mesh import subject_mesh
from ...faces.recognise.backends import BOTH, parts_of
from ...faces.recognise.embed import embed_photo, leave_one_out, split_parts
from ...sockets import Photo, PhotoSet, Subject, Verdict
from ..curate.curate import count_rules
from ..curate.people import nobody_stands_out
from ..curate.sheet import BLUE, GREEN, Card, draw_sheet

_ADVICE = {
    "no_face": "use photos that show the face larger and upright",
    "several_faces": "crop them to one person",
    "too_small": "come closer or lower `min_face`",
    "cut_off": "use photos that show the whole face",
    "turned": "add frontal photos",
    "dark": "add light",
    "bright": "use softer light",
    "blurred": "use sharper photos or lower `min_sharpness`",
    "covered": "use photos without dark glasses, masks and hands before the face",
    "scribbled": "use photos without lines across the face",
    "drawn": "use photographs",
    "eyes_closed": "use photos with open eyes",
    "tilted": "turn the photos upright",
    "enlarged": "use the original files",
    "compressed": "use the original files",
    "duplicate": "add different shots",
    "somebody_else": "remove other people's photos",
    "unreadable": "export them as JPEG",
    "by_hand": "take back your own verdicts",
    "not_overridden": "use photos that show the face",
    "not_selected": "select more photos",
}


@dataclass(frozen=True)
class SubjectSettings:
    """The words for a person and how their photos are divided."""

    name: str
    trigger: str
    class_noun: str
    held_out: int  # photos kept from training; fewer when one reference must remain
    include_unsure: bool

    def __post_init__(self) -> None:
        if not self.name.strip() or re.search(r"[\\/:*?\"<>|\x00-\x1f]|\.$", self.name.strip()):
            raise LikenessError("`name` must be a plain name that can be a folder, without slashes "
                                f"and other special characters, got `{self.name}`.")
        if not re.fullmatch(r"[\w-]+", self.trigger.strip()):
            raise LikenessError(f"`trigger` must be one word of letters and digits that stands for "
                                f"the person in prompts, such as ohwx, got `{self.trigger}`.")
        if not self.class_noun.strip():
            raise LikenessError("`class_noun` must say what the subject is, such as person, man or "
                                "woman; it is empty.")
        if self.held_out < 0:
            raise LikenessError(f"`held_out` must be 0 or more, got {self.held_out}.")


def make_subject(photos: PhotoSet, settings: SubjectSettings,
                 on_photo: Callable[[int], None]) -> Subject:
    """Divide the usable photos, embed their faces and average their meshes.

    Args:
        on_photo: called with the number of finished photos; may raise to cancel.

    Raises:
        LikenessError: the photos are not curated, or fewer than two can be used.
    """
    usable = usable_photos(photos, settings.include_unsure)
    references, held_out = split(usable, settings.held_out)
    rows = []
    for done, photo in enumerate(references + held_out, start=1):
        rows.append(embed_photo(photo, BOTH))
        on_photo(done)
    embeddings = dict(zip(parts_of(BOTH), split_parts(np.stack(rows), BOTH), strict=True))
    for part in embeddings.values():
        part.setflags(write=False)
    spreads = {id: leave_one_out(part, id) for id, part in embeddings.items()}
    spreads[BOTH] = leave_one_out(np.stack(rows), BOTH)
    return Subject(
        name=settings.name.strip(), trigger=settings.trigger.strip(),
        class_noun=settings.class_noun.strip(), references=references, held_out=held_out,
        embeddings=MappingProxyType(embeddings), spread=MappingProxyType(spreads),
        mesh=subject_mesh([photo.face for photo in references + held_out if photo.face]))


def usable_photos(photos: PhotoSet, include_unsure: bool) -> tuple[Photo, ...]:
    """The photos that may make a subject: kept ones, unsure ones too if asked.

    Raises:
        LikenessError: fewer than two; says which rule spoke against how many and what to do.
    """
    if any(photo.verdict is None for photo in photos.photos):
        raise LikenessError("These photos have no verdicts yet; connect the output of Curate "
                            "Photos instead of Load Photos.")
    wanted = {Verdict.KEEP, Verdict.UNSURE} if include_unsure else {Verdict.KEEP}
    usable = tuple(photo for photo in photos.photos
                   if photo.verdict in wanted and photo.face is not None)
    if len(usable) >= 2:
        return usable
    different = nobody_stands_out(photos.photos)
    if different:
        raise LikenessError(f"{different} A subject needs at least 2 photos of one (one to train "
                            "on, one to compare with).")
    total = len(photos.photos)
    counts = count_rules(photos)
    ruled = ", ".join(f"{rule} {count}" for rule, count in counts.items()) or "nothing"
    advice = "; ".join(f"{rule}: {_ADVICE[rule]}" for rule in list(counts)[:3] if rule in _ADVICE)
    verdicts = Counter(photo.verdict for photo in photos.photos)
    unsure = verdicts[Verdict.UNSURE]
    remedy = f"set `include_unsure` to use {unsure} more, or " if unsure and not include_unsure \
        else ""
    found = "Only 1" if usable else "None"
    raise LikenessError(
        f"{found} of {total} photos can be used and a subject needs at least 2 (one to train on, "
        f"one to compare with); rules against photos: {ruled}; {remedy}add more photos of this "
        f"person{f' ({advice})' if advice else ''}.")


def split(photos: tuple[Photo, ...], held_out: int) -> tuple[tuple[Photo, ...], tuple[Photo, ...]]:
    """Divide photos into references and held-out ones, both in the given order.

    The held-out ones are spread evenly over the head's yaw, so that the judge sees the person from
    the sides the references show; at least one reference remains. The same photos always divide
    alike.
    """
    count = min(held_out, len(photos) - 1)
    by_yaw = sorted(range(len(photos)), key=lambda i: (photos[i].face.pose.yaw, photos[i].name))
    chosen = {by_yaw[int((k + 0.5) * len(photos) / count)] for k in range(count)}
    return (tuple(photo for i, photo in enumerate(photos) if i not in chosen),
            tuple(photo for i, photo in enumerate(photos) if i in chosen))


def subject_sheet(subject: Subject) -> np.ndarray:
    """Draw the references and the held-out photos: (H, W, 3) uint8."""
    likeness = subject.spread[BOTH].similarities
    cards = []
    for place, photo in enumerate(subject.photos):
        trains = place < len(subject.references)
        cards.append(Card(photo, "REFERENCE" if trains else "HELD OUT", GREEN if trains else BLUE,
                          f"{'May train and be injected' if trains else 'Never trains; judges'}. "
                          f"Likeness to the others {likeness[place]:.2f}."))
    title = (f"{subject.name}: \"{subject.trigger} {subject.class_noun}\",  "
             f"{len(subject.references)} references,  {len(subject.held_out)} held out")
    return draw_sheet(cards, title)


def report(subject: Subject, settings: SubjectSettings) -> dict[str, Any]:
    """The subject as JSON data."""
    spread = subject.spread[BOTH]
    return {
        "name": subject.name,
        "trigger": subject.trigger,
        "class_noun": subject.class_noun,
        "references": [str(photo.file) for photo in subject.references],
        "held_out": [str(photo.file) for photo in subject.held_out],
        "held_out_asked": settings.held_out,
        "recogniser": BOTH,
        "spread": {"low": round(spread.low, 4), "median": round(spread.median, 4),
                   "similarities": [round(value, 4) for value in spread.similarities]},
        "yaw": [round(photo.face.pose.yaw, 1) if photo.face else None for photo in subject.photos],
    }
