"""Of a shot's copies the original is kept, whatever was done to the others."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from likeness.nodes.dataset.curate.originals import names_camera, original_of
from likeness.nodes.faces.detect import find_face
from likeness.nodes.media.views import View
from likeness.nodes.quality.compression import compression, enlargement
from likeness.nodes.quality.edits import edit_measures, jpeg_step
from likeness.nodes.quality.look import Seen
from likeness.nodes.quality.measures import face_width, outside
from likeness.nodes.quality.near import Near
from likeness.nodes.sockets import Photo
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps


def scaled(factor, resample=Image.Resampling.BICUBIC):
    return lambda picture: (picture.resize(
        (round(picture.width * factor), round(picture.height * factor)), resample), factor, 0, 0)


def plain(change):
    return lambda picture: (change(picture), 1.0, 0, 0)


def stored(picture, quality):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def sepia(picture):
    return ImageOps.colorize(picture.convert("L"), (20, 12, 6), (255, 230, 180))


def cut(picture):
    edge = round(0.08 * picture.width)
    return (picture.crop((edge, edge // 2, picture.width - edge, picture.height - edge)), 1.0,
            -edge, -(edge // 2))


def framed(picture):
    edge = round(0.06 * picture.width)
    return ImageOps.expand(picture, edge, "white"), 1.0, edge, edge


def screenshot(picture):
    shown = Image.new("RGB", (picture.width, round(1.9 * picture.width)), (12, 12, 14))
    top = (shown.height - picture.height) // 2
    shown.paste(picture, (0, top))
    ImageDraw.Draw(shown).text((8, 4), "21:14", "white")
    return shown, 1.0, 0, top


EDITS = {
    **{f"quality {quality}": plain(lambda one, quality=quality: stored(one, quality))
       for quality in (30, 50, 70, 80, 90)},
    "enlarged by half": scaled(1.5, Image.Resampling.LANCZOS), "enlarged twice": scaled(2),
    "half the size": scaled(0.5, Image.Resampling.LANCZOS),
    "grey": plain(lambda one: ImageOps.grayscale(one).convert("RGB")), "sepia": plain(sepia),
    "saturated": plain(lambda one: ImageEnhance.Color(one).enhance(2.2)),
    "washed out": plain(lambda one: ImageEnhance.Color(one).enhance(0.25)),
    "sharpened": plain(lambda one: one.filter(ImageFilter.UnsharpMask(2, 200, 0))),
    "sharpened a little": plain(lambda one: one.filter(ImageFilter.UnsharpMask(1, 150, 0))),
    "contrast": plain(lambda one: ImageEnhance.Contrast(one).enhance(1.7)),
    "blurred": plain(lambda one: one.filter(ImageFilter.GaussianBlur(1.2))),
    "smoothed": plain(lambda one: one.filter(ImageFilter.MedianFilter(5))),
    "cut": cut, "framed": framed, "screenshot": screenshot,
}


def looked_at(picture, face):
    pixels = np.asarray(picture)
    height, width = pixels.shape[:2]
    detail = Near(View(pixels), face)
    measures = {"face_width": face_width(face), "photo_side": float(np.sqrt(width * height)),
                "compression": compression(detail), "enlargement": enlargement(detail),
                "outside": outside(face, height, width),
                **edit_measures(detail, pixels)}
    return Photo(Path("nowhere"), "a", "", width, height), Seen(face, measures)


def moved(face, factor, x, y):
    box = tuple(edge * factor + by for edge, by in zip(face.box, (x, y, x, y), strict=True))
    return dataclasses.replace(face, box=box,
                               landmarks=face.landmarks * factor + np.float32((x, y, 0)))


@pytest.fixture(scope="module", params=["obama", "biden2"])
def original(assets, request):
    """A photo as a camera stores it, and its face; shrunk, so that no earlier JPEG shows."""
    with Image.open(assets / f"{request.param}.jpg") as picture:
        whole = picture.convert("RGB")
    small = whole.resize((round(0.8 * whole.width), round(0.8 * whole.height)),
                         Image.Resampling.LANCZOS)
    made = stored(small, 95)
    return made, find_face(np.ascontiguousarray(np.asarray(made)))


@pytest.mark.parametrize("edit", list(EDITS))
def test_the_original_is_told_from_a_copy(original, edit):
    picture, face = original
    copy, factor, x, y = EDITS[edit](picture)
    copied = looked_at(stored(copy, 95) if not edit.startswith("quality") else copy,
                       moved(face, factor, x, y))
    photos, seen = zip(copied, looked_at(picture, face), strict=True)
    assert original_of([0, 1], photos, seen) == 1


def test_the_steps_of_jpeg_show_until_the_picture_is_scaled(original):
    picture, face = original
    steps = [jpeg_step(Near(View(np.asarray(stored(picture, quality))), face))
             for quality in (95, 90, 75, 50, 30)]
    assert steps[0] < 0.2 and steps == sorted(steps) and steps[-1] > 4
    larger, factor, *_ = scaled(1.2)(stored(picture, 50))
    assert jpeg_step(Near(View(np.asarray(larger)), moved(face, factor, 0, 0))) < 0.3


def test_a_compressed_original_is_not_beaten_by_an_enlarged_copy_without_its_traces(original):
    picture, face = original
    kept = stored(picture, 75)
    copy, factor, x, y = scaled(2)(kept)
    copied = looked_at(stored(copy, 95), moved(face, factor, x, y))
    assert copied[1].measures["jpeg_step"] < looked_at(kept, face)[1].measures["jpeg_step"] - 1
    photos, seen = zip(copied, looked_at(kept, face), strict=True)
    assert original_of([0, 1], photos, seen) == 1


def test_a_file_that_names_its_camera_counts(tmp_path):
    picture = Image.new("RGB", (40, 40), "grey")
    exif = Image.Exif()
    exif[0x0110] = "A phone"
    picture.save(tmp_path / "camera.jpg", exif=exif)
    picture.save(tmp_path / "plain.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    found = [names_camera(tmp_path / f"{name}.jpg", "") for name in (
        "camera", "plain", "broken", "gone")]
    assert found == [True, False, False, False]


def test_between_alike_pixels_the_camera_decides(original, tmp_path):
    picture, face = original
    exif = Image.Exif()
    exif[0x010F] = "A maker"
    picture.save(tmp_path / "camera.jpg", quality=95, exif=exif)
    photo, seen = looked_at(picture, face)
    named = dataclasses.replace(photo, file=tmp_path / "camera.jpg", sha256="1")
    assert original_of([0, 1], [photo, named], [seen, seen]) == 1
