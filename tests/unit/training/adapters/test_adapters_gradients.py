"""Every technique's live layer against the changed weight: values, gradients, what is kept."""

from __future__ import annotations

import math

import adapter_layers
import comfy.ops
import pytest
import torch
import torch.nn.functional as F
import training_models
from adapter_layers import make_adapter, make_adapters, make_conv, make_linear
from likeness.nodes.training.adapters.layer import frozen_weight
from likeness.nodes.training.frozen.layers import pad_input

EVERY = pytest.mark.parametrize("technique", adapter_layers.RECIPES)
_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def _truth(layer, module, x):
    """The layer as plain operations on a weight that autograd follows."""
    weight = frozen_weight(module, training_models.CPU)
    weight = weight + layer.difference(weight)
    bias = getattr(layer, "bias", None)
    if bias is None and module.bias is not None:
        bias = module.bias.float()
    if x.ndim == weight.ndim and weight.ndim > 2:
        x, padding = pad_input(module, x)
        return _CONVOLVE[weight.ndim - 2](x, weight, bias, module.stride, padding, module.dilation)
    return F.linear(x, weight, bias)


def _compare(layer, module, x, tolerance):
    x.requires_grad_()
    inputs = [x, *layer.parameters()]
    truth_x = x.detach().float().requires_grad_()
    expected = _truth(layer, module, truth_x)
    seed = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9))
    truth = torch.autograd.grad(expected, [truth_x, *inputs[1:]], seed)
    y = layer(module, x)
    assert (y - expected).norm() < tolerance * expected.norm()
    for mine, true in zip(torch.autograd.grad(y, inputs, seed.to(y.dtype)), truth, strict=True):
        assert (mine - true).norm() < tolerance * true.norm()


@EVERY
@pytest.mark.parametrize("rank", [2, 12])
def test_a_dense_layer_has_values_and_gradients_of_the_changed_weight(technique, rank):
    module = make_linear()
    _compare(make_adapter(technique, module, rank), module, torch.randn(2, 5, 24), 1e-5)


@EVERY
@pytest.mark.parametrize("settings", adapter_layers.CONVOLUTIONS, ids=str)
def test_a_convolution_has_values_and_gradients_of_the_changed_weight(technique, settings):
    module = make_conv(**settings)
    _compare(make_adapter(technique, module), module, torch.randn(2, 8, 9, 8), 1e-5)


@EVERY
@pytest.mark.parametrize("dims", [1, 3])
def test_convolutions_of_other_dimensions_learn_too(technique, dims):
    module = make_conv(dims=dims, kernel_size=3, padding=1)
    _compare(make_adapter(technique, module), module, torch.randn(2, 8, *(5, 6, 7)[:dims]), 1e-5)


@EVERY
@pytest.mark.parametrize("rank", [2, 12])
def test_gradients_in_half_precision_are_those_of_float32_up_to_rounding(technique, rank):
    module = make_linear(comfy.ops.manual_cast, dtype=torch.bfloat16)
    x = torch.randn(64, 24).to(torch.bfloat16)
    layer = make_adapter(technique, module, rank)
    _compare(layer, module, x, 0.02)
    assert all(value.dtype == torch.float32 for value in layer.parameters())
    module = make_conv(comfy.ops.manual_cast, kernel_size=3, padding=1).to(torch.bfloat16)
    x = torch.randn(2, 8, 9, 8).to(torch.bfloat16)
    _compare(make_adapter(technique, module, rank), module, x, 0.02)


@EVERY
def test_gradients_reach_the_adapter_where_the_input_needs_none(technique):
    module, x = make_linear(), torch.randn(3, 24)
    layer = make_adapter(technique, module)
    truth = torch.autograd.grad(_truth(layer, module, x).square().sum(), list(layer.parameters()))
    ours = torch.autograd.grad(layer(module, x).square().sum(), list(layer.parameters()))
    for mine, true in zip(ours, truth, strict=True):
        assert (mine - true).norm() < 1e-5 * true.norm()


@EVERY
def test_the_graph_keeps_no_frozen_weight(technique):
    kept: dict[int, int] = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    for module, x in ((make_linear(comfy.ops.manual_cast, 256, 256, torch.bfloat16),
                       torch.randn(4, 256)),
                      (make_conv(comfy.ops.manual_cast, 2, 64, 64, kernel_size=3),
                       torch.randn(1, 64, 4, 4))):
        layer, weight = make_adapter(technique, module), math.prod(module.weight.shape)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            y = layer(module, x.requires_grad_())
        own = {value.untyped_storage().data_ptr() for value in layer.parameters()}
        others = sum(count for place, count in kept.items() if place not in own)
        assert others < weight  # a quarter of the weight in float32, half of it in bfloat16
        y.sum().backward()
        kept.clear()


@EVERY
def test_the_network_may_write_into_what_a_layer_returns(technique):
    for rank in (2, 12):
        module, x = make_linear(), torch.randn(2, 3, 24, requires_grad=True)
        y = make_adapter(technique, module, rank)(module, x)
        y += 1.0
        y.sum().backward()


@EVERY
@pytest.mark.parametrize("name", ["sd15", "flux"])
def test_checkpointed_blocks_give_the_same_gradients(technique, name):
    model = training_models.make_model(name)
    dropout = {} if technique in ("oft", "dreambooth") else {"rank_dropout": 0.5}
    target = "attention and feed-forward" if name == "flux" else "attention"
    adapters = adapter_layers.learn(make_adapters(
        technique, model.model.diffusion_model, target, **dropout), 0.02)
    gradients = []
    for checkpointing in (False, True):
        adapters.start_step(torch.Generator().manual_seed(1))
        adapters.zero_grad(set_to_none=True)
        adapter_layers.predict(model, adapters, checkpointing)
        gradients.append([parameter.grad for parameter in adapters.parameters()
                          if parameter.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    total = torch.cat([value.flatten() for value in gradients[0]]).norm()
    for plain, again in zip(*gradients, strict=True):
        assert (plain - again).norm() < 1e-5 * total


def test_large_ranks_form_the_weight_and_small_ones_do_not():
    module = make_linear()  # 24 to 40: equal cost at rank 5
    assert not make_adapter("lora", module, 4).materialise
    assert make_adapter("lora", module, 5).materialise
    assert make_adapter("loha", module, 2).runs_thin(torch.float32)
    assert not make_adapter("loha", module, 3).runs_thin(torch.float32)
    assert make_adapter("loha", module, 3).runs_thin(torch.bfloat16)
