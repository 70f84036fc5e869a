"""Banks of other people's faces: unnamed embeddings that tell how alike strangers are.

A recogniser's similarity says nothing about error rates. A bank does: the share of its people who
are as alike to a subject as a picture is the rate at which strangers would pass for the subject.
It holds for people like those in the bank, so a bank of the subject's own population is better.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ...errors import FaceNotFoundError, LikenessError
from ...faces.detect import find_faces
from ...faces.recognise import backends
from ...faces.recognise.embed import embed, similarity, split_parts
from ...files import write_whole
from ...media.images import read_photo

BANKS = Path(__file__).resolve().parent / "banks"
FORMAT = 1
_GROUP = "group."
SHARED_FACE = 0.85  # similarity from which two files show the same photo, whatever the recogniser


@dataclass(frozen=True, eq=False)
class ImpostorBank:
    """Embeddings of people who are not the subject. The content of an IMPOSTOR_BANK socket."""

    backend: str
    embeddings: np.ndarray  # (N, D) float32, one per person, in an order that says nothing
    weights: str  # sha256 of the recogniser's file
    source: str  # who they are, in words
    rights: str  # under what terms the photos were had
    # Which of the people belong together, (N,) bool by name such as "women"; empty: nobody says.
    groups: Mapping[str, np.ndarray] = field(default_factory=lambda: MappingProxyType({}))

    def to(self, centre: np.ndarray) -> np.ndarray:
        """How alike each person is to an embedding (D,): (N,) similarities."""
        return np.array([similarity(row, centre, self.backend) for row in self.embeddings])

    def part(self, backend: str) -> ImpostorBank:
        """The same people as one of several joint recognisers sees them."""
        place = backends.parts_of(self.backend).index(backend)
        return replace(self, backend=backend, weights=weights_key(backend),
                       embeddings=split_parts(self.embeddings, self.backend)[place])


@dataclass(frozen=True)
class Skipped:
    """A photo that did not go into a bank."""

    name: str
    text: str  # why, one sentence


@functools.cache
def shipped(backend: str) -> ImpostorBank | None:
    """The bank that travels with the pack; None where there is none for the recogniser.

    Those of all recognisers hold the same people in the same order.
    """
    paths = [BANKS / f"{part}.safetensors" for part in backends.parts_of(backend)]
    if not all(path.is_file() for path in paths):
        return None
    first, *others = map(read_bank, paths)
    if not others:
        return first
    rows = np.concatenate([first.embeddings, *(bank.embeddings for bank in others)], axis=1)
    return replace(first, backend=backend, embeddings=rows, weights=weights_key(backend))


def read_bank(path: Path) -> ImpostorBank:
    """Read a bank.

    Raises:
        LikenessError: the file is damaged or holds something else.
    """
    try:
        with safe_open(path, framework="np") as file:
            rows = file.get_tensor("embeddings").astype(np.float32)
            groups = {name.removeprefix(_GROUP): file.get_tensor(name).astype(bool)
                      for name in file.keys() if name.startswith(_GROUP)}
            told = json.loads(file.metadata()["impostors"])
        if told["format"] != FORMAT:
            raise ValueError(f"format {told['format']}, this pack reads {FORMAT}")
        bank = ImpostorBank(told["backend"], rows, told["weights"], told["source"],
                            told["rights"], MappingProxyType(groups))
        if any(members.shape != rows.shape[:1] for members in groups.values()):
            raise ValueError("groups of other people")
        if rows.ndim != 2 or rows.shape[1] != backends.backend(bank.backend).dimension:
            raise ValueError(f"embeddings of shape {rows.shape}")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as err:
        raise LikenessError(f"The bank of faces {path} is damaged ({err}); delete it, so that it "
                            "is made again.") from err
    return bank


def write_bank(path: Path, bank: ImpostorBank) -> None:
    """Write a bank, whole or not at all, in half precision.

    Half precision moves a dlib similarity by less than 0.0004 where people differ by 0.09.
    """
    told = {"format": FORMAT, "backend": bank.backend, "count": len(bank.embeddings),
            "weights": bank.weights, "source": bank.source, "rights": bank.rights}
    groups = {f"{_GROUP}{name}": members.astype(np.uint8)
              for name, members in bank.groups.items()}
    write_whole(path, lambda partial: save_file(
        {"embeddings": bank.embeddings.astype(np.float16), **groups}, partial,
        metadata={"impostors": json.dumps(told, sort_keys=True)}))


def make_bank(files: Sequence[Path], backend: str, source: str, rights: str,
              on_photo: Callable[[int], None] = lambda done: None,
              groups: Mapping[str, Sequence[bool]] = MappingProxyType({}),
              ) -> tuple[ImpostorBank, tuple[Skipped, ...]]:
    """Embed the largest face of each photo, one photo per person.

    Args:
        groups: which of the photos show people that belong together, by name.
        on_photo: called with the number of photos done; may raise to cancel.

    Raises:
        MissingModelError: the recogniser's files are absent.
        LikenessError: fewer than two photos show a face.
    """
    backends.require(backend)
    rows: list[np.ndarray] = []
    places: list[int] = []
    skipped = []
    for done, file in enumerate(files, 1):
        try:
            rows.append(_embed_file(file, backend, rows))
            places.append(done - 1)
        except (OSError, LikenessError) as err:
            skipped.append(Skipped(file.name, str(err)))
        on_photo(done)
    if len(rows) < 2:
        raise LikenessError(f"{len(rows)} of {len(files)} photos show a face that can be used; a "
                            "bank needs photos of many other people, one each.")
    order = shuffled(rows)
    kept = np.array(places)[order]
    return ImpostorBank(backend, np.stack(rows)[order], weights_key(backend), source, rights,
                        {name: np.asarray(members, bool)[kept]
                         for name, members in groups.items()}), tuple(skipped)


def shuffled(rows: Sequence[np.ndarray]) -> list[int]:
    """The places of embeddings by the hash of their bytes: an order that no list of names has."""
    return sorted(range(len(rows)), key=lambda place: hashlib.sha256(
        rows[place].tobytes()).digest())


@functools.cache
def weights_key(backend: str) -> str:
    """The sha256 of the recogniser's own file, by which a bank knows what it was made with."""
    parts = backends.parts_of(backend)
    if len(parts) > 1:
        return hashlib.sha256(" ".join(map(weights_key, parts)).encode()).hexdigest()
    return hashlib.sha256(backends.require(backend)[-1].read_bytes()).hexdigest()


def cached_name(files: Sequence[Path], backend: str) -> str:
    """The file name of a bank that depends on the photos' content and the recogniser alone."""
    digest = hashlib.sha256(f"{FORMAT} {backend} {weights_key(backend)}".encode())
    for key in sorted(hashlib.sha256(file.read_bytes()).digest() for file in files):
        digest.update(key)
    return f"{backend}_{digest.hexdigest()[:16]}.safetensors"


def _embed_file(file: Path, backend: str, others: Sequence[np.ndarray]) -> np.ndarray:
    pixels = read_photo(file)
    faces = find_faces(pixels)
    if not faces:
        raise FaceNotFoundError("No face was found.")
    row = embed(pixels, faces[0], backend)
    if any(similarity(row, other, backend) >= SHARED_FACE for other in others):
        raise LikenessError("The same photo is there already.")
    return row
