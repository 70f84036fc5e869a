"""A photo set as a folder: kohya's layout for training, and beside it all that is known."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import LikenessError
from ...media.images import read_picture, reread_photo
from ...quality.measures import face_width
from ...sockets import Face, Photo, PhotoSet
from ..caption.describe import chosen_photos
from ..files.record import to_entry
from ..prepare.crop import FRAMINGS, Crop, cut, cut_mask, make_buckets
from ..prepare.level import frame
from ..prepare.masks import MASKS, photo_mask
from ..subject.subject import SubjectSettings
from .plain import plain_suffix

FORMAT = 1
RECORD = "likeness.json"
MASK_FOLDER, REST_FOLDER = "masks", "left_out"
PICTURES = ("original files", "crops")
EXISTING = ("number", "refuse")
_MOST = 1000  # sets of one name


@dataclass(frozen=True)
class SaveSettings:
    """What is written, and under which names."""

    name: str
    trigger: str
    class_noun: str
    repeats: int = 10
    pictures: str = "original files"
    framing: str = "head and shoulders"
    resolution: int = 1024
    level_eyes: bool = False
    masks: str = "face oval"
    include_unsure: bool = False
    existing: str = "number"

    def __post_init__(self) -> None:
        SubjectSettings(self.name, self.trigger, self.class_noun, 0, False)
        if re.search(r"[\\/:*?\"<>|\x00-\x1f]|\.$", self.class_noun.strip()):
            raise LikenessError("`class_noun` becomes part of a folder's name and must not have "
                                f"special characters, got `{self.class_noun}`.")
        for name, value, known in (("pictures", self.pictures, PICTURES),
                                   ("framing", self.framing, FRAMINGS),
                                   ("masks", self.masks, MASKS),
                                   ("existing", self.existing, EXISTING)):
            if value not in known:
                raise LikenessError(f"`{name}` must be one of {', '.join(known)}, got `{value}`.")
        if not 1 <= self.repeats <= 10000:
            raise LikenessError(f"`repeats` must be 1 to 10000, got {self.repeats}.")
        if not 64 <= self.resolution <= 4096:
            raise LikenessError(f"`resolution` must be 64 to 4096 pixels, got {self.resolution}.")

    @property
    def folder(self) -> str:
        """The folder with the pictures that train, as kohya's tools read it."""
        return f"{self.repeats}_{self.trigger.strip()} {self.class_noun.strip()}"


def save(photos: PhotoSet, settings: SaveSettings, base: Path,
         on_photo: Callable[[int], None]) -> tuple[Path, bool]:
    """Write a set below `base` whole or not at all; return its folder and whether it is new.

    The chosen photos go into kohya's `<repeats>_<trigger> <class>` with captions, all others as
    they are into `left_out`. The same set that lies there already is not written again.

    Args:
        on_photo: called with the number of finished photos; may raise to cancel.

    Raises:
        LikenessError: no photo is kept, one changed since it was judged, the name is taken, or the
            disk is full; nothing of the set is left then.
    """
    chosen = {photo.name for photo in chosen_photos(photos, settings.include_unsure)}
    stage = base / f".{settings.name.strip()}.{os.getpid()}.part"
    try:
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(parents=True)
        entries = []
        stems = _stems(photos)
        for done, photo in enumerate(photos.photos, start=1):
            entries.append(_write(photo, stems[done - 1], photo.name in chosen, settings, stage))
            on_photo(done)
        record = {"format": FORMAT, "folder": photos.folder, "trigger": settings.trigger.strip(),
                  "class_noun": settings.class_noun.strip(), "repeats": settings.repeats,
                  "pictures": settings.pictures, "training_folder": settings.folder,
                  "photos": entries}
        text = json.dumps(record, indent=1)
        (stage / RECORD).write_text(text, encoding="utf-8")
        return _settle(stage, base, settings, text)
    except OSError as err:
        raise LikenessError(f"The set `{settings.name}` could not be written to {base} "
                            f"({err.strerror or err}); nothing of it is left. Free some disk "
                            "space or choose another place.") from err
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _settle(stage: Path, base: Path, settings: SaveSettings, text: str) -> tuple[Path, bool]:
    """Move a finished set to its place, or find it there."""
    name = settings.name.strip()
    for number in range(1, _MOST):
        place = base / (name if number == 1 else f"{name}_{number}")
        if not place.exists():
            try:
                os.rename(stage, place)
            except FileExistsError:
                continue  # made by somebody else in this moment
            return place, True
        if _same_set(place, stage, text):
            return place, False
        if settings.existing == "refuse":
            raise LikenessError(f"{place} exists already and holds something else; choose another "
                                "`name`, or set `existing` to number.")
    raise LikenessError(f"There are {_MOST} sets called `{name}` in {base}; choose another `name`.")


def _same_set(place: Path, stage: Path, text: str) -> bool:
    """Whether a folder holds the staged set and nothing of it was changed."""
    record = place / RECORD
    if not record.is_file() or record.read_text(encoding="utf-8") != text:
        return False
    files = [path.relative_to(stage) for path in stage.rglob("*") if path.is_file()]
    return all((place / file).is_file() and (place / file).read_bytes()
               == (stage / file).read_bytes() for file in files)


def _stems(photos: PhotoSet) -> list[str]:
    """A name for each photo that no other has: captions and masks are found by it."""
    taken: set[str] = set()
    names = []
    for photo in photos.photos:
        path = Path(photo.name.replace("\\", "/"))
        stem, number = path.stem, 2
        while stem.casefold() in taken:
            stem, number = f"{path.stem}_{number}", number + 1
        taken.add(stem.casefold())
        names.append(stem)
    return names


def _write(photo: Photo, stem: str, trains: bool, settings: SaveSettings,
           stage: Path) -> dict[str, Any]:
    """Write one photo with its caption and mask; return its entry in the record."""
    folder = stage / (settings.folder if trains else REST_FOLDER)
    folder.mkdir(exist_ok=True)
    source = {"file": str(photo.file), "sha256": photo.sha256}
    crop = None
    if trains and settings.pictures == "crops":
        path = folder / f"{stem}.png"
        crop = frame(photo, settings.framing, make_buckets(settings.resolution),
                     settings.level_eyes)
        Image.fromarray(cut(reread_photo(photo.file, photo.name), crop)).save(path)
        saved = cropped(photo, crop)
    else:
        path, saved = _whole(photo, folder, stem, trains), photo
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path and photo.sha256 else ""
    if photo.caption.strip() and trains:
        path.with_suffix(".txt").write_text(photo.caption, encoding="utf-8")
    mask = _write_mask(photo, crop, stem, trains, settings, stage)
    entry = {"file": path.relative_to(stage).as_posix() if path else None,
             "source": source, **mask, **to_entry(replace(saved, sha256=digest))}
    if crop is not None:
        entry["crop"] = {"box": list(crop.box), "turn": crop.turn, "bucket": list(crop.bucket)}
    return entry


def _whole(photo: Photo, folder: Path, stem: str, trains: bool) -> Path | None:
    """Write a photo's file as it is; one that trains, and that a trainer would see otherwise, as
    PNG with the same pixels. None when it was unreadable before and is so still.
    """
    try:
        data = photo.file.read_bytes()
        if photo.sha256 and hashlib.sha256(data).hexdigest() != photo.sha256:
            raise LikenessError(f"`{photo.name}` changed since it was judged; load and curate the "
                                "photos again, then save them.")
        suffix = plain_suffix(data, photo.file.suffix) if trains else photo.file.suffix
        pixels = None if suffix or not trains else read_picture(data)
    except OSError as err:
        if not photo.sha256:
            return None
        raise LikenessError(f"`{photo.name}` cannot be read any more ({err.strerror or err}); put "
                            "the photo back or load the photos again.") from err
    path = folder / (stem + (suffix if pixels is None else ".png"))
    if pixels is None:
        path.write_bytes(data)
    else:
        pixels.save(path)
    return path


def _write_mask(photo: Photo, crop: Crop | None, stem: str, trains: bool, settings: SaveSettings,
                stage: Path) -> dict[str, Any]:
    """Write what weighs in training, and say whether it is the user's own mask."""
    own = photo.mask is not None
    if not own and (not trains or settings.masks == "none"):
        return {"mask": None}
    kind = settings.masks if settings.masks != "none" else MASKS[0]
    (stage / MASK_FOLDER).mkdir(exist_ok=True)
    path = stage / MASK_FOLDER / f"{stem}.png"
    mask = photo_mask(photo, kind)
    if crop is not None:
        mask = cut_mask(mask, crop, *crop.bucket)
    Image.fromarray(np.uint8(np.round(mask * 255))).save(path)
    return {"mask": {"file": path.relative_to(stage).as_posix(), "own": own,
                     "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}}


def cropped(photo: Photo, crop: Crop) -> Photo:
    """What is known of a photo, in the pixels of its crop; file and mask stay the photo's."""
    face, (width, height) = photo.face, crop.bucket
    flat = crop.place(face.landmarks[:, :2])
    depth = face.landmarks[:, 2:] * crop.enlargement
    landmarks = np.concatenate([flat, depth], axis=1).astype(face.landmarks.dtype)
    box = tuple(float(edge) for edge in (*landmarks[:, :2].min(0), *landmarks[:, :2].max(0)))
    moved = Face(box, landmarks, face.mesh, replace(face.pose, roll=face.pose.roll + crop.turn),
                 face.expression)
    measures = dict(photo.measures)
    if "face_width" in measures:
        measures["face_width"] = face_width(moved)
    if "face_share" in measures:
        measures["face_share"] = moved.size[0] * moved.size[1] / (width * height)
    return replace(photo, width=width, height=height, face=moved, measures=measures)
