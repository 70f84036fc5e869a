"""Files of every kind give the pixels of the plain one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from likeness.nodes.media.images import read_photo
from PIL import Image


@pytest.fixture(scope="module")
def plain(assets: Path) -> np.ndarray:
    """A part of a photo, (240, 301, 3) uint8."""
    return read_photo(assets / "astronaut.jpg")[:240, :301].copy()


def save_wide(path: Path, pixels: np.ndarray) -> None:
    """Write 16 bits a channel, which Pillow cannot for colours."""
    cv2 = pytest.importorskip("cv2")
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}[pixels.shape[2]]
    path.write_bytes(cv2.imencode(path.suffix, pixels[..., order].astype(np.uint16) * 257)[1])


def error(path: Path, expected: np.ndarray) -> float:
    """Largest difference of a pixel value, of 255."""
    read = read_photo(path)
    assert read.shape == expected.shape and read.dtype == np.uint8 and read.flags.c_contiguous
    return float(np.abs(read.astype(float) - expected).max())


def test_sixteen_bit_colours_lose_no_value_of_eight(plain, tmp_path):
    save_wide(tmp_path / "wide.png", plain)
    save_wide(tmp_path / "wide.tif", plain)
    assert error(tmp_path / "wide.png", plain) == 0
    assert error(tmp_path / "wide.tif", plain) == 0


def test_sixteen_bit_colours_with_alpha_lose_no_value_of_eight(plain, tmp_path):
    save_wide(tmp_path / "wide.png", np.dstack([plain, np.full(plain.shape[:2], 255, np.uint8)]))
    assert error(tmp_path / "wide.png", plain) == 0


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(plain, tmp_path, suffix):
    grey = np.asarray(Image.fromarray(plain).convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / f"grey{suffix}")
    assert error(tmp_path / f"grey{suffix}", np.repeat(grey[..., None], 3, axis=2)) == 0


def test_a_nearly_black_sixteen_bit_photo_stays_black(tmp_path):
    dark = np.full((8, 8), 200, np.uint16)
    Image.fromarray(dark).save(tmp_path / "dark.png")
    assert read_photo(tmp_path / "dark.png").max() <= 1


def test_float_grey_is_read_with_white_at_one(plain, tmp_path):
    grey = np.asarray(Image.fromarray(plain).convert("L"))
    Image.fromarray(grey.astype(np.float32) / 255).save(tmp_path / "float.tif")
    assert error(tmp_path / "float.tif", np.repeat(grey[..., None], 3, axis=2)) <= 1


def test_grey_is_the_same_in_every_channel(plain, tmp_path):
    grey = Image.fromarray(plain).convert("L")
    grey.save(tmp_path / "grey.png")
    assert error(tmp_path / "grey.png", np.repeat(np.asarray(grey)[..., None], 3, axis=2)) == 0


def test_transparency_lies_on_white(plain, tmp_path):
    alpha = np.full(plain.shape[:2], 255, np.uint8)
    alpha[:, :100] = 0
    alpha[:, 100:200] = 128
    Image.fromarray(np.dstack([plain, alpha])).save(tmp_path / "alpha.png")
    share = alpha[..., None] / 255
    assert error(tmp_path / "alpha.png", plain * share + 255 * (1 - share)) <= 1


def test_a_transparent_colour_of_a_palette_lies_on_white(tmp_path):
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((0, 0), 1)
    picture.save(tmp_path / "palette.png", transparency=0)
    read = read_photo(tmp_path / "palette.png")
    assert read[0, 0].tolist() == [200, 100, 50] and read[1, 1].tolist() == [255, 255, 255]


def test_cmyk_is_not_inverted(plain, tmp_path):
    Image.fromarray(plain).convert("CMYK").save(tmp_path / "print.jpg", quality=98, subsampling=0)
    assert error(tmp_path / "print.jpg", plain) <= 10


def test_a_palette_of_256_colours_comes_near(plain, tmp_path):
    Image.fromarray(plain).quantize(256).save(tmp_path / "palette.png")
    read = read_photo(tmp_path / "palette.png").astype(float)
    assert np.abs(read - plain).mean() < 4


@pytest.mark.parametrize("name, options, mean", [
    ("moving.webp", {"lossless": True}, 0.0), ("moving.png", {}, 0.0), ("moving.gif", {}, 4.0)])
def test_of_an_animation_the_first_picture_is_read(plain, tmp_path, name, options, mean):
    first = Image.fromarray(plain)
    first.save(tmp_path / name, save_all=True, append_images=[Image.new("RGB", first.size, "red")],
               **options)
    read = read_photo(tmp_path / name).astype(float)
    assert read.shape == plain.shape
    assert np.abs(read - plain).mean() <= mean


@pytest.mark.parametrize("name", ["cut.jpg", "cut.png", "cut.webp", "cut.gif", "cut.tif"])
def test_a_truncated_file_is_an_error_and_no_half_picture(plain, tmp_path, name):
    Image.fromarray(plain).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:len(content) * 2 // 3])
    with pytest.raises(OSError):
        read_photo(tmp_path / name)
