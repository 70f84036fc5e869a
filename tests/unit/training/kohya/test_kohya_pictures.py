"""What of a training set reaches sd-scripts beside plain crops: turns, sizes, class pictures."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import training_models
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces.detect import find_face
from likeness.nodes.media.images import read_photo, turned
from likeness.nodes.sockets import Photo, Subject, TrainingItem, TrainingSet
from likeness.nodes.tensors import write_latent
from likeness.nodes.training.kohya.arguments import Architecture
from likeness.nodes.training.kohya.dataset import ClassPicture, Dataset, class_pictures
from likeness.nodes.training.kohya.folder import Base, export
from likeness.nodes.training.recipes.adapters import LoKrRecipe, LoRARecipe
from PIL import Image, ImageOps

tomllib = pytest.importorskip("tomllib")

WIDTH, HEIGHT = 1000, 1500


@pytest.fixture
def photos(tmp_path):
    """A training set of two photos and its subject; red grows across and green downwards."""
    across, down = np.meshgrid(np.linspace(0, 255, WIDTH), np.linspace(0, 255, HEIGHT))
    file = tmp_path / "photo.png"
    pixels = np.stack([across, down, np.zeros_like(across)], -1).astype(np.uint8)
    Image.fromarray(pixels).save(file, compress_level=1)
    made = training_models.make_training_set(tmp_path, "sd15", ((32, 16), (32, 32)))
    references = tuple(Photo(file, item.photo, item.photo_sha256, WIDTH, HEIGHT)
                       for item in made.items)
    return made, Subject("Ann", "ohwx", "woman", references, (), {}, {}, np.zeros((478, 3)))


def _export(folder, photos, recipe=None, architecture="sd15", pictures=(), seed=3,
            velocity=False):
    """The report of an export, its data set and its settings."""
    made, subject = photos
    recipe = recipe or LoRARecipe()
    data = Dataset(made, subject, tuple(pictures), recipe.background)
    report = export(folder, data, recipe, Architecture(architecture),
                    Base("base.safetensors", {}, velocity), seed, lambda done: None)
    read = [tomllib.loads((folder / name).read_text("utf-8"))
            for name in ("dataset.toml", "train.toml")]
    return report, read[0]["datasets"][0], read[1]


def test_a_photo_that_was_levelled_is_cut_level(tmp_path, photos):
    made, subject = photos
    crop = (300.0, 500.0, 700.0, 1300.0)
    item = dataclasses.replace(made.items[0], crop=crop, turn=20.0)
    _export(tmp_path / "out", (dataclasses.replace(made, items=(item,)), subject))
    with Image.open(tmp_path / "out" / "photos" / "0001.png") as picture:
        found = np.asarray(picture.convert("RGB"), dtype=np.float32)[..., :2]
    columns, rows = (np.arange(side) + 0.5 for side in item.bucket)
    level = np.stack(np.meshgrid(crop[0] + columns * 400 / item.bucket[0],
                                 crop[1] + rows * 800 / item.bucket[1]), -1)
    source = turned(level.reshape(-1, 2), -20.0, (WIDTH / 2, HEIGHT / 2)).reshape(level.shape)
    assert np.abs(found - 255 * source / (WIDTH, HEIGHT)).max() < 3


def test_a_mirrored_photo_is_cut_where_its_mask_lies(tmp_path, assets):
    file = assets / "obama.jpg"
    pixels = read_photo(file)
    photo = Photo(file, file.name, "a" * 64, pixels.shape[1], pixels.shape[0],
                  face=find_face(pixels))
    # A face beside the middle, tilted, and of a head that looks straight ahead to the last bit.
    made = []
    for yaw, turn in ((photo.face.pose.yaw, 5.0), (0.0, 0.0)):
        pose = dataclasses.replace(photo.face.pose, yaw=yaw)
        seen = dataclasses.replace(photo, face=dataclasses.replace(photo.face, pose=pose))
        box = (0.0, 0.0, 0.7 * photo.width, 0.7 * photo.height)
        mirrored = (photo.width - box[2], box[1], photo.width - box[0], box[3])
        plain = TrainingItem(file.name, "a" * 64, "x", (256, 256), (photo.width, photo.height),
                             box, Path(), "", yaw=yaw, turn=turn)
        made.append((seen, plain, dataclasses.replace(plain, crop=mirrored, yaw=-yaw, turn=-turn)))
    for number, (seen, *items) in enumerate(made):
        latents = [dataclasses.replace(item, latent_file=tmp_path / f"{number}{place}.safetensors")
                   for place, item in enumerate(items)]
        mask = torch.zeros(32, 32)
        mask[4:20, 3:15] = 1
        write_latent(latents[0].latent_file, torch.zeros(4, 32, 32), mask)
        write_latent(latents[1].latent_file, torch.zeros(4, 32, 32), mask.flip(-1))
        subject = Subject("Ann", "ohwx", "man", (seen,), (), {}, {}, np.zeros((478, 3)))
        training_set = TrainingSet(tuple(latents), {}, tmp_path, "k", "Ann", "ohwx")
        _export(tmp_path / f"out{number}", (training_set, subject), LoRARecipe(background=0.2))
        first, second = (Image.open(tmp_path / f"out{number}" / "photos" / f"000{place}.png")
                         for place in (1, 2))
        assert np.abs(np.subtract(ImageOps.mirror(first), second, dtype=np.int32)).max() <= 2
        assert np.abs(np.subtract(first, second, dtype=np.int32)).mean() > 10


def test_the_weight_of_class_pictures_is_the_mean_of_the_masks_that_were_written(tmp_path, photos):
    picture = ClassPicture(photos[1].references[0].file, "a photo of a woman")
    *_, arguments = _export(tmp_path / "out", photos, LoRARecipe(background=0.2, class_weight=0.8),
                            pictures=[picture])
    means = []
    for number in (1, 2):
        with Image.open(tmp_path / "out" / "photos" / f"000{number}.png") as written:
            means.append(np.asarray(written.getchannel("A")).mean() / 255)
    assert arguments["prior_loss_weight"] == pytest.approx(0.8 * np.mean(means))
    assert arguments["prior_loss_weight"] < 0.3
    *_, plain = _export(tmp_path / "plain", photos, LoRARecipe(background=1.0, class_weight=0.8),
                        pictures=[picture])
    assert plain["prior_loss_weight"] == 0.8


def test_a_file_that_they_save_will_tell_its_trigger_and_resolution(tmp_path, photos):
    _, found, arguments = _export(tmp_path / "out", photos)
    assert arguments["metadata_trigger_phrase"] == "ohwx"
    assert arguments["resolution"] == ",".join(map(str, found["resolution"])) == "256,256"


def test_lycoris_is_told_its_layers_in_a_file_of_their_names(tmp_path, photos):
    *_, arguments = _export(tmp_path / "out", photos, LoKrRecipe(factor=4))
    assert arguments["network_args"][-1] == f"preset={tmp_path / 'out' / 'lycoris.toml'}"
    told = tomllib.loads((tmp_path / "out" / "lycoris.toml").read_text("utf-8"))
    assert told["unet_target_module"] == told["text_encoder_target_name"] == []
    _export(tmp_path / "plain", photos)
    assert not (tmp_path / "plain" / "lycoris.toml").exists()


def test_weights_do_not_run_into_the_cells_beside(tmp_path, photos):
    _export(tmp_path / "out", photos, LoRARecipe(background=0.2))
    with Image.open(tmp_path / "out" / "photos" / "0001.png") as picture:
        alpha = np.asarray(picture.getchannel("A"))
    assert set(np.unique(alpha)) == {51, 255}


@pytest.mark.parametrize(("background", "told"), [(0.2, "alpha channel"), (1.0, "none")])
def test_the_report_says_where_the_masks_are(background, told, tmp_path, photos):
    report, *_ = _export(tmp_path / "out", photos, LoRARecipe(background=background))
    assert report["masks"] == told


def test_a_photo_that_was_replaced_is_no_longer_the_subjects(tmp_path, photos):
    made, subject = photos
    other = dataclasses.replace(subject.references[0], sha256="f" * 64)
    replaced = dataclasses.replace(subject, references=(other, *subject.references[1:]))
    with pytest.raises(LikenessError, match="photo0.jpg of the training set is no reference"):
        _export(tmp_path / "out", (made, replaced))


def test_class_pictures_drop_as_many_captions_as_photos(tmp_path, photos):
    picture = ClassPicture(photos[1].references[0].file, "a photo of a woman")
    _, found, _ = _export(tmp_path / "out", photos, LoRARecipe(caption_dropout=0.15),
                          pictures=[picture])
    assert [subset["caption_dropout_rate"] for subset in found["subsets"]] == [0.15, 0.15]


def test_the_data_set_has_the_recipes_batches_and_room_for_its_largest_bucket(tmp_path, photos):
    _, found, _ = _export(tmp_path / "out", photos, LoRARecipe(batch_size=3))
    assert found["batch_size"] == 3
    assert found["resolution"] == [256, 256]
    assert (found["min_bucket_reso"], found["max_bucket_reso"]) == (128, 256)


@pytest.mark.parametrize(("architecture", "length"), [("sd15", 225), ("sdxl", 225), ("sd3", None)])
def test_captions_beyond_75_tokens_are_read_whole(architecture, length, tmp_path, photos):
    made, subject = photos
    *_, short = _export(tmp_path / "short", photos, architecture=architecture)
    item = dataclasses.replace(made.items[0], caption="ohwx woman, " + "wearing a coat, " * 20)
    long = dataclasses.replace(made, items=(item, made.items[1]))
    *_, arguments = _export(tmp_path / "long", (long, subject), architecture=architecture)
    assert "max_token_length" not in short and arguments.get("max_token_length") == length


def test_a_seed_beyond_32_bits_is_one_that_the_scripts_take(tmp_path, photos):
    *_, arguments = _export(tmp_path / "out", photos, seed=2 ** 63 + 5)
    assert arguments["seed"] == 5


@pytest.mark.parametrize(("architecture", "velocity", "said"), [
    ("sdxl", True, True), ("sdxl", False, None), ("sd3", False, None), ("sd3", True, None)])
def test_velocity_is_asked_of_unets_that_predict_it_alone(architecture, velocity, said, tmp_path,
                                                          photos):
    *_, arguments = _export(tmp_path / "out", photos, architecture=architecture, velocity=velocity)
    assert arguments.get("v_parameterization") is said


def test_of_a_made_class_photo_its_newest_picture_is_taken_and_a_picture_of_its_own_first(tmp_path,
                                                                                          photos):
    made, _ = photos
    latent = tmp_path / "woman.latent.safetensors"
    item = dataclasses.replace(made.items[0], latent_file=latent)
    class_set = dataclasses.replace(made, items=(item,))
    shown = [tmp_path / f"woman-{vae}.png" for vae in ("a", "b", "c")]
    for path, age in zip(shown, (1000, 3000, 2000), strict=True):
        path.write_bytes(b"")
        os.utime(path, (age, age))
    assert _taken(class_set) == shown[1]
    own = tmp_path / "woman.png"
    own.write_bytes(b"")
    os.utime(own, (500, 500))
    assert _taken(class_set) == own


def _taken(class_set) -> Path:
    (picture,) = class_pictures(class_set, None, "woman")
    return picture.file
