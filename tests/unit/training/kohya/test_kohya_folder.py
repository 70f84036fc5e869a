"""Folders that sd-scripts train from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import comfy.supported_models
import kohya_arguments
import numpy as np
import pytest
import training_models
from likeness.nodes import runtime
from likeness.nodes.errors import LikenessError
from likeness.nodes.sockets import Photo, Subject, TrainingSet
from likeness.nodes.tensors import read_latent
from likeness.nodes.training.kohya.arguments import Architecture
from likeness.nodes.training.kohya.dataset import Dataset, class_pictures
from likeness.nodes.training.kohya.folder import Base, export
from likeness.nodes.training.kohya.nodes import ExportKohyaNode
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.recipes.whole import DreamBoothRecipe, TextualInversionRecipe
from PIL import Image

tomllib = pytest.importorskip("tomllib")

SIZES = ((16, 16), (16, 24))  # of the latents, rows and columns


@pytest.fixture
def training_set(tmp_path: Path) -> TrainingSet:
    folder = tmp_path / "cache"
    folder.mkdir()
    return training_models.make_training_set(folder, "sd15", SIZES)


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    across, down = np.meshgrid(np.linspace(0, 255, 1000), np.linspace(0, 255, 1500))
    photos = []
    for number in range(len(SIZES)):
        file = tmp_path / f"photo{number}.png"
        pixels = np.stack([across, down, np.full_like(across, 60 * number)], -1)
        Image.fromarray(pixels.astype(np.uint8)).save(file, compress_level=1)
        photos.append(Photo(file, f"photo{number}.jpg", f"{number:064x}", 1000, 1500))
    return Subject("Ann", "ohwx", "woman", tuple(photos), (), {}, {}, np.zeros((478, 3)))


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """A folder of three class pictures, one with a caption."""
    folder = tmp_path / "others"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (160, 130), (number, 90, 200)).save(folder / f"{number}.png")
    (folder / "1.txt").write_text("a painting of a woman\n")
    return folder


def _export(folder: Path, training_set, subject, recipe=None, pictures=(), architecture="sd15",
            on_item=lambda done: None, **parts):
    recipe = recipe or LoRARecipe()
    data = Dataset(training_set, subject, tuple(pictures), recipe.background)
    return export(folder, data, recipe, Architecture(architecture), Base("base.safetensors", parts),
                  3, on_item)


def _read(path: Path) -> dict:
    return tomllib.loads(path.read_text("utf-8"))


def test_photos_are_the_training_sets_crops_at_bucket_size(tmp_path, training_set, subject):
    _export(tmp_path / "out", training_set, subject)
    for number, item in enumerate(training_set.items, start=1):
        with Image.open(tmp_path / "out" / "photos" / f"{number:04d}.png") as picture:
            assert picture.size == item.bucket
            pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
        middle_x = (item.crop[0] + item.crop[2]) / 2 / 1000 * 255
        middle_y = (item.crop[1] + item.crop[3]) / 2 / 1500 * 255
        assert pixels[..., 0].mean() == pytest.approx(middle_x, abs=1.5)
        assert pixels[..., 1].mean() == pytest.approx(middle_y, abs=1.5)
        assert pixels[..., 2].mean() == 60 * (number - 1)


def test_the_alpha_channel_averages_to_the_weights_of_the_loss(tmp_path, training_set, subject):
    _export(tmp_path / "out", training_set, subject, LoRARecipe(background=0.2))
    for number, item in enumerate(training_set.items, start=1):
        mask = read_latent(item.latent_file)[1].numpy()
        with Image.open(tmp_path / "out" / "photos" / f"{number:04d}.png") as picture:
            alpha = np.asarray(picture.getchannel("A"), dtype=np.float32) / 255
        rows, columns = mask.shape
        cells = alpha.reshape(rows, 8, columns, 8).mean((1, 3))
        assert np.abs(cells - (0.2 + 0.8 * mask)).max() < 1 / 255


def test_an_even_loss_needs_no_masks(tmp_path, training_set, subject):
    _export(tmp_path / "out", training_set, subject, LoRARecipe(background=1.0))
    with Image.open(tmp_path / "out" / "photos" / "0001.png") as picture:
        assert picture.mode == "RGB"
    assert "masked_loss" not in _read(tmp_path / "out" / "train.toml")


@pytest.mark.parametrize("architecture", list(Architecture), ids=lambda kind: kind.value)
@pytest.mark.parametrize("recipe", [LoRARecipe(), DreamBoothRecipe()], ids=lambda r: r.method)
def test_both_files_hold_what_sd_scripts_accept(tmp_path, training_set, subject, others,
                                                architecture, recipe):
    report = _export(tmp_path / "out", training_set, subject, recipe,
                     class_pictures(None, others, "woman"), architecture.value)
    train, data = (_read(tmp_path / "out" / name) for name in ("train.toml", "dataset.toml"))
    assert set(train) <= kohya_arguments.ARGUMENTS[report["script"]]
    assert train["dataset_config"] == str(tmp_path / "out" / "dataset.toml")
    assert set(data) == {"general", "datasets"}
    assert set(data["general"]) <= kohya_arguments.GENERAL
    for dataset in data["datasets"]:
        assert set(dataset) <= kohya_arguments.DATASET
        for subset in dataset["subsets"]:
            assert set(subset) <= kohya_arguments.SUBSET
            assert list(Path(subset["image_dir"]).glob("*.png"))


def test_textual_inversion_sets_no_caption_dropout_which_its_script_refuses(tmp_path, training_set,
                                                                            subject):
    report = _export(tmp_path / "out", training_set, subject, TextualInversionRecipe())
    (dataset,) = _read(tmp_path / "out" / "dataset.toml")["datasets"]
    assert not any("caption_dropout_rate" in subset for subset in dataset["subsets"])
    assert "caption_dropout" in report["not_as_in_the_recipe"]


def test_class_pictures_are_a_subset_of_their_own(tmp_path, training_set, subject, others):
    _export(tmp_path / "out", training_set, subject,
            pictures=class_pictures(None, others, "woman"))
    (dataset,) = _read(tmp_path / "out" / "dataset.toml")["datasets"]
    own, regular = dataset["subsets"]
    # Two photos stand against three pictures: each comes twice, so that all three are seen.
    assert (own["num_repeats"], regular["num_repeats"]) == (2, 1)
    assert regular["is_reg"] is True and "alpha_mask" not in regular
    captions = [path.read_text() for path in sorted((tmp_path / "out" / "class").glob("*.txt"))]
    assert captions == ["a photo of a woman\n", "a painting of a woman\n", "a photo of a woman\n"]


def test_class_pictures_are_known_by_what_they_hold(others):
    others.joinpath("0.png").rename(others / "0.jfif")
    others.joinpath("2.png").rename(others / "2")
    Image.new("L", (64, 64)).save(others / "1-masklabel.png")
    (others / "notes.md").write_text("no picture")
    found = class_pictures(None, others, "woman")
    assert [picture.file.name for picture in found] == ["0.jfif", "1.png", "2"]


@pytest.mark.parametrize(("name", "encoding"), [
    ("0.txt", "utf-8-sig"), ("0.caption", "utf-8"), ("0.TXT", "utf-16")])
def test_a_class_caption_is_read_as_everywhere_else(name, encoding, others):
    (others / name).write_text("a caf\u00e9 owner\n", encoding=encoding)
    assert class_pictures(None, others, "woman")[0].caption == "a caf\u00e9 owner"


def test_a_class_caption_of_an_unknown_encoding_is_refused_in_one_sentence(others):
    (others / "0.caption").write_bytes("a caf\u00e9 owner".encode("cp1252"))
    with pytest.raises(LikenessError, match="0.caption is no UTF-8 text .* save it as UTF-8"):
        class_pictures(None, others, "woman")


def test_a_class_set_gives_its_pictures(tmp_path, training_set):
    for item in training_set.items:
        name = item.latent_file.name.removesuffix(".safetensors")
        latent = item.latent_file.rename(item.latent_file.with_name(f"{name}.latent.safetensors"))
        Image.new("RGB", (8, 8)).save(latent.with_name(f"{name}.png"))
    items = tuple(dataclasses.replace(item, latent_file=item.latent_file.with_name(
        f"{item.latent_file.stem}.latent.safetensors")) for item in training_set.items)
    made = dataclasses.replace(training_set, items=items)
    pictures = class_pictures(made, None, "woman")
    assert [picture.caption for picture in pictures] == ["caption 0", "caption 1"]
    pictures[1].file.unlink()
    with pytest.raises(LikenessError, match="run Class Photos again"):
        class_pictures(made, None, "woman")


def test_several_captions_become_lines_with_their_braces_kept(tmp_path, training_set, subject):
    first, *rest = training_set.items
    first = dataclasses.replace(first, caption="ohwx {a}", variants=("other",))
    made = dataclasses.replace(training_set, items=(first, *rest), texts={"other": "ohwx\nlaughs"})
    _export(tmp_path / "out", made, subject)
    assert (tmp_path / "out" / "photos" / "0001.txt").read_text() == "ohwx {{a}}\nohwx laughs\n"
    assert _read(tmp_path / "out" / "dataset.toml")["general"]["enable_wildcard"] is True


def test_buckets_fit_within_the_resolution_so_that_nothing_is_resized(tmp_path, training_set,
                                                                      subject):
    _export(tmp_path / "out", training_set, subject)
    (dataset,) = _read(tmp_path / "out" / "dataset.toml")["datasets"]
    area = dataset["resolution"][0] * dataset["resolution"][1]
    for item in training_set.items:
        assert item.bucket[0] * item.bucket[1] <= area
        assert not any(side % dataset["bucket_reso_steps"] for side in item.bucket)
    assert dataset["bucket_no_upscale"] is True


def test_a_cancelled_export_leaves_nothing(tmp_path, training_set, subject):
    def cancel(done: int) -> None:
        raise runtime.Interrupted()

    with pytest.raises(runtime.Interrupted):
        _export(tmp_path / "kohya" / "out", training_set, subject, on_item=cancel)
    assert not list((tmp_path / "kohya").iterdir())


def test_a_failed_export_leaves_the_earlier_one(tmp_path, training_set, subject):
    _export(tmp_path / "out", training_set, subject)
    before = (tmp_path / "out" / "train.toml").read_text()
    subject.references[1].file.unlink()
    with pytest.raises(LikenessError, match="photo1.jpg"):
        _export(tmp_path / "out", training_set, subject, LoRARecipe(rank=2))
    assert (tmp_path / "out" / "train.toml").read_text() == before


def test_an_export_replaces_an_earlier_one_and_nothing_else(tmp_path, training_set, subject):
    _export(tmp_path / "out", training_set, subject)
    _export(tmp_path / "out", training_set, subject, LoRARecipe(rank=2))
    assert _read(tmp_path / "out" / "train.toml")["network_dim"] == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(LikenessError, match="holds other files"):
        _export(tmp_path / "mine", training_set, subject)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_set_of_somebody_else_is_refused(tmp_path, training_set, subject):
    stranger = dataclasses.replace(subject, references=subject.references[:1])
    with pytest.raises(LikenessError, match="photo1.jpg of the training set is no reference"):
        _export(tmp_path / "out", training_set, stranger)


def test_buckets_that_no_script_takes_are_refused(tmp_path, training_set, subject):
    items = tuple(dataclasses.replace(item, bucket=(136, 128)) for item in training_set.items)
    with pytest.raises(LikenessError, match="multiples of 32 pixels"):
        _export(tmp_path / "out", dataclasses.replace(training_set, items=items), subject)


def test_files_that_flux_needs_have_a_place_in_the_command(tmp_path, training_set, subject):
    report = _export(tmp_path / "out", training_set, subject, architecture="flux", ae="/m/ae.sft")
    assert report["missing_files"] == ["clip_l", "t5xxl"]
    assert "--clip_l PATH --t5xxl PATH" in (tmp_path / "out" / "README.txt").read_text()
    assert _read(tmp_path / "out" / "train.toml")["ae"] == "/m/ae.sft"


@pytest.fixture
def output(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(runtime, "output_directory", lambda: tmp_path / "output")
    return tmp_path / "output"


def _execute(training_set, subject, recipe=None, **fields):
    fields = {"architecture": "auto", "checkpoint": "base.safetensors", "name": "", "seed": 5,
              **fields}
    return ExportKohyaNode.execute(training_set, subject, recipe or LoRARecipe(), **fields)


@pytest.mark.parametrize("name", training_models.ARCHITECTURES)
def test_the_node_asks_the_model_for_its_family(name, output, training_set, subject):
    folder, report = _execute(training_set, subject, model=training_models.make_model(name)).result
    assert Path(folder) == output / "likeness" / "Ann" / "kohya" / f"{name}-lora"
    assert json.loads(report)["architecture"] == name


@pytest.mark.parametrize("architecture", ["auto", "flux"])
def test_flux_2_is_not_taken_for_flux(architecture, output, training_set, subject):
    model = training_models.make_model("flux")
    model.model.model_config = object.__new__(comfy.supported_models.Flux2)
    with pytest.raises(LikenessError, match="no settings for a Flux2 model"):
        _execute(training_set, subject, model=model, architecture=architecture)


def test_the_node_says_when_a_model_predicts_velocity(output, training_set, subject):
    model = training_models.make_model("sd15", prediction="v")
    folder, _ = _execute(training_set, subject, model=model).result
    assert _read(Path(folder) / "train.toml")["v_parameterization"] is True


@pytest.mark.parametrize(("fields", "text"), [
    ({}, "auto needs a connected MODEL"),
    ({"architecture": "sd15", "checkpoint": " "}, "`checkpoint` is empty"),
    ({"architecture": "sd15", "name": "../../x"}, "lies outside"),
    ({"architecture": "sd15", "name": "."}, "no folder of its own"),
    ({"architecture": "sd9"}, "`architecture` must be one of"),
])
def test_the_node_refuses_what_it_cannot_write(fields, text, output, training_set, subject):
    with pytest.raises(LikenessError, match=text):
        _execute(training_set, subject, **fields)
