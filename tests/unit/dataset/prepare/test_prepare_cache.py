"""The training set on disk: exact values back, reuse while nothing changes, no partial files."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from likeness.nodes import files, tensors
from likeness.nodes.cache_limit import files_of, limit_cache
from likeness.nodes.dataset.prepare.cache import Encoders
from likeness.nodes.dataset.prepare.prepare import PrepareSettings, prepare, report
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces.detect import find_face
from likeness.nodes.media.images import read_photo
from likeness.nodes.sockets import Photo, Subject


@pytest.fixture(scope="module")
def subject(assets) -> Subject:
    photos = []
    for name in ("obama.jpg", "obama3.jpg"):
        pixels = read_photo(assets / name)
        digest = hashlib.sha256((assets / name).read_bytes()).hexdigest()
        photos.append(Photo(assets / name, name, digest, pixels.shape[1], pixels.shape[0],
                            face=find_face(pixels)))
    return Subject("obama", "ohwx", "man", tuple(photos), (), {}, {}, np.zeros((478, 3)))


class CountingEncoders:
    """A real, tiny 8x pooling encoder that counts its calls."""

    def __init__(self, image_key: str = "vae", text_key: str = "clip") -> None:
        self.images = self.texts = 0
        self.encoders = Encoders(self._image, self._text, image_key, text_key)

    def _image(self, image: torch.Tensor) -> torch.Tensor:
        self.images += 1
        return torch.nn.functional.avg_pool2d(image.movedim(-1, 1), 8)

    def _text(self, text: str):
        self.texts += 1
        return [[torch.full((1, 7, 4), float(len(text))), {"pooled_output": torch.ones(1, 4)}]]


SETTINGS = PrepareSettings(256, "head and shoulders", "photo of {subject}, {pose}")


def test_everything_is_encoded_once_and_read_back_exactly(subject, tmp_path):
    counting = CountingEncoders()
    training_set, prepared = prepare(subject, SETTINGS, counting.encoders, tmp_path, lambda _: None)
    assert [item.photo for item in training_set.items] == ["obama.jpg", "obama3.jpg"]
    for item, entry in zip(training_set.items, prepared, strict=True):
        latent, mask = tensors.read_latent(item.latent_file)
        expected = torch.nn.functional.avg_pool2d(
            torch.from_numpy(entry.pixels / np.float32(255)).movedim(-1, 0), 8)
        assert torch.allclose(latent, expected, atol=1e-6)
        assert mask.shape == latent.shape[-2:] and 0.02 < mask.mean() < 0.6
        conditioning = tensors.read_conditioning(training_set.conditionings[item.conditioning_key])
        assert conditioning[0][0][0, 0, 0] == len(item.caption)
        assert conditioning[0][1]["pooled_output"].shape == (1, 4)
    again = CountingEncoders()
    repeated, _ = prepare(subject, SETTINGS, again.encoders, tmp_path, lambda _: None)
    assert (again.images, again.texts) == (0, 0)
    assert repeated.key == training_set.key


def test_the_empty_caption_is_there_for_caption_dropout(subject, tmp_path):
    training_set, _ = prepare(subject, SETTINGS, CountingEncoders().encoders, tmp_path, lambda _: 0)
    assert tensors.read_conditioning(training_set.conditionings[""])[0][0].max() == 0


def test_another_vae_or_text_encoder_is_not_served_from_the_cache(subject, tmp_path):
    first, _ = prepare(subject, SETTINGS, CountingEncoders().encoders, tmp_path, lambda _: None)
    other = CountingEncoders(image_key="other vae", text_key="other clip")
    second, _ = prepare(subject, SETTINGS, other.encoders, tmp_path, lambda _: None)
    assert other.images == 2 and other.texts >= 2
    assert second.key != first.key


def test_the_mask_is_bright_on_the_face(subject, tmp_path):
    made, prepared = prepare(subject, SETTINGS, CountingEncoders().encoders, tmp_path, lambda _: 0)
    for entry, photo in zip(prepared, subject.references, strict=True):
        x0, y0, x1, y1 = photo.face.box
        left, top, right, bottom = entry.item.crop
        row = int(((y0 + y1) / 2 - top) / (bottom - top) * entry.mask.shape[0])
        column = int(((x0 + x1) / 2 - left) / (right - left) * entry.mask.shape[1])
        assert entry.mask[row, column] > 0.9
        assert entry.mask[-1].max() < 0.1
    assert all(0 < photo["face_share"] < 0.6 for photo in report(made, prepared)["photos"])


@pytest.mark.parametrize("content", [b"", b"no tensors at all", None],
                         ids=["empty", "foreign", "cut off"])
@pytest.mark.parametrize("kind", ["latent", "text"])
def test_a_damaged_file_is_encoded_again_with_a_warning(kind, content, subject, tmp_path, caplog):
    first, _ = prepare(subject, SETTINGS, CountingEncoders().encoders, tmp_path, lambda _: None)
    item = first.items[0]
    path = (item.latent_file if kind == "latent"
            else first.conditionings[item.conditioning_key])
    whole = path.read_bytes()
    path.unlink()  # the file may still be mapped
    path.write_bytes(whole[:-10] if content is None else content)
    counting = CountingEncoders()
    again, _ = prepare(subject, SETTINGS, counting.encoders, tmp_path, lambda _: None)
    assert (counting.images, counting.texts) == ((1, 0) if kind == "latent" else (0, 1))
    assert path.read_bytes() == whole and again.key == first.key
    assert f"{path.name} is damaged" in caplog.text


def test_a_file_with_other_tensors_is_encoded_again(subject, tmp_path):
    first, _ = prepare(subject, SETTINGS, CountingEncoders().encoders, tmp_path, lambda _: None)
    path = first.items[0].latent_file
    tensors.write_tensors(path, {"something": torch.zeros(1)})
    counting = CountingEncoders()
    prepare(subject, SETTINGS, counting.encoders, tmp_path, lambda _: None)
    assert counting.images == 1 and tensors.read_latent(path)[0].ndim == 3


def test_a_photo_that_vanished_is_named(subject, tmp_path):
    gone = dataclasses.replace(subject.references[0], file=tmp_path / "gone.jpg", name="gone.jpg")
    missing = dataclasses.replace(subject, references=(gone,))
    with pytest.raises(LikenessError, match="gone.jpg` cannot be read any more"):
        prepare(missing, SETTINGS, CountingEncoders().encoders, tmp_path, lambda _: None)


def test_a_failed_write_leaves_no_file_behind(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(LikenessError, match="free some disk space"):
        tensors.write_latent(tmp_path / "a.safetensors", torch.zeros(4, 8, 8), torch.zeros(8, 8))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence_and_what_was_encoded_stays(subject, tmp_path, monkeypatch):
    move, moves = files.os.replace, []

    def fills_up(source, target):
        if len(moves) == 4:
            raise OSError(28, "No space left on device")
        moves.append(target)
        move(source, target)

    monkeypatch.setattr(files.os, "replace", fills_up)
    with pytest.raises(LikenessError, match=r"^[^.]*\.latent\.safetensors could not be written"):
        prepare(subject, SETTINGS, CountingEncoders().encoders, tmp_path, lambda _: None)
    assert sorted(tmp_path.iterdir()) == sorted(moves)
    monkeypatch.undo()
    rest = CountingEncoders()
    prepare(subject, SETTINGS, rest.encoders, tmp_path, lambda _: None)
    assert rest.images + rest.texts + len(moves) == len(list(tmp_path.iterdir()))
    assert rest.images >= 1


def test_a_folder_that_cannot_be_written_is_named(subject, tmp_path):
    (tmp_path / "blocked").write_text("a file where the folder should be")
    with pytest.raises(LikenessError, match="could not be written to .*blocked"):
        prepare(subject, SETTINGS, CountingEncoders().encoders, tmp_path / "blocked" / "set",
                lambda _: None)


def test_a_set_prepared_from_a_folder_that_may_only_be_read_is_still_served(
        subject, tmp_path, monkeypatch):
    first, _ = prepare(subject, SETTINGS, CountingEncoders().encoders, tmp_path, lambda _: None)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    for name in ("replace", "utime", "unlink"):
        monkeypatch.setattr(files.os, name, refuse)
    again, _ = prepare(subject, SETTINGS, CountingEncoders().encoders, tmp_path, lambda _: None)
    limit_cache(tmp_path, files_of(again), 0)
    assert again.key == first.key


def test_texts_are_encoded_before_pictures_so_that_the_encoders_need_not_be_swapped(
        subject, tmp_path):
    order = []
    counting = CountingEncoders()
    encoders = dataclasses.replace(
        counting.encoders,
        encode_image=lambda image: order.append("image") or counting._image(image),
        encode_text=lambda text: order.append("text") or counting._text(text))
    prepare(subject, SETTINGS, encoders, tmp_path, lambda _: None)
    assert order == sorted(order, reverse=True) and order.count("image") == 2


def test_weights_that_differ_in_one_layer_have_another_fingerprint():
    state = {"a.weight": torch.randn(64, 64), "b.weight": torch.randn(32)}
    changed = {**state, "a.weight": state["a.weight"] + 1e-3}
    assert tensors.fingerprint(state) == tensors.fingerprint(dict(reversed(state.items())))
    assert tensors.fingerprint(state) != tensors.fingerprint(changed)
