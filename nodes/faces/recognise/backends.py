"""The face recognisers as data: what each is, where its files go, and under what licence.

`set_model_roots` tells where the host keeps model files; without it only the vendored recogniser
is found.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from ...errors import LikenessError, MissingModelError

logger = logging.getLogger("likeness")

VENDORED = Path(__file__).resolve().parents[1] / "models"


INSIGHTFACE = "insightface"
# Not models/insightface: that folder is for InsightFace's own packs and their licence. This one has
# the name of the project that publishes the files, under which other programs keep them too.
OPENCV_ZOO = "opencv_zoo"


@dataclass(frozen=True)
class Part:
    """One of the recognisers that judge together, and the scale on which its word counts.

    Mean and standard deviation are those of its similarity over all pairs of the people of the bank
    that travels with the pack.
    """

    id: str
    stranger_mean: float
    stranger_deviation: float


@dataclass(frozen=True)
class Backend:
    """One face recogniser, or several that judge together."""

    id: str
    title: str
    dimension: int
    metric: Literal["l2", "cosine", "joint"]  # similarity: 1 - L2 distance, cosine, see `embed`
    same_person: float | None  # stated same-person cut as a similarity; None: calibrate
    cut_source: str  # who states that cut; empty: nobody
    library: Literal["dlib", "mobilefacenet", "insightface", "opencv", "parts"]  # what runs it
    detector: str  # what finds the points by which the face is aligned
    licence: str
    commercial: bool
    source: str  # where a user gets the files
    files: tuple[str, ...]  # the detector, where the library brings one, then the recogniser
    registry: str = ""  # the host's model folder; empty: vendored with the pack
    folder: str = ""  # below that model folder
    parts: tuple[Part, ...] = ()  # who judges together; empty: it is one recogniser
    sha256: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def place(self) -> str:
        """Where a user puts the files, as a path below the host's folder."""
        return "/".join(part for part in ("models", self.registry, self.folder) if part)


_RESEARCH = "InsightFace weights: non-commercial research only"
_RELEASES = "the model packages of the insightface project's GitHub releases (v0.7)"
_SCRFD = "the pack's own SCRFD"
BOTH = "both"  # the two that travel with the pack, which judge unless somebody else is chosen
_MS_CELEB = "trained on refined MS-Celeb-1M, a data set that its makers have withdrawn"

BACKENDS = (
    Backend(
        id=BOTH, title="dlib and MobileFaceNet together (travel with the pack)", dimension=320,
        metric="joint",
        same_person=0.402, cut_source="1 in 1000 pairs of the women of the pack's bank reach it",
        library="parts", detector="MediaPipe's landmarks",
        licence=f"CC0-1.0 and Apache-2.0 weights; MobileFaceNet was {_MS_CELEB}", commercial=True,
        source="this pack",
        files=("face_embedder.safetensors", "face_embedder_mobile.safetensors"),
        parts=(Part("dlib", 0.1818, 0.0899), Part("mobilefacenet", 0.0393, 0.1451))),
    Backend(
        id="dlib", title="dlib ResNet (travels with the pack)", dimension=128, metric="l2",
        same_person=0.4, cut_source="L2 distance 0.6, LFW 99.38 % (dlib, dnn_face_recognition_ex)",
        library="dlib", detector="MediaPipe's landmarks",
        licence="CC0-1.0 weights, MIT conversion", commercial=True, source="this pack",
        files=("face_embedder.safetensors",),
        sha256=MappingProxyType({
            "face_embedder.safetensors":
                "accb2bfe814626e84c5a25f162dbbdb211274dbed6b729411c83643a01941b34"})),
    Backend(
        id="mobilefacenet", title="MobileFaceNet (travels with the pack)", dimension=192,
        metric="cosine",
        same_person=0.51, cut_source="1 in 1000 pairs of the women of the pack's bank reach it",
        library="mobilefacenet", detector="MediaPipe's landmarks",
        licence=f"Apache-2.0 weights, {_MS_CELEB}",
        commercial=True, source="this pack",
        files=("face_embedder_mobile.safetensors",),
        sha256=MappingProxyType({
            "face_embedder_mobile.safetensors":
                "9c95a0c24594e2953f2a14e67d5bff28389b2573964b4d8eda5257acda5d61c7"})),
    Backend(
        id="buffalo_l", title="InsightFace buffalo_l (ArcFace R50)", dimension=512,
        metric="cosine",
        same_person=0.4, cut_source="insightface 1.0's album view",
        library="insightface", detector=_SCRFD,
        licence=_RESEARCH, commercial=False, source=_RELEASES,
        files=("det_10g.onnx", "w600k_r50.onnx"),
        registry=INSIGHTFACE, folder="models/buffalo_l",
        sha256=MappingProxyType({
            "det_10g.onnx": "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
            "w600k_r50.onnx":
                "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43"})),
    Backend(
        id="antelopev2", title="InsightFace antelopev2 (ArcFace R100)", dimension=512,
        metric="cosine",
        same_person=0.28,
        cut_source="ArcFace at a false accept rate of 0.1 % on LFW, as AdvFaces states it",
        library="insightface", detector=_SCRFD,
        licence=_RESEARCH, commercial=False, source=_RELEASES,
        files=("scrfd_10g_bnkps.onnx", "glintr100.onnx"),
        registry=INSIGHTFACE, folder="models/antelopev2",
        sha256=MappingProxyType({
            "scrfd_10g_bnkps.onnx":
                "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
            "glintr100.onnx":
                "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf"})),
    Backend(
        id="buffalo_s", title="InsightFace buffalo_s (MobileFaceNet)", dimension=512,
        metric="cosine", same_person=None, cut_source="",
        library="insightface", detector=_SCRFD,
        licence=_RESEARCH, commercial=False, source=_RELEASES,
        files=("det_500m.onnx", "w600k_mbf.onnx"),
        registry=INSIGHTFACE, folder="models/buffalo_s",
        sha256=MappingProxyType({
            "w600k_mbf.onnx":
                "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f"})),
    Backend(
        id="auraface", title="AuraFace v1 (ArcFace R100)", dimension=512,
        metric="cosine", same_person=None, cut_source="",
        # The detector beside it is InsightFace's, for non-commercial research only: not used.
        library="insightface", detector="MediaPipe's landmarks",
        licence="Apache-2.0", commercial=True, source="fal/AuraFace-v1 on Hugging Face",
        files=("glintr100.onnx",),
        registry=INSIGHTFACE, folder="models/auraface"),
    Backend(
        id="sface", title="OpenCV SFace (MobileFaceNet)", dimension=128, metric="cosine",
        same_person=0.363, cut_source="OpenCV's FaceRecognizerSF, cosine on LFW",
        library="opencv", detector="OpenCV's YuNet",
        licence="Apache-2.0 (SFace), MIT (YuNet)", commercial=True,
        source="the opencv_zoo project on GitHub",
        files=("face_detection_yunet_2023mar.onnx", "face_recognition_sface_2021dec.onnx"),
        registry=OPENCV_ZOO,
        sha256=MappingProxyType({
            "face_detection_yunet_2023mar.onnx":
                "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
            "face_recognition_sface_2021dec.onnx":
                "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79"})),
)

_BY_ID = {known.id: known for known in BACKENDS}


def _no_roots(registry: str) -> Sequence[Path]:
    return ()


_roots: Callable[[str], Sequence[Path]] = _no_roots


def set_model_roots(roots: Callable[[str], Sequence[Path]]) -> None:
    """Say where model folders are: a callable given a `Backend.registry`, asked each time."""
    global _roots
    _roots = roots


def ids() -> list[str]:
    """The recogniser names a combo offers, the default first."""
    return list(_BY_ID)


def single_ids() -> list[str]:
    """The names of recognisers that give one embedding, as a face adapter needs it."""
    return [known.id for known in BACKENDS if not known.parts]


def choices_text() -> str:
    """Sentences for a tooltip: what needs files, where they go, and what is non-commercial."""
    vendored = [known.id for known in BACKENDS if not known.registry]
    free = [f"{known.id} ({known.licence}; files in {known.place})"
            for known in BACKENDS if known.registry and known.commercial]
    bound = [known.id for known in BACKENDS if not known.commercial]
    return (f"{_listed(vendored)} need no file and may be used commercially ({BOTH}: dlib and "
            f"mobilefacenet together; mobilefacenet was {_MS_CELEB}). "
            f"So may {_listed(free)}. NON-COMMERCIAL weights, files in "
            f"models/insightface/models: {_listed(bound)}.")


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def backend(id: str) -> Backend:
    """Look up a recogniser.

    Raises:
        LikenessError: unknown id.
    """
    if id not in _BY_ID:
        raise LikenessError(f"`{id}` is not a face recogniser; choose one of {', '.join(_BY_ID)}.")
    return _BY_ID[id]


def parts_of(id: str) -> tuple[str, ...]:
    """The single recognisers that judge under a name: its parts, or itself."""
    return tuple(part.id for part in backend(id).parts) or (id,)


def find(id: str) -> tuple[Path, ...] | None:
    """The recogniser's files in the order of `Backend.files`, or None when one is absent.

    A pack that was unzipped into a folder of its own name inside its folder is found as well.
    """
    known = backend(id)
    folders = [VENDORED]
    if known.registry:
        packs = [Path(root) / known.folder for root in _roots(known.registry)]
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
    places = [str(Path(root) / known.folder) for root in _roots(known.registry)]
    place = " or ".join(places) or (known.place if known.registry else str(VENDORED))
    raise MissingModelError(
        f"The face recogniser {known.title} needs {names} in {place}; get them from "
        f"{known.source} (licence: {known.licence}), or choose another recogniser.")


def warn_when_changed(id: str, paths: Sequence[Path]) -> None:
    """Log each file that is not the published one: its scores compare with nothing published."""
    for path in paths:
        published = backend(id).sha256.get(path.name)
        if published and hashlib.sha256(path.read_bytes()).hexdigest() != published:
            logger.warning("%s is not the published file of that name", path)
