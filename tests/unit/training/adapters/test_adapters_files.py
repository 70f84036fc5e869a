"""What the host's own loader makes of each technique's file is what was trained."""

from __future__ import annotations

import logging

import adapter_layers
import comfy.lora
import comfy.sd
import pytest
import torch
import training_models
from adapter_layers import file_tensors, make_adapter, make_adapters, make_conv, make_linear
from comfy.weight_adapter.base import factorization
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.adapters.layer import frozen_weight
from likeness.nodes.training.adapters.lokr import factorise

TECHNIQUES = pytest.mark.parametrize("technique", adapter_layers.ADAPTERS)
EVERY = pytest.mark.parametrize("technique", adapter_layers.RECIPES)
ARCHITECTURES = pytest.mark.parametrize("name", training_models.ARCHITECTURES)
CONVOLUTIONS = "all linear and convolutions"


def _load(model, tensors, caplog):
    with caplog.at_level(logging.WARNING):
        patched, _ = comfy.sd.load_lora_for_models(model, None, dict(tensors), 1.0, 0.0)
    assert not [record for record in caplog.records if "not loaded" in record.getMessage()]
    return patched


@TECHNIQUES
@ARCHITECTURES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
def test_the_loader_adds_what_the_layers_say_that_they_changed(technique, name, dtype, caplog):
    model = training_models.make_model(name)
    network = model.model.diffusion_model
    adapters = adapter_layers.learn(make_adapters(technique, network, CONVOLUTIONS, rank=3))
    patched = _load(model, file_tensors(model, adapters, dtype), caplog)
    assert len(patched.patches) == len(adapters.layers)
    for path, layer in adapters.layers.items():
        weight = frozen_weight(network.get_submodule(path), training_models.CPU)
        base = torch.zeros_like(weight) if layer.additive else weight
        key = f"diffusion_model.{path}.weight"
        found = comfy.lora.calculate_weight(patched.patches[key], base.clone(), key) - base
        wanted = layer.difference(base, dtype).detach()
        assert (found - wanted).norm() < 1e-5 * wanted.norm(), path


@TECHNIQUES
@ARCHITECTURES
def test_the_live_model_gives_the_picture_of_the_loaded_file(technique, name, caplog):
    model = training_models.make_model(name)
    target = CONVOLUTIONS if name == "sd15" else "attention and feed-forward"
    adapters = adapter_layers.learn(
        make_adapters(technique, model.model.diffusion_model, target), 0.03)
    with torch.no_grad():
        before = adapter_layers.predict(model, change=False)
        live = adapter_layers.predict(model, adapters)
        patched = _load(model, file_tensors(model, adapters, torch.float32), caplog)
        patched.patch_model()
        loaded = adapter_layers.predict(model, change=False)
        patched.unpatch_model()
    change = (live - before).norm()
    assert change > 1e-3 * before.norm()
    assert (loaded - live).norm() < 1e-3 * change


@EVERY
def test_a_run_starts_at_exactly_the_base(technique):
    model = training_models.make_model("sd15")
    adapters = make_adapters(technique, model.model.diffusion_model, CONVOLUTIONS)
    with torch.no_grad():
        assert torch.equal(adapter_layers.predict(model, adapters),
                           adapter_layers.predict(model, None))
    for path, layer in adapters.layers.items():
        weight = frozen_weight(model.model.diffusion_model.get_submodule(path),
                               training_models.CPU)
        assert not layer.difference(weight).any(), path


@EVERY
def test_values_read_from_a_file_go_on_as_they_were(technique):
    for module in (make_linear(), make_conv(kernel_size=3), make_conv(dims=3, kernel_size=3)):
        for rank in (1, 12):
            layer = make_adapter(technique, module, rank)
            again = make_adapter(technique, module, rank)
            with torch.no_grad():
                for parameter in again.parameters():
                    parameter.zero_()
            places = [parameter.data_ptr() for parameter in again.parameters()]
            again.from_file(layer.to_file(torch.float32))
            assert [parameter.data_ptr() for parameter in again.parameters()] == places
            weight = frozen_weight(module, training_models.CPU)
            wanted = layer.difference(weight)
            assert (again.difference(weight) - wanted).norm() < 1e-6 * weight.norm()
            with pytest.raises(KeyError):
                again.from_file({})


@EVERY
def test_files_say_their_number_format(technique):
    tensors = make_adapter(technique, make_linear()).to_file(torch.bfloat16)
    small = {"alpha", "dora_scale"}  # half would round a scale, or the whole weight
    assert all(value.dtype == (torch.float32 if name in small else torch.bfloat16)
               for name, value in tensors.items())


def test_a_rank_stabilised_file_is_scaled_by_its_alpha():
    layer = make_adapter("lora", make_linear(), 9, alpha=6.0, rank_stabilised=True)
    assert layer.scale == pytest.approx(2.0)
    assert float(layer.to_file(torch.float16)["alpha"]) / 9 == pytest.approx(2.0)


def test_parts_of_a_convolution_have_the_shapes_of_other_trainers():
    conv = make_conv(kernel_size=3)
    shapes = {name: tuple(value.shape)
              for name, value in make_adapter("lora", conv, 2).to_file(torch.float32).items()}
    assert shapes == {"lora_down.weight": (2, 8, 3, 3), "lora_up.weight": (12, 2, 1, 1),
                      "alpha": ()}
    tensors = make_adapter("lokr", conv, 64).to_file(torch.float32)
    assert tensors["lokr_w1"].shape == (3, 2) and tensors["lokr_w2"].shape == (4, 4, 3, 3)
    tensors = make_adapter("dora", conv, 2).to_file(torch.float32)
    assert tensors["dora_scale"].shape == (1, 8, 1, 1)


def test_sides_of_kronecker_factors_are_those_of_other_trainers():
    for size in (*range(2, 200), 320, 640, 768, 1280, 2816, 3072, 12288):
        for factor in (2, 4, 8, 16):
            assert factorise(size, factor) == factorization(size, factor), (size, factor)


def test_a_rotation_is_held_at_its_constraint_as_the_loader_holds_it(caplog):
    model = training_models.make_model("flux")
    adapters = adapter_layers.learn(
        make_adapters("oft", model.model.diffusion_model, "attention", constraint=0.3))
    patched = _load(model, file_tensors(model, adapters, torch.float32), caplog)
    for path, layer in adapters.layers.items():
        free = make_adapter("oft", model.model.diffusion_model.get_submodule(path))
        weight = frozen_weight(model.model.diffusion_model.get_submodule(path),
                               training_models.CPU)
        key = f"diffusion_model.{path}.weight"
        found = comfy.lora.calculate_weight(patched.patches[key], weight.clone(), key) - weight
        wanted = layer.difference(weight).detach()
        assert (found - wanted).norm() < 1e-5 * wanted.norm()
        assert wanted.norm() < 0.7 * free.difference(weight).norm()


@pytest.mark.parametrize(("technique", "outputs", "text"), [
    ("dora", 1, "DoRA cannot train layer `layer`, which has one output"),
    ("oft", 13, "The 13 outputs of layer `layer` cannot be cut"),
    ("lora", 1, "`rank` 2 is larger than layer `layer`"),
    ("loha", 1, "`rank` 2 is larger than layer `layer`")])
def test_a_layer_that_a_technique_cannot_train_is_named(technique, outputs, text):
    rank = 1 if technique == "dora" else 2
    with pytest.raises(LikenessError, match=text):
        make_adapter(technique, make_linear(outputs=outputs), rank)
