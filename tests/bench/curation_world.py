"""What the curation bench looks at: photos of chosen sizes, none twice, and a plain pipeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

ASSETS = Path(__file__).resolve().parents[1] / "assets"
PEOPLE = ("obama", "obama3", "biden2", "biden", "astronaut")

# What `look` calls by these names, gathered into stages.
STAGES = {"_read": "decode", "near": "decode", "find_faces": "detect", "look_closer": "detect",
          "embed": "embed", "measure_near": "measures", "_aligned": "hash", "_pattern": "hash",
          "describe": "scene"}
# Inside `measures`, by module and name.
MEASURES = {("measures", "sharpness"): "sharpness", ("measures", "exposure"): "exposure",
            ("measures", "occlusion_measures"): "occlusion",
            ("measures", "compression"): "compression",
            ("measures", "enlargement"): "enlargement",
            ("measures", "landmark_colours"): "light", ("measures", "light_measures"): "light"}


class Photos:
    """Writes JPEG photos of about `megapixels`, each with pixels of its own.

    Results that are kept by content then never save a measurement any work.
    """

    def __init__(self, folder: Path, megapixels: float) -> None:
        self._folder, self._made = folder, 0
        self._bases = [self._grown(name, megapixels) for name in PEOPLE]
        folder.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def _grown(name: str, megapixels: float) -> Image.Image:
        with Image.open(ASSETS / f"{name}.jpg") as file:
            picture = file.convert("RGB")
        scale = (megapixels * 1e6 / (picture.width * picture.height)) ** 0.5
        return picture.resize((round(picture.width * scale), round(picture.height * scale)),
                              Image.Resampling.BICUBIC)

    def next(self, count: int) -> list[Path]:
        """The next photos: five pictures in turn, each time cut, lit and mirrored otherwise."""
        paths = []
        for _ in range(count):
            number = self._made
            self._made += 1
            base = self._bases[number % len(PEOPLE)]
            step = number // len(PEOPLE)
            cut = step % 7
            picture = base.crop((cut, cut, base.width - (step % 5), base.height))
            picture = ImageEnhance.Brightness(picture).enhance(0.9 + 0.005 * (step % 40))
            picture = ImageOps.mirror(picture) if step % 2 else picture
            paths.append(self._folder / f"{number:04d}.jpg")
            picture.save(paths[-1], quality=92)
        return paths


class Clock:
    """Adds up seconds by stage: of the wall, and of the processor in all threads."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Count what runs inside."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall[stage] = self.wall.get(stage, 0.0) + time.perf_counter() - wall
            self.cpu[stage] = self.cpu.get(stage, 0.0) + time.process_time() - cpu

    def watched(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """The same function, its time counted."""
        def run(*args: Any, **named: Any) -> Any:
            with self.time(stage):
                return function(*args, **named)

        return run


@contextmanager
def stages_watched(clock: Clock) -> Iterator[None]:
    """Count the time of `look`'s stages while it runs in one thread."""
    from likeness.nodes.quality import look, measures

    places = {"look": look, "measures": measures}
    named = {("look", name): stage for name, stage in STAGES.items()}
    named |= {place: f"measures: {stage}" for place, stage in MEASURES.items()}
    with ExitStack() as stack:
        for (module, name), stage in named.items():
            target = places[module]
            stack.enter_context(patch.object(target, name,
                                             clock.watched(getattr(target, name), stage)))
        yield


@contextmanager
def whole_pictures() -> Iterator[None]:
    """Have `look` work as if photos had one size alone: the way that its savings are held against.

    Every photo is decoded whole, faces are sought and every measure taken on all of its pixels,
    masks are painted over all of it, and one lock stands before all of MediaPipe's models.
    """
    from likeness.nodes.faces import tasks
    from likeness.nodes.media import views
    from likeness.nodes.quality import measures

    one = threading.Lock()
    with patch.object(views, "SMALLEST", float("inf")), \
            patch.object(measures, "_round_the_face", lambda pixels, face: (pixels, face)), \
            patch.object(tasks, "_locks", dict.fromkeys(tasks._locks, one)):
        yield


class Plain:
    """The pipeline that most tools have: MediaPipe's stock landmarker and measures of whole photos.

    Decodes a file with Pillow, takes landmarks, blendshapes and pose of one face, embeds it with
    the same network as the pack, and takes the Laplacian's variance, the mean luma and the
    perceptual hash of the whole photo. No turned faces, close-ups, second faces, hands, light,
    background.
    """

    def __init__(self) -> None:
        from likeness.nodes.faces.tasks import model_bytes
        from mediapipe.tasks.python import BaseOptions, vision

        self._task = vision.FaceLandmarker.create_from_options(vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=model_bytes("face_landmarker.task")),
            num_faces=1, output_face_blendshapes=True,
            output_facial_transformation_matrixes=True))

    def __call__(self, file: Path) -> bool:
        """Look at one photo; whether it found a face."""
        import imagehash
        import mediapipe
        from likeness.nodes.faces.recognise.dlib_resnet import chip, embed_chip

        with Image.open(file) as picture:
            picture = ImageOps.exif_transpose(picture).convert("RGB")
        pixels = np.ascontiguousarray(np.asarray(picture))
        found = self._task.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB,
                                                  data=pixels))
        grey = np.asarray(picture.convert("L"), np.float32)
        laplacian(grey).var(), grey.mean(), imagehash.phash(picture)
        for points in found.face_landmarks:
            landmarks = np.array([(p.x * picture.width, p.y * picture.height, 0) for p in points],
                                 np.float32)
            embed_chip(chip(pixels, landmarks))
        return bool(found.face_landmarks)

    def close(self) -> None:
        """Free the task."""
        self._task.close()


def laplacian(grey: np.ndarray) -> np.ndarray:
    """The four neighbours less four times the pixel: (H - 2, W - 2)."""
    return (grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
            - 4 * grey[1:-1, 1:-1])


def spin(_: Any) -> None:
    """Work of some tens of milliseconds that any number of threads can do beside each other."""
    import hashlib

    hashlib.sha256(_BUFFER).digest()


_BUFFER = bytes(30_000_000)


def digests(files: Sequence[Path]) -> dict[Path, str]:
    """The SHA-256 of each file, as loading photos records it."""
    import hashlib

    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
