"""Frozen layers and adapters one by one: values, gradients, and what the graph keeps of them."""

from __future__ import annotations

import comfy.ops
import pytest
import quantised_models
import torch
import torch.nn.functional as F
import training_models
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.adapters.group import Adapters
from likeness.nodes.training.adapters.lora import LoRALayer
from likeness.nodes.training.adapters.targets import target_layers
from likeness.nodes.training.frozen import layers as frozen
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.recipes.fields import Target
from torch import nn


def _linear(ops=comfy.ops.disable_weight_init, inputs=24, outputs=40, dtype=torch.float32,
            bias=True):
    layer = ops.Linear(inputs, outputs, bias=bias, dtype=dtype)
    training_models.fill(layer)
    return layer.requires_grad_(False)


def _lora(layer, rank, scale=1.0, seed=0):
    recipe = LoRARecipe(rank=rank, alpha=scale * rank)
    return LoRALayer("layer", layer, recipe, torch.Generator().manual_seed(seed),
                     training_models.CPU)


def _saved_bytes(run) -> int:
    """Bytes that autograd keeps for the backward pass, each storage once."""
    kept: dict[int, int] = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(kept.values())


@pytest.mark.parametrize("bias", [True, False])
def test_a_frozen_dense_layer_has_the_values_and_gradient_of_the_layer(bias):
    layer, x = _linear(bias=bias), torch.randn(2, 5, 24, requires_grad=True)
    grad = torch.randn(2, 5, 40)
    expected = F.linear(x, layer.weight, layer.bias)
    truth, = torch.autograd.grad(expected, x, grad)
    y = frozen.frozen_linear(layer, x)
    ours, = torch.autograd.grad(y, x, grad)
    assert torch.allclose(y, expected, atol=1e-6) and torch.allclose(ours, truth, atol=1e-6)


@pytest.mark.parametrize("settings", [
    {"kernel_size": 3, "padding": 1}, {"kernel_size": 3, "padding": 1, "stride": 2},
    {"kernel_size": 1}, {"kernel_size": 3, "padding": "same", "dilation": 2},
    {"kernel_size": 3, "padding": 1, "padding_mode": "circular"}, {"kernel_size": 3, "groups": 2}])
def test_a_frozen_convolution_has_the_values_and_gradient_of_the_layer(settings):
    layer = comfy.ops.disable_weight_init.Conv2d(4, 6, **settings)
    training_models.fill(layer)
    x = torch.randn(2, 4, 9, 8, requires_grad=True)
    expected = nn.Conv2d.forward(layer, x)
    grad = torch.randn_like(expected)
    truth, = torch.autograd.grad(expected, x, grad)
    y = frozen.frozen_conv(layer, x)
    ours, = torch.autograd.grad(y, x, grad)
    assert torch.allclose(y, expected, atol=1e-5) and torch.allclose(ours, truth, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_the_graph_keeps_neither_weight_nor_cast_of_a_frozen_layer(dtype):
    layer = _linear(comfy.ops.manual_cast, 64, 64).to(dtype)
    x = torch.randn(3, 64, requires_grad=True)
    assert _saved_bytes(lambda: frozen.frozen_linear(layer, x).sum()) == 0
    assert _saved_bytes(lambda: layer(x).sum()) >= 64 * 64 * 4  # as the host's layer would


def test_an_adapter_keeps_its_input_and_thin_product_alone():
    layer = _linear(inputs=64, outputs=96)
    lora = _lora(layer, 2)
    x = torch.randn(10, 64, requires_grad=True)
    own = sum(parameter.nbytes for parameter in lora.parameters())
    assert not lora.materialise
    assert _saved_bytes(lambda: lora(layer, x).sum()) == own + x.nbytes + 10 * 2 * 4


@pytest.mark.parametrize("rank", [2, 20], ids=["side path", "materialised"])
@pytest.mark.parametrize("needs_input_gradient", [True, False])
def test_an_adapted_layer_equals_the_changed_weight(rank, needs_input_gradient):
    layer = _linear()
    lora = _lora(layer, rank, 0.7, seed=1)
    nn.init.normal_(lora.up)
    assert lora.materialise == (rank == 20)
    x = torch.randn(2, 200, 24, requires_grad=needs_input_gradient)
    expected = F.linear(x, layer.weight + 0.7 * lora.up @ lora.down, layer.bias)
    inputs = [lora.down, lora.up] + ([x] if needs_input_gradient else [])
    truth = torch.autograd.grad(expected.square().sum(), inputs)
    y = lora(layer, x)
    ours = torch.autograd.grad(y.square().sum(), inputs)
    assert torch.allclose(y, expected, atol=1e-5)
    for mine, true in zip(ours, truth, strict=True):
        assert (mine - true).norm() < 1e-5 * true.norm()


@pytest.mark.parametrize("stored", [torch.float16, torch.float8_e4m3fn])
def test_gradients_over_stored_half_weights_equal_the_dense_ones(stored):
    layer = _linear(comfy.ops.manual_cast).to(stored)
    weight, bias = layer.weight.float(), layer.bias.float()
    lora = _lora(layer, 4)
    nn.init.normal_(lora.up)
    x = torch.randn(6, 24, requires_grad=True)
    truth = torch.autograd.grad(
        F.linear(x, weight + lora.up @ lora.down, bias).square().sum(), [x, lora.down, lora.up])
    ours = torch.autograd.grad(lora(layer, x).square().sum(), [x, lora.down, lora.up])
    for mine, true in zip(ours, truth, strict=True):
        assert (mine - true).norm() < 1e-5 * true.norm()


def test_scaled_fp8_weights_are_read_with_their_scale():
    layer, weight = quantised_models.scaled_layer(24, 40)
    x = torch.randn(6, 24, requires_grad=True)
    y = frozen.frozen_linear(layer, x)
    assert torch.allclose(y, x.detach() @ weight.T, atol=1e-5)
    ours, = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(ours, weight.sum(0).expand(6, 24), atol=1e-5)


def test_an_upstream_patch_of_an_offloaded_layer_takes_part():
    layer = _linear(comfy.ops.manual_cast)
    layer.weight_function = [lambda weight: weight * 2]
    x = torch.randn(6, 24, requires_grad=True)
    y = frozen.frozen_linear(layer, x)
    assert torch.allclose(y, F.linear(x, layer.weight * 2, layer.bias), atol=1e-6)
    ours, = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(ours, (layer.weight * 2).sum(0).expand(6, 24), atol=1e-5)


def test_a_half_precision_base_trains_float32_adapters():
    layer = _linear(comfy.ops.manual_cast).to(torch.bfloat16)
    lora = _lora(layer, 20)
    nn.init.normal_(lora.up)
    x = torch.randn(64, 24, dtype=torch.bfloat16, requires_grad=True)
    lora(layer, x).float().square().sum().backward()
    assert x.grad.dtype == torch.bfloat16 and lora.up.grad.dtype == torch.float32
    weight = (layer.weight.float() + lora.up @ lora.down).detach().requires_grad_()
    F.linear(x.detach().float(), weight, layer.bias.float()).square().sum().backward()
    assert (lora.up.grad - weight.grad @ lora.down.T).norm() < 0.02 * lora.up.grad.norm()


def test_a_norm_keeps_the_input_it_saw_when_the_residual_is_added_in_place():
    norm, layer = comfy.ops.disable_weight_init.LayerNorm(24), _linear(outputs=24)
    training_models.fill(norm)
    start = torch.randn(4, 24)

    def block(x, normalise, in_place):
        x = x * 1.0
        step = frozen.frozen_linear(layer, normalise(x))
        if in_place:
            x += step
        else:
            x = x + step
        return x.square().sum()

    truth_x = start.clone().requires_grad_()
    truth, = torch.autograd.grad(block(truth_x, norm, False), truth_x)
    x = start.clone().requires_grad_()
    ours, = torch.autograd.grad(block(x, frozen.norm_on_copy(norm), True), x)
    assert torch.allclose(ours, truth, atol=1e-5)
    with pytest.raises(RuntimeError, match="inplace"):
        torch.autograd.grad(block(x, norm, True), x)


def test_the_host_module_may_write_into_what_a_layer_returns():
    layer, x = _linear(outputs=24), torch.randn(2, 3, 24, requires_grad=True)
    for run in (lambda: frozen.frozen_linear(layer, x),
                lambda: _lora(layer, 2)(layer, x)):
        y = run()
        y += 1.0
        y.sum().backward()


PRESETS = {  # architecture -> layers of (cross-attention, attention, with feed-forward)
    "sd15": (64, 128, 160), "sdxl": (68, 136, 170), "sd3": (0, 9, 15), "flux": (0, 12, 20)}


@pytest.mark.parametrize("name", training_models.ARCHITECTURES)
def test_presets_find_the_layers_they_name(name):
    model = training_models.make_model(name).model.diffusion_model
    cross, attention, feed_forward = PRESETS[name]
    assert len(target_layers(model, Target.ATTENTION)) == attention
    found = target_layers(model, Target.ATTENTION_FEED_FORWARD)
    assert len(found) == feed_forward
    assert not any("embed" in path or "mod" in path.split(".")[-2] for path in found)
    everything = target_layers(model, Target.ALL_LINEAR)
    assert everything.keys() >= {path for path, module in model.named_modules()
                                 if isinstance(module, nn.Linear)}
    if cross:
        found = target_layers(model, Target.CROSS_ATTENTION)
        assert len(found) == cross and all(".attn2." in path for path in found)
    else:
        with pytest.raises(LikenessError, match="no layers of the preset `cross-attention`"):
            target_layers(model, Target.CROSS_ATTENTION)


def test_a_rank_larger_than_a_layer_is_refused_by_the_layers_name():
    model = training_models.make_model("sd15").model.diffusion_model
    with pytest.raises(LikenessError, match="`rank` 40 is larger than layer `input_blocks"):
        Adapters(model, LoRARecipe(rank=40), torch.Generator(), training_models.CPU)


def test_first_weights_come_from_the_generator_alone():
    model = training_models.make_model("flux").model.diffusion_model
    made = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        made.append(Adapters(model, LoRARecipe(), torch.Generator().manual_seed(3),
                             training_models.CPU).tensors())
    assert made[0].keys() == made[1].keys()
    assert all(torch.equal(value, made[1][name]) for name, value in made[0].items())
    assert all(bool(value.any()) == name.endswith("down") for name, value in made[0].items())


def test_blocks_are_found_once_each_and_cover_the_adapters():
    for name, count in (("sd15", 38), ("sdxl", 34), ("sd3", 2), ("flux", 4)):
        model = training_models.make_model(name).model.diffusion_model
        found = frozen.blocks(model)
        inside = [module for block in found for module in block.modules()]
        assert len(inside) == len(set(inside)), name
        assert len(found) == count, name
        assert set(target_layers(model, Target.ATTENTION_FEED_FORWARD).values()) <= set(
            inside)


def test_a_transformer_of_one_block_runs_again_with_its_norm_and_projections():
    kinds = {name: {type(block).__name__ for block in frozen.blocks(
        training_models.make_model(name).model.diffusion_model)} for name in ("sd15", "sdxl")}
    assert kinds["sd15"] == {"ResBlock", "SpatialTransformer"}
    assert "BasicTransformerBlock" in kinds["sdxl"]  # where transformers are two blocks long


def test_lists_inside_a_block_and_stages_around_blocks_do_not_hide_the_blocks():
    def block():
        inner = nn.ModuleList([nn.Linear(4, 4), nn.Dropout()])  # as attention outputs are kept
        return nn.ModuleDict({"norm": nn.LayerNorm(4), "out": inner})

    stages = nn.ModuleList([nn.ModuleDict({"blocks": nn.ModuleList([block(), block()]),
                                           "norm": nn.LayerNorm(4)}) for _ in range(2)])
    found = frozen.blocks(nn.ModuleDict({"stages": stages}))
    assert found == [member for stage in stages for member in stage["blocks"]]


def test_layers_of_another_extension_are_refused():
    foreign = type("PackedLinear", (nn.Linear,), {"__module__": "other_pack.layers"})(4, 4)
    with pytest.raises(LikenessError, match="PackedLinear of another extension"):
        frozen.check_layer("blocks.0.proj", foreign)
