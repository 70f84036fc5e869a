"""Photos of every colour space are read as sRGB, and those that are sRGB stay as they are."""

from __future__ import annotations

import icc_profiles
import numpy as np
import pytest
from likeness.nodes.dataset.prepare.masks import read_mask
from likeness.nodes.media.images import read_photo, told_of_reading
from likeness.nodes.sockets import Photo
from PIL import Image, ImageCms


@pytest.fixture(scope="module")
def face(assets) -> Image.Image:
    with Image.open(assets / "obama.jpg") as picture:
        return picture.convert("RGB").resize((120, 150))


@pytest.mark.parametrize("name", list(icc_profiles.SPACES))
def test_a_profiles_colours_are_brought_to_srgb(face, tmp_path, name):
    path = tmp_path / "a.png"
    face.save(path, icc_profile=icc_profiles.profile(name))
    right = icc_profiles.in_srgb(np.asarray(face), name).astype(int)
    assert np.abs(right - np.asarray(face)).max() > 10, "the test's profile does something"
    error = np.abs(read_photo(path) - right)
    assert error.mean() < 0.3 and error.max() <= 2
    assert told_of_reading(path) == f"Its colours were brought from {name} to sRGB."


def test_transparency_stays_under_a_profile(face, tmp_path):
    sheer = face.copy()
    sheer.putalpha(Image.linear_gradient("L").resize(face.size))
    sheer.save(tmp_path / "sheer.png", icc_profile=icc_profiles.profile("Adobe RGB"))
    managed = Image.fromarray(icc_profiles.in_srgb(np.asarray(face), "Adobe RGB"))
    managed.putalpha(sheer.getchannel("A"))
    right = Image.alpha_composite(Image.new("RGBA", face.size, "white"), managed).convert("RGB")
    assert np.abs(read_photo(tmp_path / "sheer.png").astype(int) - np.asarray(right)).max() <= 3


def test_grey_and_palette_pictures_keep_their_light(face, tmp_path):
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for mode in ("L", "P"):
        face.convert(mode).save(tmp_path / "plain.png")
        face.convert(mode).save(tmp_path / "with.png", icc_profile=plain)
        assert np.array_equal(read_photo(tmp_path / "with.png"), read_photo(tmp_path / "plain.png"))


def test_a_masks_values_are_weights_and_no_colours(tmp_path):
    mask = Image.linear_gradient("L").convert("RGB")
    mask.save(tmp_path / "mask.png", icc_profile=icc_profiles.profile("ProPhoto"))
    photo = Photo(tmp_path / "a.jpg", "a.jpg", width=256, height=256, mask=tmp_path / "mask.png")
    assert np.array_equal(np.round(read_mask(photo) * 255), np.asarray(mask)[..., 0])


def test_srgb_photos_are_not_touched(face, tmp_path):
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    face.save(tmp_path / "srgb.png", icc_profile=plain)
    assert np.array_equal(read_photo(tmp_path / "srgb.png"), np.asarray(face))
    assert told_of_reading(tmp_path / "srgb.png") == ""


@pytest.mark.parametrize("content", [b"no profile", icc_profiles.profile("Adobe RGB")[:150]])
def test_a_damaged_profile_is_told_and_loses_no_photo(face, tmp_path, content):
    face.save(tmp_path / "a.png", icc_profile=content)
    assert np.array_equal(read_photo(tmp_path / "a.png"), np.asarray(face))
    assert "cannot be used" in told_of_reading(tmp_path / "a.png")
