"""MediaPipe Tasks on the vendored models: opened once, shared by threads, closed explicitly.

What the wrapper guards against, met in mediapipe 1.2.2: arrays that are not contiguous are read
wrongly without an error; anything but RGB poisons the graph; a failed graph left to the garbage
collector can deadlock a later call; a closed task returns empty results. Each task runs in one
thread at a time; different ones run beside each other.
"""

from __future__ import annotations

import atexit
import functools
import io
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import LikenessError, MissingModelError, PictureError

MODELS = Path(__file__).resolve().parent / "models"
MAX_FACES = 16
MAX_BODIES = 4

_open: dict[str, Any] = {}
_creating = threading.Lock()


def detect(name: str, pixels: np.ndarray) -> Any:
    """Run one task (a key of `_MAKERS`) on an (H, W, 3) uint8 RGB array.

    Raises:
        LikenessError: MediaPipe cannot start, or fails on this picture.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"`pixels` must be (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}.")
    mediapipe = _mediapipe()
    picture = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB,
                              data=np.ascontiguousarray(pixels))
    with _locks[name]:
        # A closed task would answer that nothing is there. MediaPipe's own mark of it is private.
        if name not in _open or getattr(_open[name], "_handle", True) is None:
            _open[name] = _create(name)
        task = _open[name]
        try:
            return task.segment(picture) if name == "selfie" else task.detect(picture)
        except (RuntimeError, ValueError) as err:
            _close(name)
            height, width = pixels.shape[:2]
            raise PictureError(f"MediaPipe's {name} model failed on a {width} x {height} picture "
                               f"({err}); convert the photo to a plain RGB JPEG.") from err


def close_all() -> None:
    """Close every open task; the next call opens it again."""
    for name, lock in _locks.items():
        with lock:
            if name in _open:
                _close(name)


def _close(name: str) -> None:
    """Close an open task, whose lock is held."""
    task = _open.pop(name)
    try:
        task.close()
    except (RuntimeError, ValueError):  # a failed graph reports its failure again here
        task._handle = None  # or the garbage collector closes it once more, and may wait for ever


def _create(name: str) -> Any:
    try:
        with _creating:
            return _MAKERS[name]()
    except OSError as err:
        raise LikenessError(f"MediaPipe cannot start ({err}); on Linux install the system packages "
                            "libegl1 and libgles2.") from err


@functools.cache
def _mediapipe() -> Any:
    try:
        import mediapipe  # slow to import, and absent until the requirements are installed
        import mediapipe.tasks.python.vision  # noqa: F401
    except ImportError as err:
        raise LikenessError(f"MediaPipe cannot be imported ({err}); install the pack's "
                            "requirements.txt, and on Linux the system packages libgl1, "
                            "libglib2.0-0, libegl1 and libgles2.") from err
    # Plain atexit is too late: MediaPipe closes through a thread pool that is gone by then.
    register = getattr(threading, "_register_atexit", atexit.register)
    register(close_all)
    return mediapipe


def model_bytes(file: str) -> bytes:
    """Read a vendored model file."""
    path = MODELS / file
    if not path.is_file():
        raise MissingModelError(f"`{file}` is not in {MODELS}; install the pack again, its model "
                                "files are incomplete.")
    return path.read_bytes()


def with_detector(bundle: bytes, detector: bytes) -> bytes:
    """Swap the detector inside a face landmarker bundle."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bundle)) as old, \
            zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, detector if name == "face_detector.tflite" else old.read(name))
    return target.getvalue()


def _face_landmarker(bundle: bytes) -> Any:
    from mediapipe.tasks.python import BaseOptions, vision

    return vision.FaceLandmarker.create_from_options(vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_buffer=bundle), num_faces=MAX_FACES,
        output_face_blendshapes=True, output_facial_transformation_matrixes=True))


def _short_range() -> Any:
    return _face_landmarker(model_bytes("face_landmarker.task"))


def _full_range() -> Any:
    return _face_landmarker(with_detector(model_bytes("face_landmarker.task"),
                                          model_bytes("face_detector_full_range.tflite")))


def _face_scores() -> Any:
    """The short-range detector alone: how sure it is of a face, which a landmarker does not say."""
    from mediapipe.tasks.python import BaseOptions, vision

    with zipfile.ZipFile(io.BytesIO(model_bytes("face_landmarker.task"))) as bundle:
        detector = bundle.read("face_detector.tflite")
    return vision.FaceDetector.create_from_options(vision.FaceDetectorOptions(
        base_options=BaseOptions(model_asset_buffer=detector), min_detection_confidence=0.1))


def _pose() -> Any:
    from mediapipe.tasks.python import BaseOptions, vision

    bundle = model_bytes("pose_landmarker_full.task")
    return vision.PoseLandmarker.create_from_options(vision.PoseLandmarkerOptions(
        base_options=BaseOptions(model_asset_buffer=bundle), num_poses=MAX_BODIES))


def _hands() -> Any:
    from mediapipe.tasks.python import BaseOptions, vision

    bundle = model_bytes("hand_landmarker.task")
    return vision.HandLandmarker.create_from_options(vision.HandLandmarkerOptions(
        base_options=BaseOptions(model_asset_buffer=bundle), num_hands=2 * MAX_BODIES))


def _selfie() -> Any:
    from mediapipe.tasks.python import BaseOptions, vision

    bundle = model_bytes("selfie_segmenter.tflite")
    return vision.ImageSegmenter.create_from_options(vision.ImageSegmenterOptions(
        base_options=BaseOptions(model_asset_buffer=bundle), output_confidence_masks=True))


_MAKERS: dict[str, Callable[[], Any]] = {
    "face_full_range": _full_range,
    "face_short_range": _short_range,
    "face_scores": _face_scores,
    "pose": _pose,
    "hands": _hands,
    "selfie": _selfie,
}
# One each: two photos are looked at beside each other, one of them for faces and one for hands.
_locks = {name: threading.Lock() for name in _MAKERS}
