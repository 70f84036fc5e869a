"""The two nodes as the executor calls them, and core's nodes on what they give."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import comfy_extras.nodes_train as core
import folder_paths
import numpy as np
import pytest
import torch
import training_models
from comfy_execution.utils import CurrentNodeContext
from likeness.nodes.errors import LikenessError
from likeness.nodes.sockets import Subject
from likeness.nodes.training.export.lora import read_lora
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.recipes.recipe_nodes import LoRARecipeNode
from likeness.nodes.training.run import in_memory
from likeness.nodes.training.run.nodes import TrainNode
from likeness.nodes.training.watch.curve import draw, smoothed

SUBJECT = Subject("Ann", "ohwx", "woman", (), (), {}, {}, np.zeros((478, 3)))


@pytest.fixture(autouse=True)
def host_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    loras = tmp_path / "models" / "loras"
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras",
                        ([str(loras)], folder_paths.supported_pt_extensions))
    for folder in ("output", "temp", "models/loras"):
        (tmp_path / folder).mkdir(parents=True)
    with torch.inference_mode():
        yield tmp_path


def _recipe(**fields):
    defaults = {field.id: getattr(field, "default", None)
                for field in LoRARecipeNode.GET_SCHEMA().inputs}
    return LoRARecipeNode.execute(**{**defaults, "steps": 4, "rank": 4, "alpha": 4.0,
                                     "learning_rate": 1e-3, **fields})[0]


def _train(folder, model=None, **inputs):
    model = model or training_models.make_model("flux")
    training_set = training_models.make_training_set(folder, "flux")
    defaults = {"recipe": _recipe(), "seed": 7, "name": "", "save_to": "output/loras",
                "file_precision": "fp16"}
    return model, TrainNode.execute(model, training_set, SUBJECT, **{**defaults, **inputs})


def _picture(model):
    generator = torch.Generator().manual_seed(2)
    conds = {"c_crossattn": torch.randn(1, 12, 64, generator=generator),
             "y": torch.randn(1, 64, generator=generator), "guidance": torch.tensor([3.5])}
    from comfy.model_management import load_models_gpu

    load_models_gpu([model])
    return model.model.apply_model(torch.randn(1, 16, 16, 16, generator=generator),
                                   torch.tensor([0.7]), transformer_options={}, **conds)


def test_the_recipe_nodes_defaults_are_the_recipes():
    defaults = {field.id: getattr(field, "default", None)
                for field in LoRARecipeNode.GET_SCHEMA().inputs}
    assert LoRARecipeNode.execute(**defaults)[0] == LoRARecipe()


def test_a_combo_value_that_does_not_exist_is_refused():
    with pytest.raises(LikenessError, match="`target` must be one of"):
        _recipe(target="everything")


def test_training_gives_model_lora_losses_path_and_report(host_folders):
    model, output = _train(host_folders)
    patched, lora, loss_map, path, report, clip, trigger, picture = output.args
    report = json.loads(report)
    assert path == report["files"]["lora"] and clip is None and trigger == "ohwx"
    assert picture.shape == (1, 450, 800, 3)
    assert path.startswith(str(host_folders / "output" / "loras" / "Ann"))
    assert len(loss_map["loss"]) == 4 and report["steps"] == 4 and report["seed"] == 7
    assert patched is not model and not torch.equal(_picture(patched), _picture(model))
    assert not list((host_folders / "output" / "likeness" / "Ann" / "training").iterdir())
    shown = output.ui
    assert (host_folders / "temp" / shown["images"][0]["filename"]).exists()
    assert json.loads(shown["text"][0]) == report


def test_cores_lora_nodes_take_the_result(host_folders):
    model, output = _train(host_folders, file_precision="fp32")
    patched, lora, loss_map, path, *_ = output.args
    loaded = core.LoraModelLoader.execute(model, lora, 1.0)[0]
    assert torch.equal(_picture(loaded), _picture(patched))
    core.SaveLoRA.execute(lora, "loras/saved", 4)
    saved, = (host_folders / "output" / "loras").glob("saved*")
    from comfy.utils import load_torch_file

    again = load_torch_file(str(saved))
    assert again.keys() == lora.keys() and all(torch.equal(again[key], lora[key]) for key in lora)
    assert core.LossGraphNode.execute(loss_map, "loss").ui


def test_the_stock_loader_finds_a_lora_saved_among_the_models(host_folders):
    import nodes

    model, output = _train(host_folders, save_to="models/loras", name="people/ann", strength=0.5)
    patched, _, _, path, *_ = output.args
    names = folder_paths.get_filename_list("loras")
    assert [str(host_folders / "models" / "loras" / name) for name in names] == [path]
    loaded, _ = nodes.LoraLoader().load_lora(model, None, names[0], 0.5, 0.0)
    assert torch.equal(_picture(loaded), _picture(patched))


def test_the_strength_scales_the_returned_model_alone(host_folders):
    model, full = _train(host_folders)
    _, none = _train(host_folders, model=model, strength=0.0)
    assert torch.equal(_picture(none.args[0]), _picture(model))
    assert all(torch.equal(value, none.args[1][key]) for key, value in full.args[1].items())


@pytest.mark.parametrize("name", ["../escape", "/absolute"])
def test_a_name_that_leaves_the_folder_is_refused(name, host_folders):
    with pytest.raises(LikenessError, match="lies outside"):
        _train(host_folders, name=name)


def test_an_unknown_place_is_refused(host_folders):
    with pytest.raises(LikenessError, match="`save_to` must be output/loras or models/loras"):
        _train(host_folders, save_to="elsewhere")


def test_the_curve_is_a_picture_and_its_mean_follows_the_losses():
    picture = draw([1.0, 0.5, 0.8, 0.4], "ann")
    assert picture.shape == (450, 800, 3) and picture.dtype == np.uint8
    assert picture.std() > 5
    assert smoothed([4.0] * 10).tolist() == [4.0] * 10
    assert smoothed(np.arange(20.0))[-1] == 18.5  # a tenth of the run: the last two


def test_a_lora_removed_between_runs_is_written_again_while_its_result_is_held(host_folders):
    with CurrentNodeContext("p", "train"):
        first = TrainNode.fingerprint_inputs(seed=7)
        _, output = _train(host_folders)
        learned, path = output.args[1], Path(output.args[3])
        before = read_lora(path)
        assert TrainNode.fingerprint_inputs(seed=7) == first
        path.unlink()
        assert TrainNode.fingerprint_inputs(seed=7) == first, "it would train again"
    after = read_lora(path)
    assert after[1] == before[1] and after[0].keys() == before[0].keys() == learned.keys()
    assert all(torch.equal(after[0][name], before[0][name]) for name in before[0])


def test_a_lora_whose_result_is_gone_too_is_trained_anew(host_folders):
    with CurrentNodeContext("p", "gone"):
        _, output = _train(host_folders)
        first, path = TrainNode.fingerprint_inputs(seed=7), Path(output.args[3])
        del output
        gc.collect()
        path.unlink()
        assert TrainNode.fingerprint_inputs(seed=7) != first and not path.exists()


def test_a_new_word_is_written_again_from_its_bytes(tmp_path):
    word = tmp_path / "ann.safetensors"
    word.write_bytes(b"rows")
    learned = in_memory.hold("word", {"embedding": word}, {})
    word.unlink()
    in_memory.write_missing("word")
    assert word.read_bytes() == b"rows" and learned == {}
