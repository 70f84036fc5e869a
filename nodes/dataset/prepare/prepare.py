"""From a Subject to a training set: crops, masks, captions, and what is known of each head."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import LikenessError
from ...faces.recognise import dlib_resnet
from ...media.images import reread_photo, to_image
from ...sockets import Photo, Subject, TrainingItem, TrainingSet
from ...tensors import read_latent
from ..caption.caption import captions, class_caption, shuffled, with_own_light
from ..caption.given import GivenCaptions, paragraphs_note
from .cache import FORMAT, Encoders, cached_latent, cached_text, caption_key, content_key
from .crop import Crop, cut, cut_mask, make_buckets
from .level import frame
from .masks import MASKS, mask_digest, photo_mask

# Crops of the same photo that need more than this many output pixels per photo pixel look soft.
SOFT_ENLARGEMENT = 1.5


@dataclass(frozen=True)
class PrepareSettings:
    """How photos are cut, weighted and described."""

    resolution: int  # pixels; the area of a bucket is at most its square
    framing: str
    caption_template: str  # each line is one caption of every photo
    shuffle: int = 0  # other orders of each caption's parts
    keep_parts: int = 1  # of a caption's parts that stay in front when shuffled
    mirror: bool = False
    mask: str = "face oval"
    mask_grow: float = 0.0  # of the face's size, added to the kind's own margin
    level_eyes: bool = False

    def __post_init__(self) -> None:
        if not 64 <= self.resolution <= 4096:
            raise LikenessError(f"`resolution` must be 64 to 4096 pixels, got {self.resolution}.")
        if not 0 <= self.shuffle <= 16:
            raise LikenessError(f"`shuffle` must be 0 to 16 orders, got {self.shuffle}.")
        if self.keep_parts < 0:
            raise LikenessError(f"`keep_parts` must be 0 or more, got {self.keep_parts}.")
        if self.mask not in MASKS:
            raise LikenessError(f"`mask` must be one of {', '.join(MASKS)}, got {self.mask}.")
        if not -0.4 <= self.mask_grow <= 1:
            raise LikenessError(f"`mask_grow` must be -0.4 to 1, got {self.mask_grow}.")


@dataclass(frozen=True, eq=False)
class PreparedPhoto:
    """One crop as it trains, for the preview and the report."""

    item: TrainingItem
    pixels: np.ndarray  # (h, w, 3) uint8
    mask: np.ndarray  # (h, w) float32 at the latent's grid
    enlargement: float
    mirrored: bool


@dataclass(frozen=True)
class _Wording:
    """The captions of one photo."""

    main: str
    others: tuple[str, ...]
    of_class: str  # the main one without the trigger

    @property
    def texts(self) -> tuple[str, ...]:
        return self.main, *self.others, self.of_class


def prepare(subject: Subject, settings: PrepareSettings, encoders: Encoders, folder: Path,
            on_item: Callable[[int], None], given: GivenCaptions | None = None,
            ) -> tuple[TrainingSet, list[PreparedPhoto]]:
    """Cut, mask, caption and encode a subject's reference photos; finished work is reused.

    Args:
        folder: where the cache lies; files are named by what went into them.
        on_item: called with the number of finished photos; may raise to cancel.
        given: captions that replace the template.

    Raises:
        LikenessError: a photo or caption that cannot be used, or a folder that cannot be written;
            what was encoded by then is kept and reused.
    """
    views = [view for photo in subject.references for view in _views(photo, settings.mirror)]
    wordings = [_describe(photo, subject, settings, given or GivenCaptions())
                for photo in with_own_light([photo for photo, _ in views])]
    texts = {"": ""}
    texts |= {caption_key(text): text for wording in wordings for text in wording.texts}
    conditionings = {}
    # All texts come before all pictures: the host need not swap the two encoders back and forth.
    for key, text in texts.items():
        on_item(0)
        conditionings[key] = cached_text(text, encoders, folder)
    buckets = make_buckets(settings.resolution)
    prepared = []
    for done, ((photo, mirrored), wording) in enumerate(zip(views, wordings, strict=True), start=1):
        prepared.append(_encode_photo(photo, mirrored, wording, buckets, settings, encoders,
                                      folder))
        on_item(done * len(subject.references) // len(views))
    items = tuple(entry.item for entry in prepared)
    made = TrainingSet(items, conditionings, folder, _set_key(items, conditionings), subject.name,
                       subject.trigger, texts)
    return made, prepared


def _views(photo: Photo, mirror: bool) -> list[tuple[Photo, bool]]:
    """A photo as it is and, if asked, as a mirror shows it, with the pose that is seen there."""
    if not mirror or photo.face is None:
        return [(photo, False)]
    pose = dataclasses.replace(photo.face.pose, yaw=-photo.face.pose.yaw,
                               roll=-photo.face.pose.roll)
    face = dataclasses.replace(photo.face, pose=pose)
    measures = dict(photo.measures)
    if "light_side" in measures:
        measures["light_side"] = -measures["light_side"]
    return [(photo, False), (dataclasses.replace(photo, face=face, measures=measures), True)]


def _describe(photo: Photo, subject: Subject, settings: PrepareSettings,
              given: GivenCaptions) -> _Wording:
    templates, source = settings.caption_template, "The caption template"
    if photo.name in given.texts:
        templates, source = given.texts[photo.name], f"The caption given for {photo.name}"
    texts = captions(photo, subject.trigger, subject.class_noun, templates, source)
    others = dict.fromkeys(texts[1:])
    for text in texts:
        others |= dict.fromkeys(shuffled(text, settings.shuffle, settings.keep_parts,
                                         photo.sha256))
    others.pop(texts[0], None)
    return _Wording(texts[0], tuple(others),
                    class_caption(texts[0], subject.trigger, subject.class_noun))


def _encode_photo(photo: Photo, mirrored: bool, wording: _Wording,
                  buckets: list[tuple[int, int]], settings: PrepareSettings, encoders: Encoders,
                  folder: Path) -> PreparedPhoto:
    crop = frame(photo, settings.framing, buckets, settings.level_eyes)
    source = reread_photo(photo.file, photo.name)
    pixels = cut(source, crop)
    pixels = np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels

    def make() -> tuple[torch.Tensor, torch.Tensor]:
        latent = encoders.encode_image(to_image(pixels))[0]
        height, width = latent.shape[-2:]
        mask = _mask(photo, crop, (width, height), settings)
        return latent, torch.from_numpy(mask[:, ::-1].copy() if mirrored else mask)

    path = cached_latent(_latent_name(photo, crop, mirrored, settings, encoders), folder, make,
                         photo.name)
    x0, y0, x1, y1 = crop.box
    item = TrainingItem(
        photo.name, photo.sha256, wording.main, crop.bucket, (photo.width, photo.height),
        (photo.width - x1, y0, photo.width - x0, y1) if mirrored else crop.box, path,
        caption_key(wording.main), tuple(map(caption_key, wording.others)),
        caption_key(wording.of_class), photo.face.pose.yaw, photo.face.pose.pitch,
        _points(photo, crop, mirrored), -crop.turn if mirrored else crop.turn)
    return PreparedPhoto(item, pixels, read_latent(path)[1].numpy(), crop.enlargement, mirrored)


def _latent_name(photo: Photo, crop: Crop, mirrored: bool, settings: PrepareSettings,
                 encoders: Encoders) -> str:
    """What a crop's latent and mask are called: by all that decides them."""
    parts = [FORMAT, photo.sha256, photo.face.box, crop.box, crop.bucket, mirrored, settings.mask,
             settings.mask_grow, encoders.image_key]
    if crop.turn:
        parts.append(crop.turn)
    if photo.mask is not None and settings.mask != "none":
        parts.append(mask_digest(photo))
    return content_key(*parts)


def _mask(photo: Photo, crop: Crop, grid: tuple[int, int],
          settings: PrepareSettings) -> np.ndarray:
    """How much each cell (width, height) of a crop's latent weighs: (h, w) float32."""
    mask = cut_mask(photo_mask(photo, settings.mask, settings.mask_grow), crop, *grid)
    if photo.mask is not None and not mask.max():
        raise LikenessError(f"The mask {photo.mask.name} of {photo.name} is black everywhere in "
                            "the crop; choose a wider `framing` or correct the mask.")
    return mask


def _points(photo: Photo, crop: Crop, mirrored: bool) -> tuple[tuple[float, float], ...]:
    """The recogniser's alignment points in pixels of the crop as it trains."""
    points = crop.place(dlib_resnet.alignment_points(photo.face.landmarks))
    if mirrored:
        points = dlib_resnet.mirrored_points(points, crop.bucket[0])
    return tuple((round(float(x), 3), round(float(y), 3)) for x, y in points)


def _set_key(items: tuple[TrainingItem, ...], conditionings: dict[str, Path]) -> str:
    """Name a training set by every value of its items and every file it needs."""
    rows = [{**dataclasses.asdict(item), "latent_file": item.latent_file.name} for item in items]
    for row in rows:
        if not row["turn"]:  # came later; sets without it keep their name
            del row["turn"]
    return content_key(FORMAT, rows, sorted((key, path.name)
                                            for key, path in conditionings.items()))


def report(training_set: TrainingSet, prepared: list[PreparedPhoto],
           given: GivenCaptions | None = None) -> dict[str, Any]:
    """The JSON report of a prepared set."""
    texts = training_set.texts
    return {
        "photos": [{
            "file": entry.item.photo,
            "mirrored": entry.mirrored,
            "caption": entry.item.caption,
            "variants": [texts[key] for key in entry.item.variants],
            "class_caption": texts[entry.item.class_key],
            "bucket": list(entry.item.bucket),
            "crop": [round(side, 1) for side in entry.item.crop],
            "turn": round(entry.item.turn, 1),
            "enlargement": round(entry.enlargement, 3),
            "soft": entry.enlargement > SOFT_ENLARGEMENT,
            "face_share": round(float(entry.mask.mean()), 4),
            "yaw": round(entry.item.yaw, 1),
            "pitch": round(entry.item.pitch, 1),
        } for entry in prepared],
        "buckets": sorted({entry.item.bucket for entry in prepared}),
        "encoded_texts": len(texts),
        "unused_captions": list(given.unused) if given else [],
        "notes": list(filter(None, [paragraphs_note(given.texts, training_set.trigger)]))
        if given else [],
    }
