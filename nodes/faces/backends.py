"""The face recognisers as data: what each is, where its files go, and under what licence.

`set_model_roots` tells where the host keeps InsightFace packs; without it only the vendored
recogniser is found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from ..errors import LikenessError, MissingModelError

VENDORED = Path(__file__).resolve().parent / "models"


@dataclass(frozen=True)
class Backend:
    """One face recogniser."""

    id: str
    title: str
    dimension: int
    metric: Literal["l2", "cosine"]  # similarity: 1 - L2 distance, or cosine
    same_person: float | None  # published same-person cut as a similarity; None: calibrate
    licence: str
    commercial: bool
    source: str  # where a user gets the files
    files: tuple[str, ...]  # insightface packs: detector, then recogniser
    folder: str = ""  # below models/insightface; empty: vendored with the pack
    sha256: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


_RESEARCH = "InsightFace weights: non-commercial research only"
_RELEASES = "the model packages of the insightface project's GitHub releases (v0.7)"

BACKENDS = (
    Backend(
        id="dlib", title="dlib ResNet (travels with the pack)", dimension=128, metric="l2",
        same_person=0.4,  # L2 0.6, LFW 99.38 % (dlib's dnn_face_recognition_ex.cpp)
        licence="CC0-1.0 weights, MIT conversion", commercial=True, source="this pack",
        files=("face_embedder.safetensors",),
        sha256=MappingProxyType({
            "face_embedder.safetensors":
                "accb2bfe814626e84c5a25f162dbbdb211274dbed6b729411c83643a01941b34"})),
    Backend(
        id="buffalo_l", title="InsightFace buffalo_l (ArcFace R50)", dimension=512,
        metric="cosine",
        same_person=0.4,  # insightface 1.0's own album view
        licence=_RESEARCH, commercial=False, source=_RELEASES,
        files=("det_10g.onnx", "w600k_r50.onnx"), folder="models/buffalo_l",
        sha256=MappingProxyType({
            "det_10g.onnx": "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
            "w600k_r50.onnx":
                "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43"})),
    Backend(
        id="antelopev2", title="InsightFace antelopev2 (ArcFace R100)", dimension=512,
        metric="cosine",
        same_person=0.28,  # ArcFace R100 at FAR 0.1 % on LFW
        licence=_RESEARCH, commercial=False, source=_RELEASES,
        files=("scrfd_10g_bnkps.onnx", "glintr100.onnx"), folder="models/antelopev2",
        sha256=MappingProxyType({
            "scrfd_10g_bnkps.onnx":
                "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
            "glintr100.onnx":
                "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf"})),
    Backend(
        id="buffalo_s", title="InsightFace buffalo_s (MobileFaceNet)", dimension=512,
        metric="cosine", same_person=None,
        licence=_RESEARCH, commercial=False, source=_RELEASES,
        files=("det_500m.onnx", "w600k_mbf.onnx"), folder="models/buffalo_s",
        sha256=MappingProxyType({
            "w600k_mbf.onnx":
                "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f"})),
    Backend(
        id="auraface", title="AuraFace v1 (ArcFace R100, commercial use)", dimension=512,
        metric="cosine", same_person=None,
        licence="Apache-2.0", commercial=True, source="fal/AuraFace-v1 on Hugging Face",
        files=("scrfd_10g_bnkps.onnx", "glintr100.onnx"), folder="models/auraface"),
)

_BY_ID = {known.id: known for known in BACKENDS}


def _no_roots() -> Sequence[Path]:
    return ()


_roots: Callable[[], Sequence[Path]] = _no_roots


def set_model_roots(roots: Callable[[], Sequence[Path]]) -> None:
    """Say where models/insightface folders are: a callable, asked at every look-up."""
    global _roots
    _roots = roots


def ids() -> list[str]:
    """The recogniser names a combo offers, the default first."""
    return list(_BY_ID)


def backend(id: str) -> Backend:
    """Look up a recogniser.

    Raises:
        LikenessError: unknown id.
    """
    if id not in _BY_ID:
        raise LikenessError(f"`{id}` is not a face recogniser; choose one of {', '.join(_BY_ID)}.")
    return _BY_ID[id]


def find(id: str) -> tuple[Path, ...] | None:
    """The recogniser's files in the order of `Backend.files`, or None when one is absent.

    A pack that was unzipped into a folder of its own name inside its folder is found as well.
    """
    known = backend(id)
    folders = [VENDORED]
    if known.folder:
        packs = [Path(root) / known.folder for root in _roots()]
        folders = [folder for pack in packs for folder in (pack, pack / pack.name)]
    for folder in folders:
        paths = tuple(folder / name for name in known.files)
        if all(path.is_file() for path in paths):
            return paths
    return None


def require(id: str) -> tuple[Path, ...]:
    """The recogniser's files, for a step that cannot do without them.

    Raises:
        MissingModelError: a file is absent; names files, folder, source and licence.
    """
    paths = find(id)
    if paths is not None:
        return paths
    known = backend(id)
    names = " and ".join(f"`{name}`" for name in known.files)
    places = [str(Path(root) / known.folder) for root in _roots()]
    place = " or ".join(places) or (f"models/insightface/{known.folder}" if known.folder
                                    else str(VENDORED))
    raise MissingModelError(
        f"The face recogniser {known.title} needs {names} in {place}; get them from "
        f"{known.source} (licence: {known.licence}), or choose another recogniser.")
