"""Prepare Training uses what photos carry: captions word for word, masks, and level eyes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from likeness.nodes.dataset.caption.caption import caption, with_own_light
from likeness.nodes.dataset.caption.given import GivenCaptions, photo_captions
from likeness.nodes.dataset.prepare.cache import Encoders
from likeness.nodes.dataset.prepare.prepare import PrepareSettings, prepare
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces.detect import find_face
from likeness.nodes.media.images import read_photo
from likeness.nodes.sockets import Photo, Subject
from likeness.nodes.tensors import read_latent
from likeness.nodes.training.kohya.dataset import _cut
from PIL import Image

ENCODERS = Encoders(
    lambda image: torch.nn.functional.avg_pool2d(image.movedim(-1, 1), 8),
    lambda text: [[torch.tensor([[[float(sum(map(ord, text)))]]]), {}]], "vae", "clip")
SETTINGS = PrepareSettings(256, "head", "photo of {subject}")


@pytest.fixture(scope="module")
def photo(assets, tmp_path_factory) -> Photo:
    file = tmp_path_factory.mktemp("tilted") / "tilted.png"
    with Image.open(assets / "obama.jpg") as picture:
        picture.convert("RGB").rotate(14, Image.Resampling.BICUBIC).save(file)
    pixels = read_photo(file)
    return Photo(file, file.name, "1" * 64, pixels.shape[1], pixels.shape[0],
                 face=find_face(pixels))


def _prepare(photo, folder, given=None, **changes):
    subject = Subject("x", "ohwx", "man", (photo,), (), {}, {}, np.zeros((478, 3)))
    return prepare(subject, dataclasses.replace(SETTINGS, **changes), ENCODERS, folder,
                   lambda done: None, given)


def test_a_photos_own_caption_comes_after_typed_ones_and_before_the_template(photo, tmp_path):
    own = dataclasses.replace(photo, caption="ohwx man {in} braces\nohwx again")
    given = photo_captions([own, photo])
    made, _ = _prepare(own, tmp_path, given)
    assert made.items[0].caption == "ohwx man {in} braces"
    assert [made.texts[key] for key in made.items[0].variants] == ["ohwx again"]
    typed = GivenCaptions({own.name: "{subject} typed"}).joined(given)
    assert _prepare(own, tmp_path, typed)[0].items[0].caption == "ohwx man typed"
    assert photo_captions([photo]).texts == {}


def test_a_photos_own_mask_decides_what_weighs_and_its_content_names_the_latent(photo, tmp_path):
    names = set()
    for level in (0, 255):
        mask = np.full((photo.height, photo.width), level, np.uint8)
        mask[:, :photo.width // 2] = 255
        Image.fromarray(mask).save(tmp_path / "mask.png")
        own = dataclasses.replace(photo, mask=tmp_path / "mask.png")
        item = _prepare(own, tmp_path)[0].items[0]
        weights = read_latent(item.latent_file)[1]
        assert weights[:, :4].min() == 1 and weights[:, -4:].max() == level / 255
        names.add(item.latent_file)
    assert len(names) == 2
    assert read_latent(_prepare(own, tmp_path, mask="none")[0].items[0].latent_file)[1].min() == 1


@pytest.mark.parametrize(("size", "colour", "words"), [
    ((50, 50), 255, "is 50 x 50 pixels, the photo"), (None, 0, "is black all over"),
    (None, None, "cannot be read")])
def test_a_mask_that_cannot_be_used_is_one_sentence(photo, tmp_path, size, colour, words):
    path = tmp_path / "m.png"
    if colour is not None:
        Image.new("L", size or (photo.width, photo.height), colour).save(path)
    with pytest.raises(LikenessError, match=f"The mask m.png of tilted.png.*{words}"):
        _prepare(dataclasses.replace(photo, mask=path), tmp_path)


def test_level_eyes_turn_pixels_points_and_the_export_alike(photo, tmp_path):
    upright = _prepare(photo, tmp_path)[1][0]
    entry = _prepare(photo, tmp_path, level_eyes=True, resolution=512)[1][0]
    assert upright.item.turn == 0 and entry.item.turn < -10
    found = find_face(entry.pixels)
    assert abs(found.pose.roll) < 3
    assert np.array_equal(np.asarray(_cut(photo, entry.item)), entry.pixels)
    mirrored = _prepare(photo, tmp_path, level_eyes=True, mirror=True)[0].items[1]
    assert mirrored.turn == pytest.approx(-entry.item.turn)


def test_sets_without_level_eyes_keep_the_name_they_had(photo, tmp_path):
    made, _ = _prepare(photo, tmp_path)
    rows = dataclasses.asdict(made.items[0])
    assert rows["turn"] == 0.0 and made.key != _prepare(photo, tmp_path, level_eyes=True)[0].key


@pytest.mark.parametrize(("measures", "words"), [
    ({}, ""), ({"light_side": 0.6}, "light from the right"),
    ({"light_side": -0.6, "light_warmth": 0.5}, "warm light from the left"),
    ({"light_key": 0.1, "light_warmth": -0.5, "light_side": 0.0}, "dim cool light"),
    ({"light_key": 0.5, "light_warmth": 0.0, "light_side": 0.0}, "even light")])
def test_the_light_is_described_where_it_was_measured(photo, measures, words):
    text = caption(dataclasses.replace(photo, measures=measures), "ohwx", "man",
                   "{subject}, {light}")
    assert text == f"ohwx man, {words}".rstrip(", ")


def test_skin_is_not_taken_for_light_and_a_differing_photo_is_told(photo):
    """Dark skin measures dim and warm in every photo; only what differs between them is light."""
    person = [dataclasses.replace(photo, measures={"light_key": key, "light_warmth": warmth,
                                                   "light_side": 0.0})
              for key, warmth in ((0.2, 0.6), (0.22, 0.62), (0.45, 0.6), (0.2, 0.1))]
    told = [caption(own, "ohwx", "man", "{trigger}, {light}") for own in with_own_light(person)]
    assert told == ["ohwx, even light", "ohwx, even light", "ohwx, bright light",
                    "ohwx, cool light"]


def test_a_mirrored_photos_light_comes_from_the_other_side(photo, tmp_path):
    lit = dataclasses.replace(photo, measures={"light_side": 0.6})
    made, _ = _prepare(lit, tmp_path, mirror=True, caption_template="{subject}, {light}")
    assert [item.caption for item in made.items] == ["ohwx man, light from the right",
                                                     "ohwx man, light from the left"]
