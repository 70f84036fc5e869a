"""Photos of a phone's size: the same verdict and measures as on all pixels, off far fewer."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from icc_profiles import profile
from likeness.nodes.faces.turned import scale_face, shift_face
from likeness.nodes.media import views
from likeness.nodes.media.views import View
from likeness.nodes.quality import look as looking
from likeness.nodes.quality.compression import compression
from likeness.nodes.quality.judge import judge
from likeness.nodes.quality.look import look
from likeness.nodes.quality.near import Near
from likeness.nodes.quality.rules import Rules
from PIL import Image, ImageFile, ImageFilter

# How far a measure may lie off the one on all pixels: its share, and an absolute part. Widths hold
# the depth of the landmarks, which the network guesses a little otherwise on other pixels.
CLOSE = {"sharpness": (0.06, 0), "enlargement": (0.06, 0), "highlights": (0, 3), "luma": (0, 2),
         "clipped_bright": (0, 0.005), "clipped_dark": (0, 0.005), "occlusion": (0, 0.05),
         "compression": (0.15, 0.1), "face_width": (0.08, 0), "eyes_apart": (0.08, 0),
         "face_share": (0.08, 0), "photo_side": (0, 0), "outside": (0, 0), "faces": (0, 0),
         "eyes_closed": (0, 0.05), "light_side": (0, 0.05), "light_contrast": (0, 0.05),
         "light_key": (0, 0.02), "light_warmth": (0, 0.05), "strokes": (0, 0.02),
         "even": (0, 0.05), "lines": (0.15, 0)}


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
def portrait(assets):
    with Image.open(assets / "obama.jpg") as picture:
        return picture.convert("RGB")


def grainy(picture: Image.Image) -> Image.Image:
    """Fine grain, as a sensor adds it: an enlarged picture has none of its own."""
    noise = np.random.default_rng(1).normal(0, 2.5, (picture.height, picture.width, 1))
    return Image.fromarray(np.uint8(np.clip(np.asarray(picture) + noise, 0, 255)))


def enlarged(picture: Image.Image, short: int) -> Image.Image:
    scale = short / min(picture.size)
    return grainy(picture.resize([round(side * scale) for side in picture.size],
                                 Image.Resampling.BICUBIC))


def looked_at(picture: Image.Image, path, **options):
    picture.save(path, **{"quality": 92, **options})
    looking.forget_photos()
    return look(path, hashlib.sha256(path.read_bytes()).hexdigest())


def on_all_pixels(path, monkeypatch):
    with monkeypatch.context() as change:
        change.setattr(views, "SMALLEST", float("inf"))
        looking.forget_photos()
        return look(path, hashlib.sha256(path.read_bytes()).hexdigest())


def assert_alike(seen, full) -> None:
    blurred = full.measures["sharpness"] < Rules().soft_sharpness  # and never asked for covers
    for name, (share, most) in CLOSE.items():
        if blurred and name == "occlusion":
            continue
        off = abs(seen.measures[name] - full.measures[name])
        assert off <= share * abs(full.measures[name]) + most, (name, seen.measures[name],
                                                                full.measures[name])
    assert ([(reason.rule, reason.verdict) for reason in judge(seen, Rules())]
            == [(reason.rule, reason.verdict) for reason in judge(full, Rules())])
    apart = np.abs(seen.face.landmarks[:, :2] - full.face.landmarks[:, :2]).mean()
    assert apart < 0.01 * max(full.face.size)
    assert np.linalg.norm(seen.embedding - full.embedding) < 0.12  # crops of one shot lie as far
    assert (seen.pattern != full.pattern).sum() <= 8


def soft(picture):
    return picture.filter(ImageFilter.GaussianBlur(9))


def dark(picture):
    return picture.point(lambda value: round(255 * (value / 255) ** 2 * 0.35))


@pytest.mark.parametrize("worsened, rules", [
    (lambda picture: picture, []), (soft, ["blurred"]), (dark, ["dark"])],
    ids=["good", "soft", "dark"])
def test_a_phone_photo_is_judged_as_on_all_its_pixels(portrait, tmp_path, monkeypatch, worsened,
                                                      rules):
    seen = looked_at(enlarged(worsened(portrait), 2100), tmp_path / "a.jpg")
    assert [reason.rule for reason in judge(seen, Rules())] == rules
    assert_alike(seen, on_all_pixels(tmp_path / "a.jpg", monkeypatch))


def test_a_turned_phone_photo_of_wide_colours_is_judged_alike(portrait, tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = enlarged(portrait, 2100).transpose(Image.Transpose.ROTATE_90)
    seen = looked_at(lying, tmp_path / "a.jpg", exif=exif, icc_profile=profile("Display P3"))
    full = on_all_pixels(tmp_path / "a.jpg", monkeypatch)
    assert_alike(seen, full)
    assert abs(seen.face.pose.roll) < 15


def test_strong_compression_is_seen_at_the_files_own_pixels(portrait, tmp_path, monkeypatch):
    picture = portrait.resize([side * 9 // 4 for side in portrait.size], Image.Resampling.LANCZOS)
    seen = looked_at(picture, tmp_path / "a.jpg", quality=8)
    full = on_all_pixels(tmp_path / "a.jpg", monkeypatch)
    assert max(full.face.size) < 1024 and full.measures["compression"] > 3
    assert seen.measures["compression"] == pytest.approx(full.measures["compression"], rel=0.1)


def test_a_close_up_of_many_pixels_is_never_decoded_whole(portrait, tmp_path, decoded):
    head = enlarged(portrait.crop((170, 120, 690, 640)), 4096)
    head.save(tmp_path / "a.jpg", quality=92)
    decoded.clear()
    seen = look(tmp_path / "a.jpg",
                hashlib.sha256((tmp_path / "a.jpg").read_bytes()).hexdigest())
    assert max(seen.face.size) > 2048
    assert decoded == [(1024, 1024), (2048, 2048)]


def test_the_grid_of_a_face_that_large_never_decides(portrait):
    """What a file reduced by its decoder could hide: below any limit even at the worst quality."""
    looked = looking.look_at(np.asarray(portrait))
    scale = 2100 / max(looked.face.size)
    x0, y0, x1, y1 = (round(edge) for edge in looked.face.box)
    cut = portrait.crop((x0 - 20, y0 - 20, x1 + 20, y1 + 20))
    cut = cut.resize([round(side * scale) for side in cut.size], Image.Resampling.BICUBIC)
    for quality in (1, 10):
        stored = io.BytesIO()
        cut.save(stored, "JPEG", quality=quality)
        pixels = np.asarray(Image.open(stored).convert("RGB"))
        face = scale_face(shift_face(looked.face, 20 - x0, 20 - y0), scale, scale)
        assert compression(Near(View(pixels), face)) < Rules().compression[0]


def test_a_small_face_is_looked_at_in_the_photos_own_pixels(portrait, tmp_path, monkeypatch):
    scene = Image.new("RGB", (2100, 2800), (120, 130, 140))
    scene.paste(portrait, (600, 900))
    sides = []
    closer = looking.look_closer

    def watched(face, pixels):
        sides.append(max(face.size))
        return closer(face, pixels)

    monkeypatch.setattr(looking, "look_closer", watched)
    seen = looked_at(grainy(scene), tmp_path / "a.jpg")
    assert len(sides) == 1 and sides[0] == pytest.approx(max(seen.face.size), rel=0.05)
    assert_alike(seen, on_all_pixels(tmp_path / "a.jpg", monkeypatch))
