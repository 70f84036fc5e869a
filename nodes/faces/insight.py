"""Recognisers of the InsightFace family, from packs the user put into models/insightface.

Files are opened by path: the library's own look-up by name downloads what it does not find.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FaceNotFoundError, LikenessError
from ..sockets import Face
from . import backends
from .detect import crop_round, overlap

logger = logging.getLogger("likeness")

_DETECTION_SIZE = (640, 640)
_MARGIN = 1.0  # the face fills a third of the crop: what the detector likes best
_SAME_FACE = 0.25  # least overlap; SCRFD's boxes are wider and higher than the landmarks'


def embed(pixels: np.ndarray, face: Face, id: str) -> np.ndarray:
    """Embed a face of an (H, W, 3) uint8 RGB picture: (512,) float32, not normalised.

    The pack's own detector finds the five points, in a crop round our face, so that its choice
    cannot be another person and close-ups are found.

    Raises:
        MissingModelError: the pack's files are absent.
        LikenessError: insightface is not installed.
        FaceNotFoundError: the pack's detector finds no such face.
    """
    detector, recogniser = _models(backends.require(id))
    crop, (left, top) = crop_round(pixels, face.box, _MARGIN)
    blue_first = np.ascontiguousarray(crop[..., ::-1])  # insightface reads BGR
    boxes, points = detector.detect(blue_first, input_size=_DETECTION_SIZE)
    own = (face.box[0] - left, face.box[1] - top, face.box[2] - left, face.box[3] - top)
    overlaps = [overlap(tuple(box[:4]), own) for box in boxes]
    if not overlaps or max(overlaps) < _SAME_FACE:
        raise FaceNotFoundError(
            f"The detector of {backends.backend(id).title} does not find the face at "
            f"{tuple(round(v) for v in face.box)}; use a photo that shows it larger or more from "
            "the front, or choose another recogniser.")
    best = int(np.argmax(overlaps))
    found = _insightface_face(boxes[best], points[best])
    return np.asarray(recogniser.get(blue_first, found), np.float32)


def _insightface_face(box: np.ndarray, points: np.ndarray) -> Any:
    from insightface.app.common import Face as InsightFace  # optional package

    return InsightFace(bbox=box[:4], kps=points, det_score=box[4])


@functools.lru_cache(maxsize=2)
def _models(paths: tuple[Path, ...]) -> tuple[Any, Any]:
    """Open a pack's detector and recogniser on the CPU."""
    try:
        from insightface.model_zoo import get_model  # optional package
    except ImportError as err:
        raise LikenessError("This face recogniser needs the Python packages insightface and "
                            "onnxruntime; install both, or choose the recogniser dlib.") from err
    for path in paths:
        _warn_when_changed(path)
    detector, recogniser = (get_model(str(path), providers=["CPUExecutionProvider"])
                            for path in paths)
    detector.prepare(ctx_id=-1, input_size=_DETECTION_SIZE, det_thresh=0.5)
    recogniser.prepare(ctx_id=-1)
    return detector, recogniser


def _warn_when_changed(path: Path) -> None:
    """Say so when a file is not the published one: scores then compare with nothing published."""
    known = {known.sha256.get(path.name) for known in backends.BACKENDS
             if known.folder and Path(known.folder).name in path.parts} - {None}
    if known and hashlib.sha256(path.read_bytes()).hexdigest() not in known:
        logger.warning("%s is not the published file of that name", path)
