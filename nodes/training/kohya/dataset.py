"""The pictures, captions and masks that sd-scripts train on, cut as the training set was."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ...errors import LikenessError
from ...media.images import cut_region, reread_photo
from ...media.photo_files import captions_of, photos_in
from ...media.texts import read_text
from ...sockets import Photo, Subject, TrainingItem, TrainingSet
from ...tensors import read_latent

# A bucket's sides are multiples of it; some scripts insist on the first, none goes below the last.
_STEPS = (64, 32)
# Longer captions than this many words may not fit the 75 tokens that are read by default.
_LONG_CAPTION = 45


@dataclass(frozen=True)
class ClassPicture:
    """A picture of somebody else of the class."""

    file: Path
    caption: str


@dataclass(frozen=True)
class Dataset:
    """What goes into a folder.

    Raises:
        LikenessError: a photo is not one of the subject's, or the buckets do not fit the scripts.
    """

    training_set: TrainingSet
    subject: Subject
    class_pictures: tuple[ClassPicture, ...]
    background: float  # weight of what is not face; 1: no masks

    def __post_init__(self) -> None:
        if not self.training_set.items:
            raise LikenessError("The training set has no photos; prepare one from a subject with "
                                "at least one reference photo.")
        for item in self.training_set.items:
            self.photo(item)
        if self.bucket_step is None:
            sizes = sorted({item.bucket for item in self.training_set.items})
            raise LikenessError(f"sd-scripts take sides that are multiples of {_STEPS[-1]} pixels, "
                                f"the training set has {sizes}; prepare it with a `resolution` "
                                "that is one.")

    def photo(self, item: TrainingItem) -> Photo:
        """The subject's photo that an item was cut from."""
        for photo in self.subject.references:
            if (photo.name, photo.sha256) == (item.photo, item.photo_sha256):
                return photo
        raise LikenessError(f"{item.photo} of the training set is no reference photo of "
                            f"{self.subject.name}; connect the subject that it was prepared from.")

    @property
    def bucket_step(self) -> int | None:
        """The largest step that every bucket's sides are multiples of."""
        sides = [side for item in self.training_set.items for side in item.bucket]
        return next((step for step in _STEPS if not any(side % step for side in sides)), None)

    @property
    def side(self) -> int:
        """Side of the square, in whole steps, that no bucket's area exceeds."""
        area = max(math.prod(item.bucket) for item in self.training_set.items)
        return math.ceil(math.sqrt(area) / self.bucket_step) * self.bucket_step

    @property
    def mean_weight(self) -> float:
        """Mean of the photos' alpha channels, each photo counting alike; 1 without masks."""
        if self.background == 1:
            return 1.0
        return float(np.mean([np.asarray(_weights(item, self.background)).mean() / 255
                              for item in self.training_set.items]))

    @property
    def captions(self) -> list[list[str]]:
        """Every caption of each photo, the main one first."""
        texts = self.training_set.texts
        return [[item.caption, *(texts[key] for key in item.variants if key in texts)]
                for item in self.training_set.items]

    @property
    def repeats(self) -> int:
        """How often a photo comes for each round of class pictures: they are paired one to one."""
        return max(1, math.ceil(len(self.class_pictures) / len(self.training_set.items)))

    @property
    def long_captions(self) -> bool:
        """Whether a caption may need more tokens than are read by default."""
        return any(len(text.split()) > _LONG_CAPTION for texts in self.captions for text in texts)


def class_pictures(class_set: TrainingSet | None, folder: Path | None,
                   class_noun: str) -> tuple[ClassPicture, ...]:
    """The class pictures of a set that Class Photos made, or of a folder of the user's.

    In a folder each picture's caption is the text file of its name, or `a photo of a <class>`.

    Raises:
        LikenessError: both, missing pictures, or a caption that is no text.
    """
    if class_set is not None and folder is not None:
        raise LikenessError("`class_set` and `class_folder` are both given; disconnect one.")
    if class_set is not None:
        found = [ClassPicture(_beside(item), item.caption) for item in class_set.items]
        lost = next((picture.file for picture in found if not picture.file.is_file()), None)
        if lost is not None:
            raise LikenessError(f"{lost} is missing; run Class Photos again or give "
                                "`class_folder`.")
        return tuple(found)
    if folder is None:
        return ()
    files = photos_in(folder) if folder.is_dir() else []
    if not files:
        raise LikenessError(f"`class_folder` {folder} holds no pictures; give a folder of PNG, "
                            "JPEG or WebP files.")
    return tuple(ClassPicture(path, _caption(path, class_noun)) for path in files)


def _beside(item: TrainingItem) -> Path:
    """The picture of a class photo; of a made one, which each VAE shows otherwise, the newest."""
    stem = item.latent_file.name.removesuffix(".latent.safetensors")
    own = item.latent_file.with_name(f"{stem}.png")
    shown = item.latent_file.parent.glob(f"{stem}-*.png")
    return own if own.is_file() else max(shown, key=lambda path: path.stat().st_mtime, default=own)


def _caption(picture: Path, class_noun: str) -> str:
    beside = captions_of(picture)
    return read_text(beside[0]).strip() if beside else f"a photo of a {class_noun}"


def write_pictures(data: Dataset, folder: Path, on_item: Callable[[int], None]) -> None:
    """Write photos, captions and class pictures below a folder.

    Args:
        on_item: called with the number of finished pictures; may raise to cancel.
    """
    several = any(len(texts) > 1 for texts in data.captions)
    photos, others = folder / "photos", folder / "class"
    photos.mkdir(parents=True)
    done = 0
    for done, (item, texts) in enumerate(
            zip(data.training_set.items, data.captions, strict=True), start=1):
        picture = _cut(data.photo(item), item)
        if data.background < 1:
            picture.putalpha(_weights(item, data.background))
        picture.save(photos / f"{done:04d}.png")
        _write_caption(photos / f"{done:04d}.txt", texts, several)
        on_item(done)
    for number, picture in enumerate(data.class_pictures, start=1):
        others.mkdir(exist_ok=True)
        pixels = reread_photo(picture.file, picture.file.name)
        Image.fromarray(pixels).save(others / f"{number:04d}.png")
        _write_caption(others / f"{number:04d}.txt", [picture.caption], several)
        on_item(done + number)


def _cut(photo: Photo, item: TrainingItem) -> Image.Image:
    source = Image.fromarray(reread_photo(photo.file, photo.name))
    if not _mirrored(photo, item):
        return cut_region(source, item.crop, item.bucket, item.turn)
    x0, y0, x1, y1 = item.crop  # of the mirrored photo, as is its turn
    picture = cut_region(source, (photo.width - x1, y0, photo.width - x0, y1), item.bucket,
                         -item.turn)
    return ImageOps.mirror(picture)


def _mirrored(photo: Photo, item: TrainingItem) -> bool:
    """Whether an item is its photo's mirror image: the head's yaw then has the other sign."""
    # Of zero too, which is why signs are compared and not numbers.
    return photo.face is not None and (math.copysign(1, item.yaw)
                                       != math.copysign(1, photo.face.pose.yaw))


def _weights(item: TrainingItem, background: float) -> Image.Image:
    """The loss weights as an alpha channel: whole cells of the latent, which average to itself."""
    mask = read_latent(item.latent_file)[1].numpy()
    weights = np.uint8(np.round(255 * (background + (1 - background) * mask)))
    return Image.fromarray(weights).resize(item.bucket, Image.Resampling.NEAREST)


def _write_caption(path: Path, texts: Sequence[str], several: bool) -> None:
    lines = [" ".join(text.split()) for text in texts]
    if several:
        # One of the lines is drawn, and braces would mean a choice of words.
        lines = [line.replace("{", "{{").replace("}", "}}") for line in lines]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def config(data: Dataset, folder: Path, batch_size: int, subset: dict[str, Any]) -> dict[str, Any]:
    """The data set's configuration file.

    Args:
        folder: where the pictures will lie.
        subset: further settings of the subject's photos.
    """
    sides = [side for item in data.training_set.items for side in item.bucket]
    step = data.bucket_step
    dropout = {key: value for key, value in subset.items() if key == "caption_dropout_rate"}
    subsets = [{"image_dir": str(folder / "photos"), "num_repeats": data.repeats, **subset}]
    if data.class_pictures:
        subsets.append({"image_dir": str(folder / "class"), "is_reg": True, "num_repeats": 1,
                        **dropout})
    several = any(len(texts) > 1 for texts in data.captions)
    return {
        "general": {"caption_extension": ".txt", "shuffle_caption": False, "keep_tokens": 1,
                    "enable_wildcard": several, "flip_aug": False},
        "datasets": [{
            "resolution": [data.side, data.side], "batch_size": batch_size, "enable_bucket": True,
            # Pictures no larger than the resolution then stay as they are.
            "bucket_no_upscale": True, "bucket_reso_steps": step,
            "min_bucket_reso": min(sides), "max_bucket_reso": max(sides), "subsets": subsets}],
    }
