"""Photos are known by what they hold, and very large ones are read within bounds."""

from __future__ import annotations

import io
import sys
import types

import numpy as np
import pytest
from likeness.nodes.errors import LikenessError
from likeness.nodes.media import decoding
from likeness.nodes.media.decoding import RefusedError, is_photo, kind_of
from likeness.nodes.media.images import read_photo, reread_photo, told_of_reading
from PIL import Image, ImageFile

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.fixture
def heic_reader(monkeypatch):
    """A reader in the place of pillow-heif, whose files hold a PNG behind HEIC's head."""
    class Reader(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self):
            self.fp.seek(len(HEIC))
            inner = Image.open(io.BytesIO(self.fp.read())).convert("RGB")
            self._mode, self._size, self.tile = "RGB", inner.size, []
            self.im = inner.im

        def load(self):
            return self.im.pixel_access(self.readonly)

    def register():
        Image.register_open("HEIF", Reader, lambda head: head[4:12] == b"ftypheic")

    module = types.SimpleNamespace(register_heif_opener=register)
    decoding.heif_is_readable.cache_clear()
    yield lambda: monkeypatch.setitem(sys.modules, "pillow_heif", module)
    decoding.heif_is_readable.cache_clear()
    if "HEIF" in Image.OPEN:
        Image.OPEN.pop("HEIF")
        Image.ID.remove("HEIF")


@pytest.mark.parametrize("name", ["IMG_1.jpg", "IMG_1.HEIC", "IMG_1", "IMG_1.png"])
@pytest.mark.parametrize("read", [read_photo, lambda path: reread_photo(path, path.name)],
                         ids=["anew", "from a set that an earlier run of ComfyUI made"])
def test_heic_is_read_under_any_name_by_the_first_that_reads(heic_reader, tmp_path, name, read):
    heic_reader()
    stored = io.BytesIO()
    Image.new("RGB", (6, 4), (10, 200, 30)).save(stored, "PNG")
    (tmp_path / name).write_bytes(HEIC + stored.getvalue())
    assert is_photo(tmp_path / name)
    assert (read(tmp_path / name) == (10, 200, 30)).all()


def test_heic_without_its_reader_names_the_package_under_any_name(heic_reader, monkeypatch,
                                                                  tmp_path):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "IMG_1.jpg").write_bytes(HEIC)
    with pytest.raises(RefusedError, match="pillow-heif"):
        read_photo(tmp_path / "IMG_1.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000"])
@pytest.mark.parametrize("name", ["a.HEIC", "a.jpg", "a", "a.dat"])
def test_every_kind_is_read_under_every_name(tmp_path, kind, name):
    Image.init()
    if kind not in Image.SAVE or (kind == "AVIF" and not decoding.features.check("avif")):
        pytest.skip(f"this Pillow writes no {kind}")
    path = tmp_path / name
    Image.new("RGB", (16, 16), (200, 30, 30)).save(path, kind)
    assert kind_of(path.read_bytes()[:64])
    assert np.abs(read_photo(path).astype(int) - (200, 30, 30)).mean() < 8
    # TIFF under a strange name may be a camera's raw file, of which Pillow sees a thumbnail.
    assert is_photo(path) == ((kind, name) != ("TIFF", "a.dat"))


@pytest.mark.parametrize("content", [b"", b"BM, he said", b"a man in a hat", b"%PDF-1.7",
                                     b"RIFF\0\0\0\0WAVEfmt ",
                                     b"\0\0\0\x18ftypisom\0\0\0\0isommp41"])
def test_other_files_are_no_photos(tmp_path, content):
    (tmp_path / "a.dat").write_bytes(content)
    assert not is_photo(tmp_path / "a.dat")


def test_a_photo_of_200_megapixels_is_read_at_half_its_sides(tmp_path):
    path = tmp_path / "phone.jpg"
    Image.new("L", (16320, 12240), 90).save(path, quality=50)
    assert told_of_reading(path).startswith("It has 16320 x 12240 pixels")
    pixels = read_photo(path)
    assert pixels.shape == (6120, 8160, 3)
    assert pixels[0, 0].tolist() == pixels[-1, -1].tolist() == [90, 90, 90]


def test_beyond_the_bounds_a_photo_is_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.setattr(decoding, "WHOLE", 2000)
    monkeypatch.setattr(decoding, "LARGEST", 9000)
    for kind, size in (("PNG", (60, 60)), ("JPEG", (100, 100))):
        Image.new("RGB", size).save(tmp_path / "large", kind)
        with pytest.raises(RefusedError, match=f"megapixels that are read of {kind} files"):
            read_photo(tmp_path / "large")
    Image.new("RGB", (80, 60)).save(tmp_path / "half", "JPEG")
    assert read_photo(tmp_path / "half").shape == (30, 40, 3)


def test_a_photo_too_large_for_a_step_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("RGB", (60, 60)).save(tmp_path / "class.png")
    with pytest.raises(LikenessError, match="`class.png` cannot be read any more .*megapixels"):
        reread_photo(tmp_path / "class.png", "class.png")


def test_whatever_a_reader_raises_arrives_as_an_oserror(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:20] = b"\0\0\0\0"  # no width
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(OSError):
        read_photo(tmp_path / "a.png")
