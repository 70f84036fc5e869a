"""Class photos: pictures of other people of the subject's class, for prior preservation.

They are what the model itself shows for the class word (https://arxiv.org/abs/2208.12242, section
3.2), sampled once and kept on disk under everything that decides them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...brackets import plain
from ...cache_limit import files_of as training_files
from ...errors import LikenessError
from ...incoming import is_finite, is_finite_text, require_latent, require_text
from ...media.images import read_photo, resize, to_image
from ...sockets import TrainingItem, TrainingSet
from ...tensors import (
    Conditioning,
    DamagedFileError,
    read_conditioning,
    read_latent,
    write_conditioning,
    write_latent,
)
from .sampling import Sampling, write_png

logger = logging.getLogger("likeness")

DEFAULT_PROMPT = "a photo of a {class}"

# Raised when the same settings begin to give other files.
_FORMAT = 1
_THUMBNAIL = 512  # pixels
_SHOWN = 64  # pictures: as IMAGE they take 200 MB, whatever the count


@dataclass(frozen=True)
class ClassPhotoSettings:
    """What pictures of a class are made.

    Raises:
        LikenessError: no prompt, or a number out of range.
    """

    class_noun: str
    prompts: tuple[str, ...]  # used in turn; "{class}" stands for the class noun
    negative: str
    count: int
    seed: int  # of the first picture; each further one takes the next number
    width: int  # pixels
    height: int
    sampling: Sampling

    def __post_init__(self) -> None:
        if not self.class_noun.strip():
            raise LikenessError("`class_noun` must not be empty; give a word such as person.")
        if not self.prompts:
            raise LikenessError("`prompt` must have at least one line, such as a photo of a "
                                "{class}.")
        if not 1 <= self.count <= 10000:
            raise LikenessError(f"`count` must be 1 to 10000, got {self.count}.")

    def prompt(self, index: int) -> str:
        """The text of one picture."""
        return self.prompts[index % len(self.prompts)].replace("{class}", self.class_noun)


@dataclass(frozen=True)
class Studio:
    """The host's model, text encoder and VAE as plain callables, with what identifies them."""

    sample: Callable[[Conditioning, Conditioning, int], torch.Tensor]  # -> (1, C, ..., h, w)
    decode: Callable[[torch.Tensor], np.ndarray]  # (1, C, ..., h, w) -> (H, W, 3) uint8
    encode_image: Callable[[torch.Tensor], torch.Tensor]  # (1, H, W, 3) -> (1, C, ..., h, w)
    encode_text: Callable[[str], Conditioning]  # a prompt, brackets weigh
    encode_caption: Callable[[str], Conditioning]  # brackets are words
    model_key: str
    image_key: str
    text_key: str


@dataclass(frozen=True, eq=False)
class ClassPhoto:
    """One finished class photo."""

    item: TrainingItem
    picture: Path  # png
    thumbnail: np.ndarray | None  # (h, w, 3) uint8, at most 512 a side; None: it is not shown
    reused: bool  # it lay on disk already


def prompt_lines(text: str) -> tuple[str, ...]:
    """The non-empty lines of a text."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def generate(settings: ClassPhotoSettings, studio: Studio, folder: Path) -> Iterator[ClassPhoto]:
    """Make the class photos one by one; those that lie in the folder are read instead.

    Each is on disk before it is yielded, so a run that ends early loses none.

    Raises:
        LikenessError: the folder cannot be written.
    """
    texts: dict[str, Conditioning] = {}

    def encoded(text: str) -> Conditioning:
        if text not in texts:
            file = _encode_text(text, studio.encode_text, text, studio, folder)
            texts[text] = read_conditioning(file)
        return texts[text]

    for index in range(settings.count):
        text, seed = settings.prompt(index), settings.seed + index
        key = _key([studio.model_key, studio.text_key, text, settings.negative, seed,
                    settings.width, settings.height, asdict(settings.sampling)])
        path = folder / f"{key}.latent.safetensors"
        latent = _whole_latent(path)
        reused = latent is not None
        if latent is None:
            latent = studio.sample(encoded(text), encoded(settings.negative), seed)
            if not is_finite(latent):
                raise LikenessError(f"The model drew NaN in place of a picture for `{text}`, seed "
                                    f"{seed}; start ComfyUI with --fp32-unet or --bf16-unet, or "
                                    "choose another sampler.")
            _write(path, latent)
        yield _photo(path, latent, key, text, studio, reused)


def encode(images: Iterable[np.ndarray], settings: ClassPhotoSettings, studio: Studio,
           folder: Path) -> Iterator[ClassPhoto]:
    """Make class photos of given pictures (H, W, 3) uint8, cut to the size that was asked for.

    The caption is the first prompt's. What is encoded already is read instead.

    Raises:
        LikenessError: the folder cannot be written.
    """
    text = settings.prompt(0)
    for number, pixels in enumerate(images, start=1):
        cut = _cover(pixels, settings.width, settings.height)
        key = _key([studio.image_key, hashlib.sha256(cut.tobytes()).hexdigest(), cut.shape])
        path = folder / f"{key}.latent.safetensors"
        latent = _whole_latent(path)
        reused = latent is not None
        if latent is None:
            latent = require_latent(studio.encode_image(to_image(cut)), f"class picture {number}")
            _write(path, latent)
        picture = folder / f"{key}.png"
        if not picture.exists():
            write_png(picture, cut)
        yield ClassPhoto(_item(path, key, text, cut), picture, thumbnail(cut), reused)


def class_set(photos: Sequence[ClassPhoto], studio: Studio, folder: Path,
              subject: str) -> TrainingSet:
    """The photos as a training set without a trigger, with the empty caption's encoding too."""
    captions = sorted({photo.item.caption for photo in photos})
    texts = {"": "", **{_caption_key(text): text for text in captions}}
    files = {key: _encode_text(text, studio.encode_caption, plain(text), studio, folder)
             for key, text in texts.items()}
    key = _key([[photo.item.latent_file.name for photo in photos],
                [photo.item.caption for photo in photos],
                sorted(path.name for path in files.values())])
    return TrainingSet(tuple(photo.item for photo in photos), files, folder, key, subject, "",
                       texts)


def shown_places(count: int) -> set[int]:
    """Which of so many photos are shown: all of a few, an even choice of more."""
    return set(np.linspace(0, count - 1, min(count, _SHOWN)).round().astype(int).tolist())


def files_of(photos: Sequence[ClassPhoto], made: TrainingSet) -> set[Path]:
    """Every file that these photos need or show."""
    return {photo.picture for photo in photos} | training_files(made)


def report(photos: Sequence[ClassPhoto], settings: ClassPhotoSettings, folder: Path,
           own: bool) -> dict:
    """The JSON report of a set of class photos."""
    made = sum(not photo.reused for photo in photos)
    return {
        "class_noun": settings.class_noun,
        "folder": str(folder),
        "count": len(photos),
        "source": "own pictures" if own else "generated",
        "made": made,
        "reused": len(photos) - made,
        "size": [settings.width, settings.height],
        "negative": None if own else settings.negative,
        "sampling": None if own else asdict(settings.sampling),
        "photos": [{"file": photo.picture.name, "prompt": photo.item.caption,
                    "seed": None if own else settings.seed + index, "reused": photo.reused}
                   for index, photo in enumerate(photos)],
    }


def _key(parts: object) -> str:
    return hashlib.sha256(json.dumps([_FORMAT, parts], sort_keys=True).encode()).hexdigest()[:24]


def _caption_key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24] if text else ""


def _write(path: Path, latent: torch.Tensor) -> None:
    """Store a latent with a mask that weighs every place alike: any face is as good as another."""
    write_latent(path, latent[0], torch.ones(latent.shape[-2:]))


def _whole_latent(path: Path) -> torch.Tensor | None:
    """The latent (1, C, ..., h, w) in a file; None without one that can be read."""
    if not path.exists():
        return None
    try:
        latent = read_latent(path)[0][None]
        return latent if is_finite(latent) else None
    except DamagedFileError:
        logger.warning("The class photo %s is damaged and is made again.", path)
        path.unlink()
        return None


def _photo(path: Path, latent: torch.Tensor, key: str, text: str, studio: Studio,
           reused: bool) -> ClassPhoto:
    # Another VAE shows the same latent in other colours.
    picture = path.with_name(f"{key}-{studio.image_key[:8]}.png")
    try:
        pixels = read_photo(picture)
    except OSError:  # absent, or cut off
        pixels = studio.decode(latent)
        write_png(picture, pixels)
    return ClassPhoto(_item(path, key, text, pixels), picture, thumbnail(pixels), reused)


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8 at most 512 pixels a side."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    return np.array(picture)


def _item(path: Path, key: str, text: str, pixels: np.ndarray) -> TrainingItem:
    height, width = pixels.shape[:2]
    caption_key = _caption_key(text)
    return TrainingItem(f"class {key[:8]}", key, text, (width, height), (width, height),
                        (0.0, 0.0, float(width), float(height)), path, caption_key,
                        class_key=caption_key)


def _encode_text(text: str, encode: Callable[[str], Conditioning], read_as: str, studio: Studio,
                 folder: Path) -> Path:
    """The file of a text's encoding, made if it is not there.

    Args:
        read_as: what names the file: the text as a prompt that is read in the same way.
    """
    path = folder / f"{_key([studio.text_key, read_as])}.text.safetensors"
    if path.exists():
        try:
            if is_finite_text(read_conditioning(path)):
                return path
        except DamagedFileError:
            logger.warning("The encoding %s is damaged and is made again.", path)
            path.unlink()
    write_conditioning(path, require_text(encode(text), text))
    return path


def _cover(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Cut the middle of a picture to another aspect ratio and resize it."""
    tall, wide = pixels.shape[:2]
    scale = max(width / wide, height / tall)
    cut_width, cut_height = min(wide, round(width / scale)), min(tall, round(height / scale))
    left, top = (wide - cut_width) // 2, (tall - cut_height) // 2
    return resize(pixels[top:top + cut_height, left:left + cut_width], width, height)
