"""Score pictures against a subject: a similarity, its place in the own spread, a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...errors import FaceNotFoundError, LikenessError
from ...faces.detect import find_faces
from ...faces.recognise import backends, embed
from ...faces.recognise.centre import robust_centre
from ...sockets import Face, Subject, Verdict
from ..bank.bank import ImpostorBank, shipped, weights_key
from ..calibration.calibration import Calibration, calibrate
from ..calibration.references import Nearness, nearness, own_spread

SEVERAL = ("largest", "most like the subject", "leave unscored", "error")
STATUSES = ("scored", "not_scoreable", "several_faces", "no_face")  # in the order of the ranking

# Beyond this recognisers compare head poses rather than people (SceneWorks pull request 979).
MAX_YAW = 35.0


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What pictures of one subject are measured with."""

    subject: Subject
    backend: str
    photos: np.ndarray  # (N, D) in the order of `subject.photos`
    centre: np.ndarray  # (D,) robust, of all photos
    held_out: np.ndarray | None  # (D,) of the photos that never train; None: there are none
    calibration: Calibration
    bank: ImpostorBank | None = None  # None: false accepts cannot be stated
    judges: tuple[Yardstick, ...] = ()  # each alone, where several recognisers judge together

    def similarity(self, embedding: np.ndarray) -> float:
        """How alike an embedding and the subject are."""
        return embed.similarity(embedding, self.centre, self.backend)


@dataclass(frozen=True)
class Opinion:
    """What one of several judges says by itself."""

    backend: str
    score: float
    verdict: Verdict


@dataclass(frozen=True)
class Score:
    """What was found out about one picture. Numbers are None unless the status is `scored`."""

    index: int  # in the batch
    status: str
    verdict: Verdict
    text: str  # why, one sentence
    score: float | None = None  # similarity to the robust centre of all the subject's photos
    held_out: float | None = None  # similarity to the robust centre of the held-out photos
    percentile: float | None = None  # of the subject's own photos, 0..100
    face: Face | None = None
    faces: int = 0  # how many faces the picture has
    above_strangers: float | None = None  # share of the bank's people who are less alike, 0..100
    near: Nearness | None = None  # to the single photos
    opinions: tuple[Opinion, ...] = ()  # of each judge alone; none: there is but one
    embedding: np.ndarray | None = field(default=None, compare=False, repr=False)  # (D,)

    @property
    def disputed(self) -> bool:
        """Whether the judges, each alone, would not give the same verdict."""
        return len({opinion.verdict for opinion in self.opinions}) > 1


def yardstick(subject: Subject, backend: str, bank: ImpostorBank | None = None) -> Yardstick:
    """Measure a subject's own photos with a recogniser.

    Args:
        bank: other people's faces; None takes what travels with the pack, if anything does.

    Raises:
        LikenessError: an unknown recogniser, a subject without photos, or a bank that was made
            with another recogniser or with other weights of it.
        MissingModelError: the recogniser's files are absent.
    """
    backends.require(backend)
    bank = shipped(backend) if bank is None else bank
    if bank is not None and bank.backend != backend:
        raise LikenessError(f"The bank holds faces for {bank.backend}, the judge is {backend}; "
                            "make a bank with the judge's recogniser.")
    if bank is not None and bank.weights != weights_key(backend):
        raise LikenessError(f"The bank was made with other weights of {backend} than the installed "
                            "ones, so its similarities say nothing here; make the bank again.")
    rows = embed.subject_embeddings(subject, backend)
    if not len(rows):
        raise LikenessError(f"`{subject.name}` has no photos to compare with; add photos.")
    return _measured(subject, backend, rows, bank)


def _measured(subject: Subject, backend: str, rows: np.ndarray,
              bank: ImpostorBank | None) -> Yardstick:
    parts = backends.parts_of(backend)
    judges = () if len(parts) == 1 else tuple(
        _measured(subject, part, own, None if bank is None else bank.part(part))
        for part, own in zip(parts, embed.split_parts(rows, backend), strict=True))
    centre = robust_centre(rows, backend)
    held_out = rows[len(subject.references):]
    calibration = calibrate(own_spread(rows, backend), backends.backend(backend).same_person,
                            *(() if bank is None else (bank.to(centre), bank.groups)))
    return Yardstick(subject, backend, rows, centre,
                     robust_centre(held_out, backend) if len(held_out) else None, calibration,
                     bank, judges)


def score_pictures(pictures: Iterable[np.ndarray], measure: Yardstick, several: str = "largest",
                   max_yaw: float = MAX_YAW,
                   on_item: Callable[[int], None] = lambda done: None) -> list[Score]:
    """Score pictures (H, W, 3) uint8 RGB in their order.

    Args:
        several: what to do with more than one face, one of `SEVERAL`.
        max_yaw: degrees; a head turned further has no score.
        on_item: called with the number of pictures done.

    Raises:
        LikenessError: an unknown policy, or several faces under the policy `error`.
    """
    if several not in SEVERAL:
        raise LikenessError(f"`several_faces` must be one of {', '.join(SEVERAL)}; got {several}.")
    scores = []
    for index, pixels in enumerate(pictures):
        scores.append(_score_picture(pixels, index, measure, several, max_yaw))
        on_item(index + 1)
    return scores


def _score_picture(pixels: np.ndarray, index: int, measure: Yardstick, several: str,
                   max_yaw: float) -> Score:
    faces = find_faces(pixels)
    if not faces:
        return Score(index, "no_face", Verdict.REJECT, "No face was found.")
    if len(faces) > 1 and several == "leave unscored":
        return Score(index, "several_faces", Verdict.UNSURE,
                     f"{len(faces)} faces were found, so it is open whom to score.",
                     faces=len(faces))
    if len(faces) > 1 and several == "error":
        raise LikenessError(f"{len(faces)} faces were found in image {index + 1} of the batch; "
                            "leave it out or choose another `several_faces` policy.")
    face = _choose(pixels, faces, measure, several)
    if abs(face.pose.yaw) > max_yaw:
        return Score(index, "not_scoreable", Verdict.UNSURE,
                     f"The head is turned {abs(face.pose.yaw):.0f} degrees; beyond {max_yaw:.0f} "
                     "a score would say nothing.", face=face, faces=len(faces))
    return _score_face(pixels, index, face, len(faces), measure)


def rescore(pixels: np.ndarray, score: Score, measure: Yardstick) -> Score:
    """Score the same face of the same picture with another recogniser.

    A picture without a score stays as it was.
    """
    if score.status != "scored" or score.face is None:
        return score
    return _score_face(pixels, score.index, score.face, score.faces, measure)


def _score_face(pixels: np.ndarray, index: int, face: Face, faces: int,
                measure: Yardstick) -> Score:
    embedding = _embed(pixels, face, measure)
    if embedding is None:
        return Score(index, "not_scoreable", Verdict.UNSURE,
                     "The recogniser does not see the face.", face=face, faces=faces)
    return _scored(embedding, index, face, faces, measure)


def _choose(pixels: np.ndarray, faces: Sequence[Face], measure: Yardstick, several: str) -> Face:
    if several != "most like the subject" or len(faces) == 1:
        return faces[0]
    embeddings = [_embed(pixels, face, measure) for face in faces]
    alike = [-np.inf if row is None else measure.similarity(row) for row in embeddings]
    return faces[int(np.argmax(alike))]


def _embed(pixels: np.ndarray, face: Face, measure: Yardstick) -> np.ndarray | None:
    try:
        return embed.embed(pixels, face, measure.backend)
    except FaceNotFoundError:
        return None


def _scored(embedding: np.ndarray, index: int, face: Face, faces: int,
            measure: Yardstick) -> Score:
    similarity = measure.similarity(embedding)
    held_out = None
    if measure.held_out is not None:
        held_out = embed.similarity(embedding, measure.held_out, measure.backend)
    verdict = measure.calibration.verdict(similarity)
    opinions = _opinions(embedding, measure)
    return Score(index, "scored", verdict, _TEXTS[verdict] + _dispute(opinions), similarity,
                 held_out, measure.calibration.percentile(similarity), face, faces,
                 measure.calibration.above_strangers(similarity),
                 nearness(embedding, measure.photos, measure.backend), opinions, embedding)


def _opinions(embedding: np.ndarray, measure: Yardstick) -> tuple[Opinion, ...]:
    """What each of several judges says alone."""
    if not measure.judges:
        return ()
    found = []
    rows = embed.split_parts(embedding, measure.backend)
    for judge, row in zip(measure.judges, rows, strict=True):
        alike = judge.similarity(row)
        found.append(Opinion(judge.backend, alike, judge.calibration.verdict(alike)))
    return tuple(found)


def _dispute(opinions: Sequence[Opinion]) -> str:
    """Who says what, where the judges disagree."""
    if len({opinion.verdict for opinion in opinions}) < 2:
        return ""
    told = ", ".join(f"{opinion.backend} alone says {opinion.verdict.value}"
                     for opinion in opinions)
    return f" The judges disagree: {told}."


_TEXTS = {
    Verdict.KEEP: "As alike as the subject's own photos are.",
    Verdict.UNSURE: "Could be the subject, but is less alike than the subject's own photos.",
    Verdict.REJECT: "Looks like somebody else.",
}


def rank(scores: Sequence[Score]) -> list[Score]:
    """Sort the best first; pictures without a score come last, in the order of the batch."""
    return sorted(scores, key=lambda score: (
        STATUSES.index(score.status), -(score.score or 0.0), score.index))
