"""Class photos: made once, kept whole, added to, and usable as a training set."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import picture_models
import pytest
import torch
import training_models
from likeness.nodes import runtime
from likeness.nodes.errors import LikenessError
from likeness.nodes.media.images import read_photo, to_image
from likeness.nodes.sockets import Subject
from likeness.nodes.tensors import read_conditioning, read_latent
from likeness.nodes.training.pictures import class_photos
from likeness.nodes.training.pictures import sampling as pictures
from likeness.nodes.training.pictures.class_nodes import ClassPhotosNode
from likeness.nodes.training.pictures.class_photos import ClassPhotoSettings, Studio

FAST = pictures.Sampling(steps=1, cfg=1.0)
SETTINGS = ClassPhotoSettings("man", ("a photo of a {class}",), "", 2, 5, 64, 48, FAST)


@pytest.fixture(autouse=True)
def _as_the_executor_runs_prompts():
    with torch.inference_mode():
        yield


class _Counted:
    """A studio of plain functions that notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list = []

    def sample(self, positive, negative, seed):
        self.asked.append(seed)
        return torch.randn(1, 4, 6, 8, generator=torch.Generator().manual_seed(seed))

    def decode(self, latent):
        shown = latent[0, :3].repeat_interleave(8, 1).repeat_interleave(8, 2)
        return np.uint8(shown.mul(40).add(128).clamp(0, 255).movedim(0, -1).numpy())

    def encode_image(self, image):
        self.asked.append("image")
        return torch.nn.functional.avg_pool2d(image.movedim(-1, 1), 8)

    def encode_text(self, text):
        self.asked.append(text)
        return [[torch.full((1, 2, 4), float(len(text))), {}]]

    def studio(self, **keys):
        return Studio(self.sample, self.decode, self.encode_image, self.encode_text,
                      self.encode_text,
                      **{"model_key": "m", "image_key": "i", "text_key": "t", **keys})


def _seeds(counted):
    return [entry for entry in counted.asked if isinstance(entry, int)]


def test_pictures_that_lie_on_disk_are_not_made_again(tmp_path):
    first, second = _Counted(), _Counted()
    made = list(class_photos.generate(SETTINGS, first.studio(), tmp_path))
    again = list(class_photos.generate(SETTINGS, second.studio(), tmp_path))
    assert _seeds(first) == [5, 6] and second.asked == []
    assert [photo.reused for photo in made + again] == [False, False, True, True]
    assert [photo.item for photo in made] == [photo.item for photo in again]
    assert all(np.array_equal(a.thumbnail, b.thumbnail) for a, b in zip(made, again, strict=True))


def test_a_higher_count_adds_only_the_new_pictures(tmp_path):
    list(class_photos.generate(SETTINGS, _Counted().studio(), tmp_path))
    more = _Counted()
    photos = list(class_photos.generate(dataclasses.replace(SETTINGS, count=4), more.studio(),
                                        tmp_path))
    assert len(photos) == 4 and _seeds(more) == [7, 8]


def test_an_interrupted_run_goes_on_with_the_missing_picture(tmp_path):
    photos = class_photos.generate(dataclasses.replace(SETTINGS, count=3), _Counted().studio(),
                                   tmp_path)
    next(photos)
    photos.close()
    rest = _Counted()
    list(class_photos.generate(dataclasses.replace(SETTINGS, count=3), rest.studio(), tmp_path))
    assert _seeds(rest) == [6, 7]
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("change", [
    {"seed": 50}, {"negative": "hat"}, {"prompts": ("a drawing of a {class}",)},
    {"class_noun": "woman"}, {"sampling": pictures.Sampling(steps=2, cfg=1.0)}, {"width": 128}])
def test_another_setting_makes_other_pictures(change, tmp_path):
    list(class_photos.generate(SETTINGS, _Counted().studio(), tmp_path))
    other = _Counted()
    list(class_photos.generate(dataclasses.replace(SETTINGS, **change), other.studio(), tmp_path))
    assert len(_seeds(other)) == 2


@pytest.mark.parametrize("key", ["model_key", "text_key"])
def test_another_model_or_text_encoder_makes_other_pictures(key, tmp_path):
    list(class_photos.generate(SETTINGS, _Counted().studio(), tmp_path))
    other = _Counted()
    list(class_photos.generate(SETTINGS, other.studio(**{key: "other"}), tmp_path))
    assert len(_seeds(other)) == 2


def test_another_decoder_shows_the_kept_latents_anew(tmp_path):
    list(class_photos.generate(SETTINGS, _Counted().studio(), tmp_path))
    other = _Counted()
    photos = list(class_photos.generate(SETTINGS, other.studio(image_key="other"), tmp_path))
    assert other.asked == [] and len(list(tmp_path.glob("*.png"))) == 4
    assert all(photo.picture.exists() for photo in photos)


def test_damaged_files_are_made_again(tmp_path, caplog):
    first = _Counted()
    photo, other = class_photos.generate(SETTINGS, first.studio(), tmp_path)
    truth = read_latent(photo.item.latent_file)[0]
    photo.item.latent_file.unlink()
    photo.item.latent_file.write_bytes(b"cut off")
    other.picture.write_bytes(b"cut off")
    again = _Counted()
    photos = list(class_photos.generate(SETTINGS, again.studio(), tmp_path))
    assert _seeds(again) == [5] and "damaged" in caplog.text
    assert torch.equal(read_latent(photo.item.latent_file)[0], truth)
    assert np.array_equal(read_photo(other.picture), other.thumbnail)
    assert np.array_equal(photos[1].thumbnail, other.thumbnail)


def test_prompts_are_used_in_turn_with_the_class_filled_in(tmp_path):
    settings = dataclasses.replace(SETTINGS, count=3, prompts=class_photos.prompt_lines(
        "a photo of a {class}\n\n a {class} outdoors "))
    photos = list(class_photos.generate(settings, _Counted().studio(), tmp_path))
    assert [photo.item.caption for photo in photos] == [
        "a photo of a man", "a man outdoors", "a photo of a man"]


def test_the_set_holds_the_samplers_latents_even_masks_and_all_texts(tmp_path):
    counted = _Counted()
    studio = counted.studio()
    photos = list(class_photos.generate(SETTINGS, studio, tmp_path))
    made = class_photos.class_set(photos, studio, tmp_path, "Ann")
    latent, mask = read_latent(made.items[1].latent_file)
    assert torch.equal(latent, counted.sample(None, None, 6)[0])
    assert mask.shape == (6, 8) and bool((mask == 1).all())
    item = made.items[0]
    assert (item.bucket, item.original_size, item.crop) == ((64, 48), (64, 48), (0, 0, 64, 48))
    assert made.texts == {"": "", item.conditioning_key: "a photo of a man"}
    assert made.conditionings.keys() == made.texts.keys() and item.class_key in made.texts
    assert read_conditioning(made.conditionings[item.conditioning_key])[0][0][0, 0, 0] == 16
    assert (made.subject, made.trigger) == ("Ann", "")


def test_the_sets_key_follows_its_pictures(tmp_path):
    studio = _Counted().studio()
    keys = {class_photos.class_set(list(class_photos.generate(settings, studio, tmp_path)), studio,
                                   tmp_path, "Ann").key
            for settings in (SETTINGS, SETTINGS, dataclasses.replace(SETTINGS, count=3),
                             dataclasses.replace(SETTINGS, seed=9))}
    assert len(keys) == 3


def test_own_pictures_are_cut_round_the_middle_and_encoded_once(tmp_path):
    wide = np.zeros((40, 200, 3), np.uint8)
    wide[:, 80:120] = 255  # the middle square
    settings = dataclasses.replace(SETTINGS, width=64, height=64)
    counted = _Counted()
    photo, = class_photos.encode([wide], settings, counted.studio(), tmp_path)
    assert photo.thumbnail.shape == (64, 64, 3) and photo.thumbnail.min() == 255
    assert photo.item.caption == "a photo of a man"
    again, = class_photos.encode([wide], settings, counted.studio(), tmp_path)
    assert counted.asked == ["image"] and again.reused and again.item == photo.item


@pytest.mark.parametrize(("change", "name"), [
    ({"class_noun": " "}, "class_noun"), ({"prompts": ()}, "prompt"), ({"count": 0}, "count")])
def test_settings_that_cannot_be_are_refused_by_name(change, name):
    with pytest.raises(LikenessError, match=f"`{name}` must"):
        dataclasses.replace(SETTINGS, **change)


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "output_directory", lambda: tmp_path)
    monkeypatch.setattr(runtime, "send_event", lambda *given: None)
    model, clip, vae = (training_models.make_model("sd15"), picture_models.make_clip(),
                        picture_models.make_vae())

    def run(**given):
        inputs = {"class_noun": "man", "prompt": class_photos.DEFAULT_PROMPT, "negative": "",
                  "count": 2, "seed": 3, "width": 64, "height": 48, "steps": 1, "cfg": 2.0,
                  "sampler": "euler", "scheduler": "normal", "guidance": 3.5, **given}
        return ClassPhotosNode.execute(given.pop("model", model), clip, vae, **{
            name: value for name, value in inputs.items() if name != "model"}).result

    return run


def test_the_node_makes_what_core_would_sample_and_keeps_it(node, tmp_path):
    made, shown, text = node()
    told = json.loads(text)
    assert shown.shape == (2, 48, 64, 3)
    assert told["folder"] == str(tmp_path / "likeness" / "man" / "class_photos")
    assert (told["made"], told["reused"]) == (2, 0)
    model, clip = training_models.make_model("sd15"), picture_models.make_clip()
    positive, negative = (pictures.encode_text(clip, text) for text in ("a photo of a man", ""))
    truth = pictures.sample(model, positive, negative, (8, 6), 4, pictures.Sampling(steps=1,
                                                                                    cfg=2.0))
    assert torch.equal(read_latent(made.items[1].latent_file)[0], truth[0])
    assert json.loads(node()[2])["reused"] == 2


def test_the_node_takes_class_and_folder_from_the_subject(node, tmp_path):
    subject = Subject("Ann Lee", "ohwx", "woman", (), (), {}, {}, np.zeros((478, 3)))
    made, _, text = node(subject=subject, count=1)
    assert made.folder == tmp_path / "likeness" / "Ann_Lee" / "class_photos"
    assert made.items[0].caption == "a photo of a woman" and made.subject == "Ann Lee"


def test_the_node_encodes_own_pictures_in_place_of_sampling(node):
    made, _, text = node(own_pictures=to_image(np.full((3, 100, 100, 3), 90, np.uint8)), count=1)
    told = json.loads(text)
    assert len(made.items) == 3 and told["source"] == "own pictures"
    latent, mask = read_latent(made.items[0].latent_file)
    assert latent.shape == (4, 6, 8) and mask.shape == (6, 8)


def test_a_class_noun_cannot_lead_out_of_the_output_folder(node):
    with pytest.raises(LikenessError, match="lies outside"):
        node(class_noun="..")


def test_large_pictures_are_held_as_thumbnails_alone(tmp_path):
    large = dataclasses.replace(SETTINGS, width=1024, height=640)
    photo, = class_photos.encode([np.zeros((700, 1100, 3), np.uint8)], large, _Counted().studio(),
                                 tmp_path)
    assert photo.thumbnail.shape == (320, 512, 3) and photo.item.bucket == (1024, 640)
    assert read_photo(photo.picture).shape == (640, 1024, 3)


def test_the_folder_stays_within_its_limit_and_keeps_what_this_call_uses(node, tmp_path):
    folder = tmp_path / "likeness" / "man" / "class_photos"
    node(seed=50)
    (folder / "holiday.png").write_bytes(b"the user's own")
    old = set(folder.iterdir())
    made, _, text = node(cache_limit_mb=0)
    told = json.loads(text)
    names = {photo["file"] for photo in told["photos"]}
    assert {path.name for path in folder.glob("*.png")} == names | {"holiday.png"}
    assert all(item.latent_file.exists() for item in made.items)
    assert all(path.exists() for path in made.conditionings.values())
    assert told["cache"]["removed"] == 4  # two latents and two pictures; the texts are used
    assert len(old & set(folder.iterdir())) == len(old) - 4
    assert json.loads(node(seed=50)[2])["made"] == 2


def test_nothing_is_deleted_below_the_limit(node):
    node(seed=50)
    assert json.loads(node(cache_limit_mb=1)[2])["cache"]["removed"] == 0
    assert json.loads(node(seed=50)[2])["reused"] == 2


def test_of_many_pictures_an_even_choice_is_shown_and_held(node):
    colours = np.arange(130, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(16, 1).repeat(16, 2)
    pictures_of_others = to_image(colours.repeat(3, 3))
    made, shown, text = node(own_pictures=pictures_of_others, width=16, height=16,
                             judge_photos="off")
    assert len(made.items) == 130 and len(json.loads(text)["photos"]) == 130
    assert shown.shape == (64, 16, 16, 3)
    levels = (shown[:, 0, 0, 0] * 255).round()
    assert levels[0] == 0 and levels[-1] == 129 and set(levels.diff().tolist()) == {2.0, 3.0}


def test_an_empty_batch_of_own_pictures_is_named(node):
    with pytest.raises(LikenessError, match="`own_pictures` is a batch of 0 pictures"):
        node(own_pictures=torch.zeros(0, 64, 64, 3))


def test_brackets_weigh_in_what_is_drawn_and_are_words_in_what_is_trained(tmp_path):
    counted = _Counted()
    studio = dataclasses.replace(counted.studio(), encode_caption=lambda text: [
        [torch.full((1, 2, 4), -1.0), {}]])
    for prompt, shared in (("a (man)", False), ("a man", True)):
        settings = dataclasses.replace(SETTINGS, prompts=(prompt,), count=1)
        photos = list(class_photos.generate(settings, studio, tmp_path))
        made = class_photos.class_set(photos, studio, tmp_path, "me")
        found = read_conditioning(made.conditionings[made.items[0].conditioning_key])[0][0]
        assert float(found[0, 0, 0]) == (len(prompt) if shared else -1.0)


@pytest.mark.parametrize("part", ["sample", "encode_image"])
def test_numbers_that_are_none_are_named_and_not_kept(tmp_path, part):
    counted = _Counted()
    real = getattr(counted, part)
    setattr(counted, part, lambda *given: real(*given) * torch.nan)
    with pytest.raises(LikenessError, match="NaN"):
        if part == "sample":
            list(class_photos.generate(SETTINGS, counted.studio(), tmp_path))
        else:
            list(class_photos.encode([np.zeros((64, 64, 3), np.uint8)], SETTINGS,
                                     counted.studio(), tmp_path))
    assert not list(tmp_path.glob("*.latent.safetensors"))
