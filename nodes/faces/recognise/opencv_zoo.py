"""OpenCV's YuNet and SFace, from files the user put into models/opencv_zoo.

Both get BGR pixels in 0..255; SFace aligns by YuNet's five points onto ArcFace's 112 px template.
Wu et al., "YuNet", Machine Intelligence Research 2023; Zhong et al., "SFace", IEEE TIP 2021.
"""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import LikenessError
from ...sockets import Face
from . import backends
from .near import same_face, surroundings

_SIDE = 640  # the published YuNet is exported for this input alone
_SCORE, _OVERLAP, _MOST = 0.6, 0.3, 50  # of a detection, of two detections, of candidates
_lock = threading.Lock()  # OpenCV's networks keep their state between calls


def embed(pixels: np.ndarray, face: Face, id: str) -> np.ndarray:
    """Embed a face of an (H, W, 3) uint8 RGB picture: (128,) float32, not normalised.

    YuNet looks for the five points in the surroundings of our face, scaled to its input.

    Raises:
        MissingModelError: the files are absent.
        LikenessError: a file is damaged, or OpenCV is too old.
        FaceNotFoundError: YuNet finds no such face.
    """
    detector, recogniser = _models(id, backends.require(id))
    import cv2  # slow to import

    near = surroundings(pixels, face)
    blue_first = near.blue_first
    scale = _SIDE / len(blue_first)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    square = cv2.resize(blue_first, (_SIDE, _SIDE), interpolation=method)
    with _lock:
        rows = detector.detect(square)[1]
    # x, y, width, height, five points as x, y; all but the score in pixels of the square.
    rows = np.zeros((0, 15), np.float32) if rows is None else rows.copy()
    rows[:, :14] /= scale
    corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
    best = rows[same_face(corners, near, face, id)]
    with _lock:
        return np.array(recogniser.feature(recogniser.alignCrop(blue_first, best))[0], np.float32)


@functools.lru_cache(maxsize=1)
def _models(id: str, paths: tuple[Path, ...]) -> tuple[Any, Any]:
    """Open detector and recogniser; from bytes, as OpenCV cannot open every path on Windows."""
    import cv2  # slow to import

    backends.warn_when_changed(id, paths)
    first, second = (np.frombuffer(path.read_bytes(), np.uint8) for path in paths)
    nothing = np.zeros(0, np.uint8)
    try:
        return (cv2.FaceDetectorYN.create("onnx", first, nothing, (_SIDE, _SIDE), _SCORE, _OVERLAP,
                                          _MOST),
                cv2.FaceRecognizerSF.create("onnx", second, nothing))
    except (cv2.error, AttributeError, TypeError) as err:
        raise LikenessError(f"OpenCV {cv2.__version__} cannot open `{paths[0].name}` and "
                            f"`{paths[1].name}` in {paths[0].parent} ({err}); get the files again, "
                            "or choose the recogniser dlib.") from err
