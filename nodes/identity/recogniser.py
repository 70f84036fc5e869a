"""Which face recogniser an adapter was trained with, and in which form it wants the embedding.

An adapter fed by another recogniser, or by raw embeddings where it saw unit ones, draws somebody
else without any error, so both are decided here, in the open, and stand in the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import LikenessError
from .adapter import AdapterWeights, Kind

AUTO = "auto"
NORMED, RAW = "normed", "raw"
V1, V2 = "v1", "v2"

_BY_WIDTH = {512: "buffalo_l", 128: "dlib"}  # what published adapters of that width were made with


@dataclass(frozen=True, eq=False)
class FaceAdapter:
    """A face adapter and how it is to be fed; what the FACE_ADAPTER socket carries."""

    name: str  # of its file
    weights: AdapterWeights
    recogniser: str  # id of the face back end whose embeddings it reads
    normed: bool  # embeddings of length 1, else as the recogniser gives them
    shortcut: bool  # FaceID Plus version 2


def recogniser_of(adapter: AdapterWeights, chosen: str, known: Mapping[str, int], name: str) -> str:
    """Decide the recogniser: the user's choice, the file's own note, or the embedding's width.

    Args:
        known: recogniser id -> width of its embedding.
        name: of the adapter file, for messages.

    Raises:
        LikenessError: an unknown recogniser, one of another width, or none can be told.
    """
    if chosen == AUTO:
        noted = adapter.metadata.get("recogniser", "")
        chosen = noted or _BY_WIDTH.get(adapter.id_width, "")
    if not chosen:
        raise LikenessError(f"`{name}` reads face embeddings of width {adapter.id_width}, which "
                            "no known recogniser gives; set `recogniser` to the one it needs.")
    if chosen not in known:
        raise LikenessError(f"`{name}` needs the recogniser `{chosen}`, which is none of "
                            f"{', '.join(known)}; choose one of these or another adapter.")
    if known[chosen] != adapter.id_width:
        raise LikenessError(f"`{name}` reads face embeddings of width {adapter.id_width}, "
                            f"`{chosen}` gives {known[chosen]}; set `recogniser` to the one that "
                            "the adapter was trained with.")
    return chosen


def wants_normed(adapter: AdapterWeights, chosen: str, name: str) -> bool:
    """Decide whether embeddings are scaled to length 1: the choice, the file's note, or its name.

    Published FaceID files want unit embeddings; the Portrait file named "unnorm" wants raw ones.
    """
    if chosen not in (AUTO, NORMED, RAW):
        raise LikenessError(f"`embedding` must be {AUTO}, {NORMED} or {RAW}, got {chosen}.")
    if chosen == AUTO:
        chosen = adapter.metadata.get("embedding", RAW if "unnorm" in name.lower() else NORMED)
    return chosen != RAW


def plus_shortcut(adapter: AdapterWeights, chosen: str, name: str) -> bool:
    """Decide whether a FaceID Plus file is version 2; always False for other kinds.

    Raises:
        LikenessError: `auto`, and neither the file's notes nor its name say which.
    """
    if chosen not in (AUTO, V1, V2):
        raise LikenessError(f"`plus_version` must be {AUTO}, {V1} or {V2}, got {chosen}.")
    if adapter.kind is not Kind.PLUS:
        return False
    if chosen == AUTO:
        plain = name.lower().replace("-", "").replace("_", "")
        hint = V2 if "plusv2" in plain else V1 if "plus" in plain else ""
        chosen = adapter.metadata.get("plus_version", hint)
    if chosen not in (V1, V2):
        raise LikenessError(f"`{name}` is a FaceID Plus file, and versions 1 and 2 look alike; "
                            f"set `plus_version` to {V1} or {V2}.")
    return chosen == V2
