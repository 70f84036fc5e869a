"""Files as sd-scripts and LyCORIS write them, through the host's loader and Apply Trained's."""

from __future__ import annotations

from collections.abc import Mapping

import comfy.sd
import kohya_files
import pytest
import text_models
import torch
import training_models
from likeness.nodes import runtime
from likeness.nodes.training.apply.trained import apply_trained
from safetensors.torch import save_file

NAMES = pytest.mark.parametrize("name", training_models.ARCHITECTURES)
LOADERS = pytest.mark.parametrize("stock", [True, False], ids=["stock", "ours"])


def _load(stock: bool, model, clip, tensors, folder):
    path = folder / "theirs.safetensors"
    save_file(tensors, str(path), {"ss_network_module": "networks.lora"})
    if stock:
        return comfy.sd.load_lora_for_models(model, clip, runtime.load_weights(path), 1.0, 1.0)
    applied = apply_trained(model, clip, path, None, 1.0, 1.0)
    return applied.model, applied.clip


def _assert_loaded(patcher, before: Mapping[str, torch.Tensor],
                   changes: Mapping[str, torch.Tensor]) -> None:
    assert set(patcher.patches) == set(changes) and len(changes) > 5
    runtime.load_models([patcher])
    now = patcher.model.state_dict()
    for key, wanted in changes.items():
        found = now[key].float() - before[key].float()
        assert (found - wanted).norm() < 2e-3 * wanted.norm(), key
    others = before.keys() - changes.keys()
    assert all(torch.equal(now[key], before[key]) for key in others)


@NAMES
@LOADERS
def test_a_lora_of_sd_scripts_changes_the_layers_that_it_names(name, stock, tmp_path, caplog):
    model, clip = training_models.make_model(name), text_models.make_clip(name, tmp_path)
    before = training_models.weights(model)
    words = {key: value.clone() for key, value in clip.cond_stage_model.state_dict().items()}
    tensors, changes = kohya_files.make(kohya_files.network_layers(name, model))
    text, of_text = kohya_files.make(kohya_files.text_layers(name, clip), seed=3)
    patched, encoder = _load(stock, model, clip, {**tensors, **text}, tmp_path)
    assert not [row for row in caplog.records if "not loaded" in row.getMessage()]
    _assert_loaded(patched, before, changes)
    _assert_loaded(encoder.patcher, words, of_text)


@pytest.mark.parametrize("name", ["sdxl", "flux"])
@pytest.mark.parametrize("algorithm", list(kohya_files.ALGORITHMS))
@LOADERS
def test_a_file_of_lycoris_changes_the_layers_as_its_modules_would(name, algorithm, stock,
                                                                   tmp_path, caplog):
    model, clip = training_models.make_model(name), text_models.make_clip(name, tmp_path)
    before = training_models.weights(model)
    tensors, changes = kohya_files.make(kohya_files.network_layers(name, model),
                                        kohya_files.ALGORITHMS[algorithm])
    patched, _ = _load(stock, model, clip, tensors, tmp_path)
    assert not [row for row in caplog.records if "not loaded" in row.getMessage()]
    _assert_loaded(patched, before, changes)
