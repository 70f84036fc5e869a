"""What travels between Likeness nodes: socket names and the frozen data they carry.

Coordinates are pixels of the upright photo (EXIF applied), x to the right, y down.
"left" and "right" mean the side of the picture unless a name says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

PHOTO_SET = "LIKENESS_PHOTO_SET"
SUBJECT = "LIKENESS_SUBJECT"
TRAINING_SET = "LIKENESS_TRAINING_SET"
RECIPE = "LIKENESS_RECIPE"
RECIPE_OPTIONS = "LIKENESS_RECIPE_OPTIONS"
MONITOR = "LIKENESS_MONITOR"
TOKEN_START = "LIKENESS_TOKEN_START"
STYLE = "LIKENESS_STYLE"
CONTROL_STACK = "LIKENESS_CONTROL_STACK"
FACE_ADAPTER = "LIKENESS_FACE_ADAPTER"
RESTORER = "LIKENESS_RESTORER"
REPORT = "LIKENESS_REPORT"
COMPARISON = "LIKENESS_COMPARISON"
IMPOSTOR_BANK = "LIKENESS_IMPOSTOR_BANK"

EMPTY: Mapping[str, Any] = MappingProxyType({})


class Verdict(str, Enum):
    """What curation or scoring decided about one picture."""

    KEEP = "keep"
    UNSURE = "unsure"
    REJECT = "reject"


@dataclass(frozen=True)
class HeadPose:
    """Head rotation in degrees, as the viewer of the picture sees it."""

    yaw: float  # > 0: the nose points to the right of the picture
    pitch: float  # > 0: chin down
    roll: float  # > 0: head tilted counter-clockwise


@dataclass(frozen=True, eq=False)
class Face:
    """One face found in a picture."""

    box: tuple[float, float, float, float]  # x0, y0, x1, y1 round the landmarks, pixels
    landmarks: np.ndarray  # (478, 3) MediaPipe order; z in pixels, smaller is nearer
    mesh: np.ndarray  # (478, 3) canonical frame: pose removed, centimetres of the metric model
    pose: HeadPose
    expression: Mapping[str, float] = field(default_factory=lambda: EMPTY)  # 52 blendshapes, 0..1

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the box in pixels."""
        return self.box[2] - self.box[0], self.box[3] - self.box[1]


@dataclass(frozen=True)
class Reason:
    """Why a photo got its verdict."""

    rule: str  # stable id: no_face, several_faces, too_small, blurred, dark, bright, duplicate, ...
    text: str  # one sentence for the user
    verdict: Verdict = Verdict.REJECT


@dataclass(frozen=True, eq=False)
class Photo:
    """One photo file and what is known about it."""

    file: Path  # absolute
    name: str  # stable label inside its folder
    sha256: str = ""  # of the file's bytes; empty when unreadable
    width: int = 0  # upright, pixels
    height: int = 0
    verdict: Verdict | None = None  # None: not judged yet
    reasons: tuple[Reason, ...] = ()
    face: Face | None = None
    measures: Mapping[str, float] = field(default_factory=lambda: EMPTY)  # sharpness, luma, ...
    embedding: np.ndarray | None = None  # (D,) of the face: a point that curation compares
    scene: np.ndarray | None = None  # (K,) what lies round the person, as colours and layout
    overridden: bool = False  # the verdict is the user's own; the reasons say what it was
    caption: str = ""  # what the user or a captioner says; several lines are several captions
    mask: Path | None = None  # a picture of what shall weigh in training, of the photo's size


@dataclass(frozen=True, eq=False)
class PhotoSet:
    """Photos in a stable order, with verdicts once curated; holds no pixels."""

    photos: tuple[Photo, ...]
    folder: str = ""  # as the user named it

    @property
    def kept(self) -> tuple[Photo, ...]:
        """The photos that may be used."""
        return tuple(photo for photo in self.photos if photo.verdict is Verdict.KEEP)


@dataclass(frozen=True)
class Spread:
    """How much one person's own photos differ: the yardstick of every score.

    Similarities of each photo to the centre of the others (leave one out).
    """

    similarities: tuple[float, ...]

    @property
    def low(self) -> float:
        """The least similar of the person's own photos."""
        return min(self.similarities)

    @property
    def median(self) -> float:
        """The middle of the person's own photos."""
        return float(np.median(self.similarities))


@dataclass(frozen=True, eq=False)
class Subject:
    """Who the pictures are of: name, words, photos and face embeddings."""

    name: str
    trigger: str  # the token that means this person in prompts
    class_noun: str  # man, woman, person, ...
    references: tuple[Photo, ...]  # may train and be injected
    held_out: tuple[Photo, ...]  # never train; the judge's yardstick
    embeddings: Mapping[str, np.ndarray]  # back end id -> (references + held_out, D)
    spread: Mapping[str, Spread]  # back end id -> own spread
    mesh: np.ndarray  # (478, 3) mean canonical face of this person

    @property
    def folder_name(self) -> str:
        """The name as one folder below the host's output folder."""
        return re.sub(r"[^\w.-]+", "_", self.name)

    @property
    def photos(self) -> tuple[Photo, ...]:
        """Every photo of the subject, in the order of the embeddings."""
        return self.references + self.held_out


@dataclass(frozen=True)
class TrainingItem:
    """One prepared photo: where its cached tensors lie and how it was cut."""

    photo: str  # Photo.name
    photo_sha256: str
    caption: str
    bucket: tuple[int, int]  # width, height in pixels
    original_size: tuple[int, int]  # of the upright photo
    crop: tuple[float, float, float, float]  # x0, y0, x1, y1 in the photo
    latent_file: Path  # safetensors: "latent" (C, h, w), "mask" (h, w) face weight 0..1
    conditioning_key: str  # which entry of the conditioning files it uses
    variants: tuple[str, ...] = ()  # keys of other captions of the same photo
    class_key: str = ""  # key of the caption with the class noun alone; empty: none was encoded
    yaw: float = 0.0  # of the head, degrees
    pitch: float = 0.0
    points: tuple[tuple[float, float], ...] = ()  # faces.align's recogniser points, crop's pixels
    turn: float = 0.0  # degrees, > 0 counter-clockwise: the photo was turned so far before the cut


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Cached latents, masks and text encodings of a subject's reference photos; opened lazily."""

    items: tuple[TrainingItem, ...]
    conditionings: Mapping[str, Path]  # caption key -> safetensors written by dataset.cache
    folder: Path
    key: str  # content hash of everything that went in
    subject: str  # Subject.name
    trigger: str
    texts: Mapping[str, str] = field(default_factory=lambda: EMPTY)  # conditioning key -> caption


@dataclass(frozen=True)
class Style:
    """A headshot style: words and how hard the structure is held."""

    id: str
    title: str
    prompt: str  # "{subject}" stands where trigger and class noun go
    negative: str
    control: Mapping[str, float] = field(default_factory=lambda: EMPTY)  # kind -> strength
    width: int = 1024
    height: int = 1024
