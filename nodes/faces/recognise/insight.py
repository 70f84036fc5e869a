"""Recognisers of the InsightFace family, from packs the user put into models/insightface.

Files are opened by path: the library's own look-up by name downloads what it does not find.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import LikenessError
from ...sockets import Face
from ..align import five_points
from . import backends
from .near import Surroundings, same_face, surroundings

_DETECTION_SIZE = (640, 640)


def embed(pixels: np.ndarray, face: Face, id: str) -> np.ndarray:
    """Embed a face of an (H, W, 3) uint8 RGB picture: (512,) float32, not normalised.

    The pack's own detector finds the five points round our face; a pack without one is given ours
    (irises, nose tip, mouth corners: the same five).

    Raises:
        MissingModelError: the pack's files are absent.
        LikenessError: insightface is not installed.
        FaceNotFoundError: the pack's detector finds no such face.
    """
    *detectors, recogniser = _models(id, backends.require(id))
    if detectors:
        near = surroundings(pixels, face)
        return _read(recogniser, near.blue_first, _points(detectors[0], near, face, id))
    blue_first = np.ascontiguousarray(pixels[..., ::-1])
    return _read(recogniser, blue_first, five_points(face))


def _points(detector: Any, near: Surroundings, face: Face, id: str) -> np.ndarray:
    boxes, points = detector.detect(near.blue_first, input_size=_DETECTION_SIZE)
    return points[same_face(boxes, near, face, id)]


def _read(recogniser: Any, blue_first: np.ndarray, points: np.ndarray) -> np.ndarray:
    from insightface.app.common import Face as InsightFace  # optional package

    return np.asarray(recogniser.get(blue_first, InsightFace(kps=points)), np.float32)


@functools.lru_cache(maxsize=2)
def _models(id: str, paths: tuple[Path, ...]) -> tuple[Any, ...]:
    """Open a pack's detector, where it has one, and its recogniser on the CPU."""
    try:
        from insightface.model_zoo import get_model  # optional package
    except ImportError as err:
        raise LikenessError("This face recogniser needs the Python packages insightface and "
                            "onnxruntime; install both, or choose the recogniser dlib.") from err
    backends.warn_when_changed(id, paths)
    *detectors, recogniser = (get_model(str(path), providers=["CPUExecutionProvider"])
                              for path in paths)
    for detector in detectors:
        detector.prepare(ctx_id=-1, input_size=_DETECTION_SIZE, det_thresh=0.5)
    recogniser.prepare(ctx_id=-1)
    return *detectors, recogniser
