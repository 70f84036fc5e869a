"""Which layers learn, at which rank and rate, and what a step leaves out."""

from __future__ import annotations

import adapter_layers
import comfy.ops
import pytest
import torch
import training_models
from adapter_layers import make_adapter, make_adapters, make_linear, make_recipe
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.adapters.group import LAYERS
from likeness.nodes.training.adapters.lora import first_factor
from likeness.nodes.training.recipes.fields import Initialisation

DROPPING = pytest.mark.parametrize("technique", ["lora", "dora", "loha", "lokr"])


@pytest.mark.parametrize("technique", adapter_layers.RECIPES)
def test_every_recipe_has_its_layers(technique):
    recipe = make_recipe(technique)
    assert recipe.method == technique and technique in LAYERS


def test_block_ranks_give_layers_another_rank_or_none():
    network = training_models.make_model("flux").model.diffusion_model
    adapters = make_adapters("lora", network, "attention", rank=4, block_ranks=(
        "double_blocks = 2\nsingle_blocks.1 = 0\ndouble_blocks.0.img_attn = 6"))
    ranks = {path: len(layer.down) for path, layer in adapters.layers.items()}
    assert not any(path.startswith("single_blocks.1") for path in ranks)
    assert ranks["single_blocks.0.linear1"] == 4
    assert ranks["double_blocks.1.img_attn.qkv"] == 2
    assert ranks["double_blocks.0.img_attn.qkv"] == 6
    assert {layer.scale for layer in adapters.layers.values()} == {0.7}


def test_ranks_of_zero_everywhere_are_refused():
    network = training_models.make_model("flux").model.diffusion_model
    with pytest.raises(LikenessError, match="gives every layer rank 0"):
        make_adapters("lokr", network, "attention", block_ranks="blocks = 0")


def test_a_convolution_narrower_than_the_rank_takes_what_it_can_hold():
    network = training_models.make_model("sd15").model.diffusion_model
    adapters = make_adapters("lora", network, "all linear and convolutions", rank=16)
    assert adapters.layers["out.2"].up.shape == (4, 4)  # from 32 channels to 4


def test_the_up_factor_learns_faster_by_the_ratio():
    network = training_models.make_model("flux").model.diffusion_model
    for technique, others in (("lora", 1), ("dora", 2)):
        adapters = make_adapters(technique, network, "attention", plus_ratio=8.0)
        groups = adapters.parameter_groups()
        assert set(groups) == {1.0, 8.0}
        assert len(groups[1.0]) == others * len(groups[8.0])
        assert all(not parameter.any() for parameter in groups[8.0])  # `up` starts at zero


def test_orthogonal_rows_share_nothing_and_are_as_long_as_the_usual_ones():
    generator = torch.Generator().manual_seed(0)
    rows = first_factor(8, 300, Initialisation.ORTHOGONAL, generator)
    assert torch.allclose(rows @ rows.t(), torch.eye(8) / 3, atol=1e-6)
    usual = first_factor(8, 300, Initialisation.KAIMING, generator)
    assert usual.square().sum(1).mean() == pytest.approx(1 / 3, rel=0.1)


def test_both_starts_come_from_the_generator_alone():
    for start in Initialisation:
        torch.manual_seed(1)
        first = first_factor(4, 20, start, torch.Generator().manual_seed(3))
        torch.manual_seed(2)
        again = first_factor(4, 20, start, torch.Generator().manual_seed(3))
        assert torch.equal(first, again)


@DROPPING
@pytest.mark.parametrize("rank", [4, 12])
def test_a_step_leaves_out_the_ranks_that_its_generator_says(technique, rank):
    module, x = make_linear(), torch.randn(3, 24)
    layer = make_adapter(technique, module, rank, rank_dropout=0.5)
    whole = layer(module, x)
    outputs = []
    for seed in (1, 1, 2):
        layer.start_step(torch.Generator().manual_seed(seed))
        outputs.append(layer(module, x))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2], atol=1e-5)
    assert not torch.allclose(outputs[0], whole, atol=1e-5)


# DoRA is not linear in its ranks: what is left out changes the lengths too.
@pytest.mark.parametrize("technique", ["lora", "loha", "lokr"])
def test_left_out_ranks_are_made_up_for_on_average(technique):
    module, x = make_linear(), torch.randn(3, 24)
    layer = make_adapter(technique, module, 4, rank_dropout=0.25)
    generator, mean = torch.Generator().manual_seed(0), 0
    for _ in range(600):
        layer.start_step(generator)
        mean = mean + layer(module, x).detach() / 600
    layer.start_step(None)
    whole = layer(module, x)
    assert (mean - whole).norm() < 0.1 * (whole - module(x)).norm()


@DROPPING
def test_nothing_is_left_out_of_files_probes_and_later_runs(technique):
    module, x = make_linear(), torch.randn(3, 24)
    layer = make_adapter(technique, module, 4, rank_dropout=0.5)
    whole, file = layer(module, x), layer.to_file(torch.float32)
    difference = layer.difference(module.weight)
    layer.start_step(torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(layer(module, x), whole)
    assert torch.equal(layer.difference(module.weight), difference)
    assert all(torch.equal(value, file[name])
               for name, value in layer.to_file(torch.float32).items())
    layer.start_step(None)
    assert torch.equal(layer(module, x), whole)


def test_a_rotation_has_no_ranks_to_leave_out():
    with pytest.raises(LikenessError, match="`rank_dropout` must be 0 with OFT"):
        make_recipe("oft", rank_dropout=0.1)


def test_weights_in_full_leave_the_hosts_own_untouched():
    model = training_models.make_model("flux")
    before = training_models.weights(model)
    adapters = make_adapters("dreambooth", model.model.diffusion_model, "attention")
    adapter_layers.learn(adapters, 0.02)
    with torch.no_grad():
        base = adapter_layers.predict(model, change=False)
        learned = adapter_layers.predict(model, adapters)
        with adapters.switched_off():
            off = adapter_layers.predict(model, adapters)
    assert (learned - base).norm() > 1e-3 * base.norm() and torch.allclose(off, base, atol=1e-5)
    training_models.assert_same_weights(model, before)


def test_weights_in_full_are_float32_copies_of_what_is_stored():
    module = make_linear(comfy.ops.manual_cast, dtype=torch.float16)
    layer = LAYERS["dreambooth"]("layer", module, make_recipe("dreambooth"), torch.Generator(),
                                 training_models.CPU)
    assert layer.weight.dtype == layer.bias.dtype == torch.float32
    assert torch.equal(layer.weight, module.weight.float())
    assert layer.weight.data_ptr() != module.weight.data_ptr()
