"""What a training set says of its photos: variants, class captions, pose, points and masks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from likeness.nodes.dataset.caption.given import GivenCaptions
from likeness.nodes.dataset.prepare.cache import Encoders, caption_key
from likeness.nodes.dataset.prepare.prepare import PrepareSettings, prepare, report
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces.detect import find_face
from likeness.nodes.faces.recognise import dlib_resnet
from likeness.nodes.media.images import read_photo
from likeness.nodes.sockets import Photo, Subject
from likeness.nodes.tensors import read_conditioning, read_latent

ENCODERS = Encoders(
    lambda image: torch.nn.functional.avg_pool2d(image.movedim(-1, 1), 8),
    lambda text: [[torch.tensor([[[float(sum(map(ord, text)))]]]), {}]], "vae", "clip")
SETTINGS = PrepareSettings(256, "head and shoulders", "photo of {subject}, {pose}")


@pytest.fixture(scope="module")
def subject(assets) -> Subject:
    photos = []
    for name in ("obama.jpg", "biden.jpg"):
        pixels = read_photo(assets / name)
        face = find_face(pixels)
        # Both look straight at the camera; a turned head shows what a mirror does to the words.
        turned = dataclasses.replace(face, pose=dataclasses.replace(face.pose, yaw=30.0))
        photos.append(Photo(assets / name, name, name * 8, pixels.shape[1], pixels.shape[0],
                            face=turned if name == "biden.jpg" else face))
    return Subject("x", "ohwx", "man", tuple(photos), (), {}, {}, np.zeros((478, 3)))


def _prepare(subject, folder, given=None, **changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    return prepare(subject, settings, ENCODERS, folder, lambda done: None, given)


def _encoding(made, key):
    return float(read_conditioning(made.conditionings[key])[0][0])


def test_every_variant_is_encoded_and_named_by_its_text(subject, tmp_path):
    made, _ = _prepare(subject, tmp_path, shuffle=2,
                       caption_template="photo of {subject}, a, b\n{trigger}, {pose}")
    for item in made.items:
        texts = [made.texts[key] for key in item.variants]
        assert "ohwx, " in "\n".join(texts) and "photo of ohwx man, b, a" in texts
        assert item.conditioning_key not in item.variants
        assert made.texts[item.conditioning_key] == item.caption == "photo of ohwx man, a, b"
    assert made.texts[""] == "" and made.texts.keys() == made.conditionings.keys()
    for key, text in made.texts.items():
        assert _encoding(made, key) == sum(map(ord, text)) and key == caption_key(text)


def test_the_class_caption_is_encoded_without_the_trigger(subject, tmp_path):
    made, prepared = _prepare(subject, tmp_path)
    turned = made.items[1]
    assert made.texts[turned.class_key] == "photo of man, three-quarter view to the right"
    assert report(made, prepared)["photos"][1]["class_caption"] == made.texts[turned.class_key]


def test_a_given_caption_replaces_the_template_of_its_photo_alone(subject, tmp_path):
    given = GivenCaptions({"biden.jpg": "{subject} at a desk\nohwx again"}, ("gone.jpg",))
    made, prepared = _prepare(subject, tmp_path, given)
    first, second = made.items
    assert first.caption.startswith("photo of ohwx man, ")
    assert second.caption == "ohwx man at a desk"
    assert [made.texts[key] for key in second.variants] == ["ohwx again"]
    assert report(made, prepared, given)["unused_captions"] == ["gone.jpg"]


def test_a_given_caption_without_the_trigger_names_its_photo(subject, tmp_path):
    with pytest.raises(LikenessError, match="given for biden.jpg contains neither"):
        _prepare(subject, tmp_path, GivenCaptions({"biden.jpg": "a man at a desk"}))


def test_the_points_lead_to_the_same_chip_in_the_crop_as_in_the_photo(subject, tmp_path):
    made, prepared = _prepare(subject, tmp_path, resolution=512)
    for entry, photo in zip(prepared, subject.references, strict=True):
        matrix = dlib_resnet.chip_matrix(np.array(entry.item.points))
        ours = dlib_resnet.warp(entry.pixels, matrix, dlib_resnet.CHIP)
        truth = dlib_resnet.chip(read_photo(photo.file), photo.face.landmarks)
        assert np.linalg.norm(dlib_resnet.embed_chip(ours) - dlib_resnet.embed_chip(truth)) < 0.1
        assert (entry.item.yaw, entry.item.pitch) == (photo.face.pose.yaw, photo.face.pose.pitch)


def test_mirrored_copies_come_only_when_asked_and_are_mirrored_throughout(subject, tmp_path):
    plain, _ = _prepare(subject, tmp_path)
    made, prepared = _prepare(subject, tmp_path, mirror=True, resolution=512)
    assert len(plain.items) == 2 and len(made.items) == 4
    for before, after in (prepared[:2], prepared[2:]):
        latent, mask = read_latent(before.item.latent_file)
        flipped, flipped_mask = read_latent(after.item.latent_file)
        assert torch.allclose(flipped, latent.flip(-1), atol=1e-6)
        assert torch.equal(flipped_mask, mask.flip(-1)) and not torch.equal(flipped_mask, mask)
        assert after.item.yaw == -before.item.yaw and after.mirrored and not before.mirrored
        width = before.item.original_size[0]
        assert after.item.crop[0] + before.item.crop[2] == pytest.approx(width)
    assert "to the right" in made.items[2].caption and "to the left" in made.items[3].caption


def test_a_mirrored_copys_points_are_where_a_detector_finds_them_in_it(subject, tmp_path):
    _, prepared = _prepare(subject, tmp_path, mirror=True, resolution=512)
    for entry in prepared:
        found = dlib_resnet.alignment_points(find_face(entry.pixels).landmarks)
        assert np.abs(found - np.array(entry.item.points)).max() < 6, "of 512 pixels"


def test_masks_widen_from_the_oval_to_everything(subject, tmp_path):
    shares = []
    for mask, grow in (("face oval", -0.2), ("face oval", 0.0), ("face with margin", 0.0),
                       ("none", 0.0)):
        made, prepared = _prepare(subject, tmp_path, mask=mask, mask_grow=grow)
        shares.append(report(made, prepared)["photos"][0]["face_share"])
    assert shares == sorted(set(shares)) and shares[-1] == 1.0


@pytest.mark.parametrize("change", [
    {"mask": "none"}, {"mask_grow": 0.1}, {"mirror": True}, {"shuffle": 1}, {"resolution": 320},
    {"framing": "head"}, {"caption_template": "{subject}, a, b\nohwx"}], ids=str)
def test_whatever_changes_the_set_changes_its_key(change, subject, tmp_path):
    settings = {"caption_template": "{subject}, a, b"}
    first, _ = _prepare(subject, tmp_path, **settings)
    assert _prepare(subject, tmp_path, **settings)[0].key == first.key
    assert _prepare(subject, tmp_path, **{**settings, **change})[0].key != first.key


def test_another_class_noun_or_pose_changes_the_key(subject, tmp_path):
    template = {"caption_template": "photo of {trigger}"}
    first, _ = _prepare(subject, tmp_path, **template)
    noun = dataclasses.replace(subject, class_noun="person")
    turned = dataclasses.replace(subject.references[0].face, pose=dataclasses.replace(
        subject.references[0].face.pose, yaw=9.0))
    moved = dataclasses.replace(subject, references=(
        dataclasses.replace(subject.references[0], face=turned), subject.references[1]))
    keys = {_prepare(each, tmp_path, **template)[0].key for each in (subject, noun, moved)}
    assert len(keys) == 3 and first.key in keys


@pytest.mark.parametrize("name,value", [("mask", "hair"), ("mask_grow", 2.0), ("shuffle", 17),
                                        ("keep_parts", -1), ("resolution", 32)])
def test_a_setting_out_of_range_is_named(name, value):
    with pytest.raises(LikenessError, match=f"`{name}` must be"):
        dataclasses.replace(SETTINGS, **{name: value})
