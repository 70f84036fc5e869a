"""Adapter layers against PEFT's with the same weights, and where the two forms differ."""

from __future__ import annotations

import adapter_layers
import comfy.lora
import comfy.weight_adapter
import peft
import pytest
import torch
import training_models
from adapter_layers import make_adapter, make_conv, make_linear
from likeness.nodes.training.adapters.layer import frozen_weight

CONV = {"kernel_size": 3, "padding": 1}
KINDS = pytest.mark.parametrize("kind", ["dense", "convolution"])


def _base(kind):
    if kind == "dense":
        return make_linear(), torch.randn(2, 5, 24)
    return make_conv(inputs=16, outputs=32, **CONV), torch.randn(2, 16, 9, 8)


def _wrapped(module, config):
    """PEFT's layer round a plain copy of a module."""
    if isinstance(module, torch.nn.Linear):
        plain = torch.nn.Linear(module.in_features, module.out_features)
    else:
        plain = torch.nn.Conv2d(module.in_channels, module.out_channels, **CONV)
    plain.load_state_dict(module.state_dict())
    return peft.inject_adapter_in_model(config, torch.nn.Sequential(plain))[0]


def _assert_same_output(ours, theirs, base):
    change = (theirs - base).norm()
    assert change > 1e-3 * base.norm()
    assert (ours - theirs).norm() < 1e-5 * change


def _copy(theirs, ours):
    with torch.no_grad():
        theirs.copy_(ours.detach().reshape(theirs.shape))


@KINDS
@pytest.mark.parametrize("stabilised", [False, True], ids=["alpha / r", "alpha / sqrt(r)"])
@pytest.mark.parametrize("rank", [3, 8])
def test_lora_equals_pefts(kind, stabilised, rank):
    module, x = _base(kind)
    layer = make_adapter("lora", module, rank, alpha=5.0, rank_stabilised=stabilised)
    theirs = _wrapped(module, peft.LoraConfig(r=rank, lora_alpha=5.0, target_modules=["0"],
                                              use_rslora=stabilised))
    _copy(theirs.lora_A["default"].weight, layer.down)
    _copy(theirs.lora_B["default"].weight, layer.up)
    _assert_same_output(layer(module, x), theirs(x), module(x))


@KINDS
@pytest.mark.parametrize("rank", [2, 6])
def test_loha_equals_pefts(kind, rank):
    module, x = _base(kind)
    layer = make_adapter("loha", module, rank, alpha=3.0)
    theirs = _wrapped(module, peft.LoHaConfig(r=rank, alpha=3.0, target_modules=["0"]))
    for name in ("w1_a", "w1_b", "w2_a", "w2_b"):
        _copy(getattr(theirs, f"hada_{name}")["default"], getattr(layer, name))
    _assert_same_output(layer(module, x), theirs(x), module(x))


@KINDS
@pytest.mark.parametrize("rank", [1, 64], ids=["low-rank", "whole"])
def test_lokr_equals_pefts_whose_whole_factors_are_scaled_too(kind, rank):
    module, x = _base(kind)
    # The loader takes whole factors as they are, PEFT times alpha / r: equal at 1 alone. Sides
    # below the square of `factor` are cut elsewhere by PEFT; LyCORIS and the loader agree.
    alpha = 2.5 if rank == 1 else 64.0
    layer = make_adapter("lokr", module, rank, alpha=alpha, factor=4)
    theirs = _wrapped(module, peft.LoKrConfig(r=rank, alpha=alpha, target_modules=["0"],
                                              decompose_factor=4))
    for name, factor in layer.named_parameters():
        _copy(getattr(theirs, f"lokr_{name}")["default"], factor)
    _assert_same_output(layer(module, x), theirs(x), module(x))


def test_oft_is_pefts_rotation_on_the_side_of_the_outputs():
    module = make_linear(inputs=40, outputs=24)
    layer = make_adapter("oft", module, block_size=4)
    # PEFT rotates inputs: of a layer with the transposed weight those are our outputs.
    turned = make_linear(inputs=24, outputs=40)
    turned.weight.data.copy_(module.weight.t())
    theirs = _wrapped(turned, peft.OFTConfig(r=0, oft_block_size=4, use_cayley_neumann=False,
                                             target_modules=["0"]))
    rotation = theirs.oft_R["default"]
    skew = layer.blocks - layer.blocks.transpose(1, 2)
    _copy(rotation.weight, skew[:, rotation.rows, rotation.cols])
    x = torch.randn(5, 24)
    changed = module.weight + layer.difference(module.weight)
    _assert_same_output(x @ changed, theirs(x) - turned.bias, x @ module.weight)
    with torch.no_grad():
        y = layer(module, torch.eye(40)) - module.bias
    assert torch.allclose(y.t(), changed, atol=1e-5)


@KINDS
def test_dora_is_the_papers_formula_over_columns(kind):
    module, x = _base(kind)
    layer = make_adapter("dora", module, 3)
    weight = frozen_weight(module, training_models.CPU)
    sum_over = [dim for dim in range(weight.ndim) if dim != 1]

    def lengths(value):
        return value.square().sum(sum_over, keepdim=True).sqrt()

    direction = weight + 0.7 * (layer.up @ layer.down.flatten(1)).reshape(weight.shape)
    magnitude = lengths(weight) + layer.magnitude.reshape(lengths(weight).shape)
    changed = magnitude * direction / lengths(direction)
    if kind == "dense":
        expected = torch.nn.functional.linear(x, changed, module.bias)
    else:
        expected = torch.nn.functional.conv2d(x, changed, module.bias, padding=1)
    _assert_same_output(layer(module, x), expected, module(x))


def test_pefts_row_form_of_dora_would_load_as_other_weights():
    module, x = make_linear(), torch.randn(5, 24)
    theirs = _wrapped(module, peft.LoraConfig(r=3, lora_alpha=3.0, target_modules=["0"],
                                              use_dora=True))
    theirs.train(False)
    adapter_layers.learn(torch.nn.ModuleList([
        theirs.lora_A["default"], theirs.lora_B["default"]]))
    magnitude = theirs.lora_magnitude_vector["default"].weight.detach()
    tensors = {"k.lora_down.weight": theirs.lora_A["default"].weight.detach(),
               "k.lora_up.weight": theirs.lora_B["default"].weight.detach(),
               "k.alpha": torch.tensor(3.0), "k.dora_scale": magnitude[:, None]}
    patch = comfy.lora.load_lora(tensors, {"k": "k"})["k"]
    weight = module.weight.clone()
    loaded = comfy.lora.calculate_weight([(1.0, patch, 1.0, None, None)], weight.clone(), "k")
    wanted = theirs(x) - module(x)
    found = x @ (loaded - weight).t()
    assert (found - wanted).norm() > 0.05 * wanted.norm()
    ours = make_adapter("dora", module, 3)
    tensors = {f"k.{name}": value for name, value in ours.to_file(torch.float32).items()}
    patch = comfy.lora.load_lora(tensors, {"k": "k"})["k"]
    loaded = comfy.lora.calculate_weight([(1.0, patch, 1.0, None, None)], weight.clone(), "k")
    wanted = ours(module, x) - module(x)
    assert (x @ (loaded - weight).t() - wanted).norm() < 1e-5 * wanted.norm()
