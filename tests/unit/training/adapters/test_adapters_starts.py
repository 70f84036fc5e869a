"""What adapters start from, how large they are, and the scale of layers with ranks of their own."""

from __future__ import annotations

import math

import pytest
import torch
import training_models
from adapter_layers import make_adapter, make_adapters, make_linear, make_recipe
from likeness.nodes.training.adapters.group import LAYERS


def _start(technique, module, rank, **fields):
    return LAYERS[technique]("layer", module, make_recipe(technique, rank, **fields),
                             torch.Generator().manual_seed(0), training_models.CPU)


def test_factors_of_hadamard_products_are_spread_as_lycoris_spreads_them():
    layer = _start("loha", make_linear(inputs=600, outputs=500), 8)
    spreads = [float(getattr(layer, name).detach().std())
               for name in ("w1_a", "w1_b", "w2_a", "w2_b")]
    assert spreads == pytest.approx([0.1, 1.0, 0.0, 1.0], rel=0.05)


def test_factors_of_kronecker_products_are_spread_as_lycoris_spreads_them():
    layer = _start("lokr", make_linear(inputs=640, outputs=320), 4, factor=16)
    for factor in (layer.w1, layer.w2_a):  # uniform up to 1 / sqrt(inputs)
        bound = factor.shape[1] ** -0.5
        assert 0.9 * bound < factor.abs().max() <= bound
        assert float(factor.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.15)
    assert not layer.w2_b.any()


@pytest.mark.parametrize(("rank", "whole"), [(19, False), (20, True), (21, True)])
def test_a_kronecker_factor_is_whole_from_half_of_its_longer_side(rank, whole):
    layer = _start("lokr", make_linear(inputs=64, outputs=160), rank, factor=4)  # 40 x 16
    assert layer.whole is whole and hasattr(layer, "w2") is whole


@pytest.mark.parametrize("technique", ["lora", "dora", "loha", "lokr"])
def test_layers_with_ranks_of_their_own_keep_the_scale_and_their_files_say_so(technique):
    network = training_models.make_model("flux").model.diffusion_model
    adapters = make_adapters(technique, network, "attention", rank=4, alpha=2.0, block_ranks=(
        "double_blocks = 2"))
    ranks = set()
    for layer in adapters.layers.values():
        if getattr(layer, "whole", False):
            continue
        tensors = layer.to_file(torch.float32)
        thin = next(value for name, value in tensors.items()
                    if name in ("lora_down.weight", "hada_w1_b", "lokr_w2_b"))
        ranks.add(len(thin))
        assert float(tensors["alpha"]) / len(thin) == pytest.approx(0.5)
        assert layer.scale == 0.5
    assert ranks == {2, 4}


def test_a_rotation_within_its_constraint_is_not_changed_by_it():
    module = make_linear()
    free, held = (make_adapter("oft", module, constraint=limit) for limit in (0.0, 50.0))
    weight = module.weight.float()
    assert torch.equal(held.difference(weight), free.difference(weight))
