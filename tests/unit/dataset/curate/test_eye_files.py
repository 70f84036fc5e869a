"""Whatever kind of file a photo comes in, its verdict and its face are those of the plain JPEG."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from likeness.nodes.dataset.curate.curate import curate
from likeness.nodes.faces.detect import find_faces
from likeness.nodes.media.images import read_photo
from likeness.nodes.quality.rules import Rules
from PIL import Image, ImageOps

# Photos that are not committed: a folder with `photos` and `portraits`, beside the checkout or
# named by the environment.
MORE = Path(os.environ.get("LIKENESS_PHOTOS") or Path(__file__).resolve().parents[5] / "shared")
EXIF_ORIENTATION = 0x0112
STORED = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90,
          8: Image.Transpose.ROTATE_270}


def with_alpha(picture):
    """A cut-out person: transparent at the left edge, where the background is."""
    picture = picture.convert("RGBA")
    alpha = np.full((picture.height, picture.width), 255, np.uint8)
    alpha[:, :picture.width // 10] = 0
    picture.putalpha(Image.fromarray(alpha))
    return picture


def sixteen_bit_grey(picture):
    return Image.fromarray(np.asarray(picture.convert("L"), np.uint16) * 257)


def sixteen_bit_colour(picture, path):
    import cv2

    cv2.imwrite(str(path), np.asarray(picture, np.uint16)[..., ::-1] * 257)


def animated(picture, path):
    """The photo, then a picture without a face."""
    picture.save(path, save_all=True, append_images=[Image.new("RGB", picture.size, "navy")],
                 duration=100)


def on_its_side(orientation):
    def write(picture, path):
        stored = picture.transpose(STORED[orientation])
        exif = stored.getexif()
        exif[EXIF_ORIENTATION] = orientation
        stored.save(path, quality=95, exif=exif)

    return write


KINDS = {
    "grey.jpg": lambda picture, path: picture.convert("L").save(path, quality=95),
    "grey with alpha.png": lambda picture, path: with_alpha(picture).convert("LA").save(path),
    "16-bit grey.png": lambda picture, path: sixteen_bit_grey(picture).save(path),
    "16-bit grey.tif": lambda picture, path: sixteen_bit_grey(picture).save(path),
    "16-bit colour.png": sixteen_bit_colour,
    "16-bit colour.tif": sixteen_bit_colour,
    "alpha.png": lambda picture, path: with_alpha(picture).save(path),
    "alpha.webp": lambda picture, path: with_alpha(picture).save(path, quality=95),
    "palette.png": lambda picture, path: picture.quantize(256).save(path),
    "cmyk.jpg": lambda picture, path: picture.convert("CMYK").save(path, quality=95),
    "cmyk.tif": lambda picture, path: picture.convert("CMYK").save(path),
    "progressive.jpg": lambda picture, path: picture.save(path, quality=95, progressive=True),
    "animated.png": animated,
    "animated.webp": animated,
    "pages.tif": animated,
    "upside down.jpg": on_its_side(3),
    "phone held left.jpg": on_its_side(6),
    "phone held right.jpg": on_its_side(8),
}


def judged(load_folder, folder):
    photos = curate(load_folder(folder), Rules(duplicate_bits=-1), lambda done: None)
    return {photo.name: photo for photo in photos.photos}


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_kind_of_file_changes_neither_verdict_nor_face(portrait, tmp_path, load_folder, kind):
    portrait.save(tmp_path / "plain.jpg", quality=95)
    KINDS[kind](portrait, tmp_path / kind)
    photos = judged(load_folder, tmp_path)
    plain, other = photos["plain.jpg"], photos[kind]
    assert other.verdict == plain.verdict == "keep", other.reasons
    assert (other.width, other.height) == (plain.width, plain.height)
    assert np.allclose(other.face.box, plain.face.box, atol=0.02 * plain.face.size[0])
    # Without colour the recogniser sees the same person 0.15 to 0.23 away.
    assert np.linalg.norm(other.embedding - plain.embedding) < 0.3
    assert other.measures["luma"] == pytest.approx(plain.measures["luma"], abs=4)


@pytest.mark.parametrize("turn", list(STORED.values()), ids=["180", "90", "270"])
def test_a_selfie_that_lies_on_its_side_without_saying_so_is_still_the_person(
        portrait, tmp_path, load_folder, turn):
    portrait.save(tmp_path / "plain.jpg", quality=95)
    portrait.transpose(turn).save(tmp_path / "turned.jpg", quality=95)
    photos = judged(load_folder, tmp_path)
    turned = photos["turned.jpg"]
    assert np.linalg.norm(turned.embedding - photos["plain.jpg"].embedding) < 0.25
    assert {reason.rule for reason in turned.reasons} == {"tilted"}
    assert turned.measures["face_width"] == pytest.approx(
        photos["plain.jpg"].measures["face_width"], rel=0.05)


def scaled(picture, factor):
    return picture.resize((round(picture.width * factor), round(picture.height * factor)),
                          Image.Resampling.LANCZOS)


def cropped(picture):
    return picture.crop((round(0.08 * picture.width), 0, round(0.95 * picture.width),
                         round(0.9 * picture.height)))


COPIES = {
    "re-encoded.jpg": lambda picture: picture,
    "other format.webp": lambda picture: picture,
    "resized.jpg": lambda picture: scaled(picture, 0.75),
    "cropped.jpg": cropped,
    "cropped and resized.jpg": lambda picture: scaled(cropped(picture), 0.8),
    "mirrored.jpg": ImageOps.mirror,
    "tilted.jpg": lambda picture: picture.rotate(5, Image.Resampling.BICUBIC),
    "grey.jpg": lambda picture: picture.convert("L"),
}


@pytest.mark.parametrize("name", ["obama", "biden2"])
@pytest.mark.parametrize("copy", list(COPIES))
def test_of_a_photo_and_its_copy_one_is_a_duplicate(assets, tmp_path, load_folder, copy, name):
    with Image.open(assets / f"{name}.jpg") as file:
        picture = file.convert("RGB")
    picture.save(tmp_path / "original.png")
    COPIES[copy](picture).save(tmp_path / copy, quality=40)
    photos = curate(load_folder(tmp_path), Rules(), lambda done: None).photos
    duplicates = [photo.name for photo in photos
                  if "duplicate" in {reason.rule for reason in photo.reasons}]
    assert len(duplicates) == 1
    if "resized" in copy:
        assert duplicates == [copy], "the larger one stays"


def test_different_photos_of_a_person_are_no_duplicates(assets, tmp_path, load_folder):
    for name in ("obama", "obama3", "biden", "biden2"):
        (tmp_path / f"{name}.jpg").write_bytes((assets / f"{name}.jpg").read_bytes())
    for photo in curate(load_folder(tmp_path), Rules(), lambda done: None).photos:
        assert "duplicate" not in {reason.rule for reason in photo.reasons}, photo.name


@pytest.mark.skipif(not (MORE / "photos").is_dir(), reason="there are no further photos")
def test_among_further_photos_each_is_given_to_the_right_person(tmp_path, load_folder):
    for name in ("obama", "obama1", "obama2", "obama3", "biden", "biden2"):
        (tmp_path / f"{name}.jpg").write_bytes((MORE / "photos" / f"{name}.jpg").read_bytes())
    photos = judged(load_folder, tmp_path)
    strangers = {name for name, photo in photos.items()
                 if "somebody_else" in {reason.rule for reason in photo.reasons}}
    assert strangers == {"biden.jpg", "biden2.jpg"}


@pytest.mark.skipif(not (MORE / "portraits").is_dir(), reason="there are no further portraits")
def test_every_twentieth_portrait_shows_a_face(tmp_path):
    files = sorted((MORE / "portraits").glob("*.jpg"))[::20]
    missed = [file.name for file in files if not find_faces(read_photo(file))]
    assert files and not missed
