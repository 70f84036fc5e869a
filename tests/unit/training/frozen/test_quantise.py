"""Frozen weights as codes: their error, gradients over them, and models that come back whole."""

from __future__ import annotations

import math
from contextlib import closing

import comfy.model_management
import comfy.ops
import pytest
import quantised_models
import torch
import torch.nn.functional as F
import training_models
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.frozen import layers as frozen
from likeness.nodes.training.frozen import quantise
from likeness.nodes.training.frozen.scope import Scope
from likeness.nodes.training.parametrisation import is_velocity
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.recipes.fields import BaseWeights
from likeness.nodes.training.steps.loop import Trainer
from quantised_runs import KINDS, QuantisedRun

CPU = training_models.CPU


def _weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.03 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _error(ours: torch.Tensor, truth: torch.Tensor) -> float:
    return ((ours - truth).norm() / truth.norm()).item()


@pytest.mark.parametrize("kind, error, size", [(BaseWeights.FP8, 0.0266, 1.0032),
                                               (BaseWeights.NF4, 0.0922, 0.5163)])
def test_weights_lose_what_the_format_costs(kind, error, size):
    weight = _weight(1280, 1280)
    held = quantise.quantise(weight, kind, CPU)
    assert _error(held.dequantise(torch.float32), weight) < error
    assert held.bytes / weight.numel() < size


@KINDS
@pytest.mark.parametrize("shape", [(3, 5), (64, 64, 3, 3), (7, 13, 3), (1, 1), (300, 70)])
def test_any_shape_comes_back(kind, shape):
    weight = _weight(*shape)
    held = quantise.quantise(weight, kind, CPU)
    for dtype in (torch.float32, torch.bfloat16):
        back = held.dequantise(dtype)
        assert back.shape == weight.shape and back.dtype == dtype and back.is_contiguous()
        assert _error(back.float(), weight) < 0.15


@KINDS
def test_zeros_stay_zero(kind):
    held = quantise.quantise(torch.zeros(8, 64), kind, CPU)
    assert not held.dequantise(torch.float32).any()


@KINDS
def test_no_numbers_are_refused(kind):
    with pytest.raises(LikenessError, match="no numbers"):
        quantise.quantise(torch.full((4, 64), float("nan")), kind, CPU)


def test_fp8_rows_of_small_weights_keep_their_precision():
    weight = _weight(256, 256) * torch.logspace(-3, 0, 256)[:, None]
    back = quantise.quantise(weight, BaseWeights.FP8, CPU).dequantise(torch.float32)
    assert ((back - weight).norm(dim=1) / weight.norm(dim=1)).max() < 0.04


def test_weights_stored_as_e4m3_are_taken_over_unchanged():
    stored = _weight(64, 64).to(torch.float8_e4m3fn)
    back = quantise.quantise(stored, BaseWeights.FP8, CPU).dequantise(torch.bfloat16)
    assert torch.equal(back.float(), stored.float())


def test_nf4_codes_are_those_of_bitsandbytes():
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = _weight(96, 100)
    ours = quantise.quantise(weight, BaseWeights.NF4, CPU)
    codes, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    assert torch.equal(ours.codes, codes.flatten())
    nested, nested_state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4",
                                                    compress_statistics=True)
    theirs = _error(functional.dequantize_4bit(nested, nested_state), weight)
    assert _error(ours.dequantise(torch.float32), weight) < 1.005 * theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(96, 100), (7, 13)])
def test_bitsandbytes_reads_the_codes_as_torch_does(dtype, shape):
    functional = pytest.importorskip("bitsandbytes.functional")
    held = quantise.quantise(_weight(*shape), BaseWeights.NF4, CPU)
    parts = held.codes, held._block_scales(), held.shape, dtype
    assert torch.equal(quantise._run_kernel(functional, *parts), quantise._expand(*parts))


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_over_codes_are_those_over_the_dense_weights(kind, dtype):
    layer = comfy.ops.manual_cast.Linear(64, 96)
    training_models.fill(layer)
    layer.requires_grad_(False)
    x = torch.randn(5, 64, dtype=dtype, requires_grad=True)
    grad = torch.randn(5, 96, dtype=dtype)
    with Scope() as scope:
        held = quantise.quantise(layer.weight, kind, CPU)
        scope.set_attribute(layer, frozen.QUANTISED, held)
        y = frozen.frozen_linear(layer, x)
        ours, = torch.autograd.grad(y, x, grad)
    dense = held.dequantise(dtype)
    assert torch.equal(ours, grad @ dense)
    expected = F.linear(x, dense, layer.bias.to(dtype))
    assert _error(y.float(), expected.float()) < (1e-6 if dtype == torch.float32 else 5e-3)


@KINDS
@pytest.mark.parametrize("name", ["sd15", "flux"])
def test_adapters_over_codes_learn_as_over_a_model_of_the_dequantised_weights(
        name, kind, tmp_path):
    model, run = training_models.make_model(name), QuantisedRun(name, tmp_path)
    before = training_models.weights(model)
    tree = training_models.tree(model)
    loss, gradients, held = run(model, kind)
    training_models.assert_same_weights(model, before)
    assert training_models.tree(model) == tree

    dense = training_models.make_model(name)
    with torch.no_grad():
        for module in dense.model.diffusion_model.modules():
            if quantise._is_large(module):
                module.weight.copy_(quantise.quantise(module.weight, kind, CPU).dequantise(
                    torch.float32))
    truth_loss, truth, _ = run(dense)
    full_loss, _, _ = run(model)

    assert loss == pytest.approx(truth_loss, rel=1e-6)
    assert loss != pytest.approx(full_loss, rel=1e-6)
    for ours, true in zip(gradients, truth, strict=True):
        assert (ours is None) == (true is None)
        assert ours is None or (ours - true).norm() <= 1e-5 * true.norm()
    assert held.layers > 10 and held.parameters > 1000 * held.layers
    assert held.error == pytest.approx(0.0265 if kind is BaseWeights.FP8 else 0.092, rel=0.05)


def _codes(model, kind: BaseWeights) -> dict[str, torch.Tensor]:
    network = model.model.diffusion_model
    with Scope() as scope:
        quantise.quantise_layers(scope, model, network, kind, CPU)
        return {path: vars(module)[frozen.QUANTISED].dequantise(torch.float32)
                for path, module in network.named_modules()
                if frozen.QUANTISED in vars(module)}


def _patched(model):
    """The MODEL with a LoRA on one large layer and a difference on its bias and on a norm."""
    path = "single_blocks.0.linear1"
    layer = model.model.diffusion_model.get_submodule(path)
    key = f"diffusion_model.{path}"
    up, down = _weight(layer.out_features, 4, seed=1), _weight(4, layer.in_features, seed=2)
    clone = model.clone()
    clone.add_patches({f"{key}.weight": ("diff", (500 * up @ down,)),
                       f"{key}.bias": ("diff", (torch.ones(layer.out_features),))})
    return clone, path, layer.weight.detach() + 500 * up @ down


def test_codes_hold_upstream_patches_whether_or_not_the_model_is_loaded():
    model, path, expected = _patched(training_models.make_model("flux"))
    cold = _codes(model, BaseWeights.FP8)
    assert _error(cold[path], expected) < 0.03
    training_models.runtime.load_models([model])
    assert model.backup
    warm = _codes(model, BaseWeights.FP8)
    assert all(torch.equal(value, warm[name]) for name, value in cold.items())


def test_patches_of_biases_and_streamed_layers_are_applied_once():
    model, path, expected = _patched(training_models.make_model("flux"))
    layer = model.model.diffusion_model.get_submodule(path)
    bias = layer.bias.detach().clone()
    layer.weight_function = [lambda weight: weight + 100]
    x = torch.randn(3, layer.in_features)
    with Scope() as scope:
        quantise.quantise_layers(scope, model, model.model.diffusion_model, BaseWeights.FP8, CPU)
        weight, read_bias, _ = frozen.read_weight(layer, x)
        assert _error(weight, expected) < 0.03
        assert torch.allclose(read_bias, bias + 1)
    assert len(layer.weight_function) == 1 and torch.equal(layer.bias, bias)


@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_layers_stored_in_8_bits_stay_as_they_are_under_fp8(stored):
    model = training_models.make_model("flux", dtype=stored, compute=torch.float32)
    layer = model.model.diffusion_model.single_blocks[0].linear1
    with Scope() as scope:
        held = quantise.quantise_layers(scope, model, model.model.diffusion_model,
                                        BaseWeights.FP8, CPU)
        weight, _, _ = frozen.read_weight(layer, torch.zeros(1))
        assert held.layers == 0 and torch.equal(weight, layer.weight.float())


@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_nf4_is_built_from_weights_stored_in_8_bits(stored):
    model = training_models.make_model("flux", dtype=stored, compute=torch.float32)
    layer = model.model.diffusion_model.single_blocks[0].linear1
    codes = _codes(model, BaseWeights.NF4)
    assert _error(codes["single_blocks.0.linear1"], layer.weight.float()) < 0.095


def test_nf4_is_built_from_scaled_fp8_with_its_scale():
    model = training_models.make_model("flux")
    model.model.diffusion_model.extra, weight = quantised_models.scaled_layer(64, 96)
    codes = _codes(model, BaseWeights.NF4)
    assert _error(codes["extra"], weight) < 0.095


@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_layers_stored_in_8_bits_are_read_unchanged_without_codes(stored):
    layer = comfy.ops.manual_cast.Linear(24, 40)
    training_models.fill(layer)
    layer = layer.to(stored).requires_grad_(False)
    for dtype in (torch.float32, torch.bfloat16):
        weight, bias, _ = frozen.read_weight(layer, torch.zeros(1, dtype=dtype))
        assert weight.dtype == dtype and torch.equal(weight.float(), layer.weight.float())
        assert bias.dtype == dtype


def test_layers_that_learn_are_left_alone(tmp_path):
    model = training_models.make_model("flux")
    network = model.model.diffusion_model
    layer = network.single_blocks[0].linear1
    with Scope() as scope:
        held = quantise.quantise_layers(scope, model, network, BaseWeights.NF4, CPU, skip=[layer])
        assert frozen.QUANTISED not in vars(layer)
        everything = sum(frozen.QUANTISED in vars(module) for module in network.modules())
        assert held.layers == everything


def test_models_born_under_inference_mode_can_be_trained_over_codes(tmp_path):
    with torch.inference_mode():
        model = training_models.make_model("flux")
    with torch.inference_mode(False):
        loss, gradients, _ = QuantisedRun("flux", tmp_path)(model, BaseWeights.NF4)
    assert math.isfinite(loss)
    assert any(gradient is not None and gradient.any() for gradient in gradients)


def test_wrapped_weights_are_refused():
    model = training_models.make_model("flux")
    model.weight_wrapper_patches = {"diffusion_model.img_in.weight": [lambda weight: weight]}
    with Scope() as scope, pytest.raises(LikenessError, match="wrapped weights"):
        quantise.quantise_layers(scope, model, model.model.diffusion_model, BaseWeights.NF4, CPU)


def _quantised_run(tmp_path, model, kind, **fields):
    recipe = LoRARecipe(steps=2, rank=4, base_weights=kind, **fields)
    return Trainer(model, training_models.make_training_set(tmp_path, "sd15"), recipe, 1)


@pytest.mark.parametrize("kind", list(BaseWeights), ids=lambda kind: kind.value)
def test_a_replaced_prediction_is_trained_on_whichever_clone_is_loaded(kind, tmp_path):
    model = training_models.make_model("sd15")
    velocity = ModelSamplingDiscrete().patch(model, "v_prediction", False)[0]
    for own, other, expected in ((velocity, model, True), (model, velocity, False)):
        training_models.runtime.load_models([other])
        trainer = _quantised_run(tmp_path, own, kind)
        with trainer.attached():
            assert is_velocity(model.model.model_sampling) is expected
            assert trainer.objective.sampling is model.model.model_sampling
        with closing(trainer.run()) as steps:
            assert all(math.isfinite(result.loss) for result in steps)
        training_models.runtime.unload(model)
        assert not is_velocity(model.model.model_sampling)


@KINDS
def test_replaced_objects_are_put_back(kind, tmp_path):
    model = training_models.make_model("sd15")
    base, before = model.model, dict(vars(model.model))
    patched = model.clone()
    patched.add_object_patch("extra_conds", lambda **given: {})
    patched.add_object_patch("manual_cast_dtype", torch.bfloat16)
    trainer = _quantised_run(tmp_path, patched, kind)
    assert trainer.dtype is torch.bfloat16
    with trainer.attached():
        assert base.extra_conds() == {} and base.manual_cast_dtype is torch.bfloat16
    after = vars(base)
    assert after.keys() == before.keys() and after["manual_cast_dtype"] is None
    assert base.extra_conds.__func__ is type(base).extra_conds


@KINDS
@pytest.mark.parametrize("name", ["sd15", "flux"])
def test_the_bytes_of_codes_are_known_beforehand(name, kind):
    model, *_ = _patched(training_models.make_model("flux")) if name == "flux" else (
        training_models.make_model(name), None)
    network = model.model.diffusion_model
    skip = [next(module for module in network.modules() if frozen.is_linear(module))]
    with Scope() as scope:
        held = quantise.quantise_layers(scope, model, network, kind, CPU, skip)
    assert quantise.device_bytes(model, network, kind, skip) == held.bytes + held.kept_bytes


@KINDS
def test_room_is_made_for_codes_and_the_weights_leave_the_device(kind, tmp_path, monkeypatch):
    model = training_models.make_model("sd15")
    other = training_models.make_model("sd15", seed=3)
    loaded = comfy.model_management.current_loaded_models
    asked = []
    monkeypatch.setattr(training_models.runtime, "make_room",
                        lambda size, device, leave=(): asked.append((size, device, list(leave))))
    training_models.runtime.load_models([model, other])
    trainer = _quantised_run(tmp_path, model, kind)
    with trainer.attached():
        assert [entry.model for entry in loaded if entry.model in (model, other)] == [other]
        assert not any(entry.model.is_clone(model) for entry in loaded)
    size = trainer.memory_required() + quantise.device_bytes(model, model.model.diffusion_model,
                                                             kind)
    assert asked[-1] == (size, CPU, [])


def test_room_is_asked_of_the_host_and_never_on_the_cpu(monkeypatch):
    model = training_models.make_model("sd15")
    training_models.runtime.load_models([model])
    asked = []
    monkeypatch.setattr(comfy.model_management, "free_memory",
                        lambda size, device, keep_loaded: asked.append(
                            (size, device, [entry.model for entry in keep_loaded])))
    training_models.runtime.make_room(5, CPU)
    assert asked == []
    training_models.runtime.make_room(7, torch.device("cuda"), leave=[model])
    assert asked == [(7, torch.device("cuda"), [model])]
