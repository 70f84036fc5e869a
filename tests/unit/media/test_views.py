"""Reduced copies and parts of a photo lie where they say, whatever the file holds."""

from __future__ import annotations

import io

import numpy as np
import pytest
from icc_profiles import profile
from likeness.nodes.media import decoding, views
from likeness.nodes.media.images import read_picture
from likeness.nodes.media.views import PhotoPixels, step_within
from PIL import Image, ImageFile

WIDTH, HEIGHT = 413, 331  # no multiples of a step


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    monkeypatch.setattr(views, "SMALLEST", 80)


@pytest.fixture
def decoded(monkeypatch):
    """The sizes at which files were decoded."""
    sizes = []
    load = ImageFile.ImageFile.load

    def watched(picture):
        if picture.tile:
            sizes.append(picture.size)
        return load(picture)

    monkeypatch.setattr(ImageFile.ImageFile, "load", watched)
    return sizes


@pytest.fixture(scope="module")
def scene() -> Image.Image:
    """Soft colours without a symmetry, so that no wrong turn looks right."""
    coarse = np.random.default_rng(3).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def stored(picture: Image.Image, kind: str = "JPEG", **options) -> bytes:
    data = io.BytesIO()
    options = {"quality": 95, **options} if kind in ("JPEG", "WEBP") else options
    picture.save(data, kind, **options)
    return data.getvalue()


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def assert_lies_right(photo: PhotoPixels, view: views.View, full: np.ndarray) -> None:
    """Every pixel of the view is the mean of the photo's pixels that it stands for."""
    assert (photo.width, photo.height) == (full.shape[1], full.shape[0])
    rows, columns = (np.clip(start + np.arange(count * view.shrunk), 0, side - 1) for
                     start, count, side in zip(view.corner[::-1], view.pixels.shape, full.shape,
                                               strict=False))
    there = full[rows][:, columns].astype(float)
    height, width = view.pixels.shape[:2]
    means = there.reshape(height, view.shrunk, width, view.shrunk, 3).mean((1, 3))
    assert np.abs(view.pixels - means).mean() < 1.5
    assert np.abs(view.pixels[1:-1, 1:-1] - means[1:-1, 1:-1]).max() < 40


PARTS = [((0, 0, WIDTH, HEIGHT), 1), ((35.5, 71.2, 140.1, 133.0), 2.9), ((101, 90, 260, 210), 1),
         ((-50, -9, 60, 70), 2), ((300, 250, 900, 900), 1.5)]


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_views_of_turned_photos_lie_where_they_say(scene, kind, turned):
    data = stored(scene, kind, exif=orientation(turned))
    full, photo = np.asarray(read_picture(data)), PhotoPixels(data)
    assert photo.whole.shrunk == 4
    assert_lies_right(photo, photo.whole, full)
    for box, most in PARTS:
        view = photo.part(box, most)
        assert view.shrunk == step_within(most)
        assert_lies_right(photo, view, full)


FILES = {
    "profile": lambda scene: stored(scene, icc_profile=profile("Display P3")),
    "profile in a PNG": lambda scene: stored(scene, "PNG", icc_profile=profile("ProPhoto")),
    "CMYK": lambda scene: stored(scene.convert("CMYK")),
    "grey": lambda scene: stored(scene.convert("L")),
    "16 bits": lambda scene: stored(Image.fromarray(
        np.asarray(scene.convert("L")).astype(np.uint16) * 257), "PNG"),
    "palette": lambda scene: stored(scene.quantize(256), "PNG"),
    "alpha": lambda scene: stored(Image.merge("RGBA", (*scene.split(), scene.getchannel(0))),
                                  "PNG"),
    "progressive": lambda scene: stored(scene, progressive=True, exif=orientation(6)),
    "several pictures": lambda scene: stored(scene, "MPO", save_all=True, append_images=[scene]),
}


@pytest.mark.parametrize("name", FILES)
def test_views_have_the_colours_of_the_whole_photo(scene, name):
    data = FILES[name](scene)
    full, photo = np.asarray(read_picture(data)), PhotoPixels(data)
    for view in (photo.whole, photo.part((50, 60, 150, 170), 1), photo.part((50, 60, 150, 170), 2)):
        assert_lies_right(photo, view, full)


def test_a_picture_in_memory_is_cut_and_reduced_alike(scene):
    full = np.asarray(scene)
    photo = PhotoPixels(full)
    for view in (photo.whole, *(photo.part(*part) for part in PARTS)):
        assert_lies_right(photo, view, full)


def test_a_jpeg_is_decoded_no_further_than_its_views_need(scene, decoded):
    photo = PhotoPixels(stored(scene))
    photo.part((50, 60, 150, 170), 5)
    assert decoded == [(104, 83)]
    photo.part((50, 60, 150, 170), 2)
    assert decoded[1:] == [(207, 166)]
    photo.part((50, 60, 150, 170), 1)
    photo.part((9, 9, 90, 90), 2)
    assert decoded[2:] == [(WIDTH, HEIGHT)]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_other_files_are_decoded_once(scene, decoded, kind):
    photo = PhotoPixels(stored(scene, kind))
    photo.part((50, 60, 150, 170), 2)
    photo.part((50, 60, 150, 170), 1)
    assert decoded.count((WIDTH, HEIGHT)) == len(decoded) <= 1


def test_half_the_sides_are_no_step_of_their_own_on_the_way_to_all_pixels(scene, decoded,
                                                                           monkeypatch):
    monkeypatch.setattr(views, "SMALLEST", 160)
    photo = PhotoPixels(stored(scene))
    assert photo.whole.shrunk == 2
    photo.part((50, 60, 150, 170), 1)
    assert decoded == [(WIDTH, HEIGHT)]


def test_a_photo_that_is_read_at_half_its_sides_is_so_in_every_view(scene, decoded, monkeypatch):
    monkeypatch.setattr(decoding, "WHOLE", 100_000)
    monkeypatch.setattr(views, "SMALLEST", 40)
    data = stored(scene, exif=orientation(8))
    full = np.asarray(read_picture(data))
    assert full.shape == (207, 166, 3)
    decoded.clear()
    photo = PhotoPixels(data)
    for view in (photo.whole, photo.part((20, 30, 90, 100), 1), photo.part((20, 30, 90, 100), 2)):
        assert_lies_right(photo, view, full)
    assert decoded == [(52, 42), (207, 166)]


def test_a_damaged_photo_is_an_oserror_at_every_step(scene):
    data = stored(scene)
    with pytest.raises(OSError):
        PhotoPixels(data[:len(data) // 2])
    with pytest.raises(OSError):
        PhotoPixels(b"no picture")
