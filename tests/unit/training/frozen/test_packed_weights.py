"""Weights in a host's packed class, which call themselves something else than they are."""

from __future__ import annotations

import comfy.ops
import pytest
import torch
import training_models
from likeness.nodes.training.frozen import layers as frozen
from likeness.nodes.training.frozen import quantise
from likeness.nodes.training.frozen.formats import coarsest_format
from likeness.nodes.training.frozen.scope import Scope
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.recipes.fields import BaseWeights
from likeness.nodes.training.samples.data import load_samples
from likeness.nodes.training.steps.plan import plan_before
from quantised_runs import KINDS

CPU = training_models.CPU


class _Packed(torch.Tensor):
    """A weight as codes in e4m3 that calls itself bfloat16, as newer hosts' packed class does."""

    @staticmethod
    def __new__(cls, codes):
        return torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=torch.bfloat16)

    def __init__(self, codes):
        self.codes = codes

    def __tensor_flatten__(self):
        return ["codes"], None

    def dequantize(self):
        return self.codes.float()

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        assert operation in (torch.ops.aten.detach.default, torch.ops.aten._to_copy.default)
        return cls(args[0].codes.clone())


def _packed_model():
    """A MODEL with one large layer and one small one of packed weights."""
    model = training_models.make_model("flux", dtype=torch.bfloat16)
    network = model.model.diffusion_model
    network.extra = small = comfy.ops.manual_cast.Linear(16, 24)
    training_models.fill(small)
    large = network.single_blocks[0].linear1
    for layer in (large, small):
        layer._parameters["weight"] = _Packed(layer.weight.detach().to(torch.float8_e4m3fn))
    return model, large, small


def test_a_packed_weight_that_calls_itself_bfloat16_is_not_coded_again():
    model, large, _ = _packed_model()
    network = model.model.diffusion_model
    with Scope() as scope:
        held = quantise.quantise_layers(scope, model, network, BaseWeights.FP8, CPU)
        assert frozen.QUANTISED not in vars(large) and isinstance(large.weight, _Packed)
    everything = sum(quantise._is_large(module) for module in network.modules())
    assert held.layers == everything - 1


@KINDS
@pytest.mark.parametrize("patched", [False, True])
def test_the_bytes_of_packed_weights_are_those_of_their_codes(kind, patched):
    model, _, small = _packed_model()
    network = model.model.diffusion_model
    if patched:
        model.add_patches({"diffusion_model.extra.weight": ("diff", (torch.ones(24, 16),))})
    whole = quantise.device_bytes(model, network, kind)
    with Scope() as scope:
        held = quantise.quantise_layers(scope, model, network, kind, CPU)
        assert small.weight.dtype is (torch.float32 if patched else torch.bfloat16)
    assert whole == held.bytes + held.kept_bytes
    skipped = quantise.device_bytes(model, network, kind, [small])
    assert whole - skipped == small.bias.nbytes + (4 if patched else 1) * small.weight.numel()


def test_the_plan_counts_packed_weights_by_their_codes(tmp_path):
    packed, large, small = _packed_model()
    plain = training_models.make_model("flux", dtype=torch.bfloat16)
    plain.model.diffusion_model.extra = comfy.ops.manual_cast.Linear(16, 24, dtype=torch.bfloat16)
    small.bias = plain.model.diffusion_model.extra.bias
    training_set, recipe = training_models.make_training_set(tmp_path, "flux"), LoRARecipe(rank=4)
    samples = load_samples(plain.model, training_set, recipe, CPU)
    more, less = (plan_before(model.model, recipe, samples) for model in (plain, packed))
    saved = large.weight.numel() + small.weight.numel()
    assert more.stored_bytes - less.stored_bytes == saved
    assert more.code_stored_bytes - less.code_stored_bytes == saved


def test_packed_weights_count_as_coarser_than_what_they_call_themselves():
    weight = _Packed(torch.zeros(4, 4).to(torch.float8_e4m3fn))
    assert weight.dtype is torch.bfloat16
    assert coarsest_format([weight, torch.zeros(1)]) is torch.float8_e4m3fn
