"""Immutable attention patches on a real UNet: chaining, cloning, windows."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_patcher
import comfy.supported_models
import pytest
import torch
from comfy.ldm.modules.attention import optimized_attention
from likeness.nodes.errors import LikenessError
from likeness.nodes.patching import (
    AttentionPatch,
    Place,
    SigmaWindow,
    add_to_attention,
    attention_patch,
    cross_attentions,
)

FIRST = Place("input", 1, 0)


@dataclass(frozen=True)
class Shift:
    """Adds a constant where its window is open."""

    amount: torch.Tensor
    window: SigmaWindow = SigmaWindow()

    def __call__(self, q: torch.Tensor, options: Mapping[str, Any]) -> torch.Tensor | None:
        if not self.window.open_at(options["sigmas"]):
            return None
        return self.amount.to(q).expand_as(q)

    def to(self, where: torch.device | torch.dtype) -> Shift:
        return replace(self, amount=self.amount.to(where))


def shift(amount: float, window: SigmaWindow | None = None) -> Shift:
    return Shift(torch.tensor(amount), window or SigmaWindow())


@pytest.fixture(scope="module")
def model() -> Any:
    """A MODEL with two levels, two transformers in each attention block of the second."""
    config = comfy.supported_models.SD15({
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32,
        "num_res_blocks": [1, 1], "channel_mult": [1, 2], "transformer_depth": [1, 2],
        "transformer_depth_output": [1, 1, 2, 2], "transformer_depth_middle": 1,
        "use_spatial_transformer": True, "legacy": False, "context_dim": 768,
        "use_linear_in_transformer": False, "adm_in_channels": None,
        "use_temporal_attention": False})
    config.set_inference_dtype(torch.float32, None)
    network = config.get_model({}, "")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.diffusion_model.parameters():
            parameter.normal_(0, 0.05, generator=generator)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(network, load_device=cpu, offload_device=cpu)


@torch.no_grad()
def predict(model: Any, sigma: float = 1.0) -> torch.Tensor:
    """Run the UNet once with a MODEL's patches."""
    generator = torch.Generator().manual_seed(2)
    options = {**model.model_options["transformer_options"], "cond_or_uncond": [1, 0],
               "sigmas": torch.tensor([sigma])}
    x = torch.randn(2, 4, 8, 8, generator=generator)
    context = torch.randn(2, 5, 768, generator=generator)
    return model.model.diffusion_model(x, torch.tensor([10, 10]), context=context,
                                       transformer_options=options)


def plain_attention(q, k, v, extra_options):
    """Another pack's patch that leaves attention as it is, then doubles it."""
    return 2 * optimized_attention(q, k, v, extra_options["n_heads"])


def test_cross_attentions_are_listed_down_then_up_then_middle(model):
    places = [tuple(layer.place) for layer in cross_attentions(model)]
    assert places == [("input", 1, 0), ("input", 3, 0), ("input", 3, 1),
                      ("output", 0, 0), ("output", 0, 1), ("output", 1, 0), ("output", 1, 1),
                      ("output", 2, 0), ("output", 3, 0), ("middle", 0, 0)]


def test_every_listed_place_is_one_the_host_looks_up(model):
    seen = set()

    def spy(place):
        def patch(q, k, v, extra_options):
            seen.add(place)
            return optimized_attention(q, k, v, extra_options["n_heads"])
        return patch

    patched = model.clone()
    for layer in cross_attentions(model):
        patched.set_model_attn2_replace(spy(layer.place), layer.place.block, layer.place.number,
                                        layer.place.transformer)
    predict(patched)
    assert seen == {layer.place for layer in cross_attentions(model)}


def test_layer_names_and_sizes_are_those_of_the_weights(model):
    weights = model.model.state_dict()
    for layer in cross_attentions(model):
        assert weights[f"{layer.name}.attn2.to_k.weight"].shape == (layer.width, layer.context)


def test_a_model_without_unet_blocks_is_refused_by_name():
    class Transformer(torch.nn.Module):
        pass

    holder = torch.nn.Module()
    holder.diffusion_model = Transformer()
    model = comfy.model_patcher.ModelPatcher(holder, torch.device("cpu"), torch.device("cpu"))
    with pytest.raises(LikenessError, match="This MODEL is no UNet with cross-attention"):
        cross_attentions(model)


def test_a_term_changes_the_clone_and_not_the_model(model):
    before = predict(model)
    patched = add_to_attention(model, {FIRST: shift(1.0)})
    assert not torch.equal(predict(patched), before)
    assert torch.equal(predict(model), before)
    assert "patches_replace" not in model.model_options["transformer_options"]


def test_a_closed_window_changes_no_bit(model):
    window = SigmaWindow(start=5.0, end=2.0)
    patched = add_to_attention(model, {layer.place: shift(1.0, window)
                                       for layer in cross_attentions(model)})
    assert torch.equal(predict(patched, 1.9), predict(model, 1.9))
    assert torch.equal(predict(patched, 5.1), predict(model, 5.1))
    assert not torch.equal(predict(patched, 2.0), predict(model, 2.0))
    assert not torch.equal(predict(patched, 5.0), predict(model, 5.0))


def test_two_additions_sum_and_the_first_result_stays_as_it_was(model):
    once = add_to_attention(model, {FIRST: shift(1.0)})
    single = predict(once)
    twice = add_to_attention(once, {FIRST: shift(0.5)})
    expected = predict(add_to_attention(model, {FIRST: shift(1.5)}))
    torch.testing.assert_close(predict(twice), expected)
    assert torch.equal(predict(once), single)
    assert len(attention_patch(once, FIRST).terms) == 1


def test_another_packs_patch_is_called_first_and_stays(model):
    other = model.clone()
    other.set_model_attn2_replace(plain_attention, *FIRST[:2], FIRST[2])
    alone = predict(other)
    assert torch.equal(predict(add_to_attention(other, {FIRST: shift(0.0)})), alone)
    patched = add_to_attention(other, {FIRST: shift(1.0)})
    assert not torch.equal(predict(patched), alone)
    assert attention_patch(patched, FIRST).previous is plain_attention
    assert attention_patch(other, FIRST) is plain_attention


def test_a_patch_of_the_whole_block_is_not_hidden_by_ours(model):
    block = Place("input", 3, 1)
    other = model.clone()
    other.set_model_attn2_replace(plain_attention, block.block, block.number)
    alone = predict(other)
    assert not torch.equal(alone, predict(model))
    assert torch.equal(predict(add_to_attention(other, {block: shift(0.0)})), alone)


def test_cloning_a_patched_model_shares_the_patch(model):
    patched = add_to_attention(model, {FIRST: shift(1.0)})
    assert attention_patch(patched.clone(), FIRST) is attention_patch(patched, FIRST)
    assert copy.deepcopy(attention_patch(patched, FIRST)) is attention_patch(patched, FIRST)


def test_moving_a_patch_makes_a_new_one(model):
    patch = attention_patch(add_to_attention(model, {FIRST: shift(1.0)}), FIRST)
    moved = patch.to(torch.float16)
    assert moved.terms[0].amount.dtype == torch.float16
    assert patch.terms[0].amount.dtype == torch.float32


def test_moving_reaches_another_packs_patch(model):
    inner = AttentionPatch((shift(1.0),))
    moved = AttentionPatch((), previous=inner).to(torch.float64)
    assert moved.previous.terms[0].amount.dtype == torch.float64


def test_models_of_terms_and_of_the_previous_patch_are_reported():
    class Owner:
        def models(self):
            return [self]

    first, second = Owner(), Owner()
    assert AttentionPatch((first, shift(1.0)), previous=second).models() == [first, second]


def test_appending_to_our_patch_is_refused_with_advice():
    with pytest.raises(LikenessError, match="connect that node before"):
        AttentionPatch((shift(1.0),)).add(plain_attention, weight=1.0)


def test_a_full_window_is_open_at_every_noise_level(model):
    window = SigmaWindow.from_percent(model.get_model_object("model_sampling"), 0.0, 1.0)
    assert (window.start, window.end) == (math.inf, -math.inf)
    assert window.open_at(torch.tensor([0.0])) and window.open_at(torch.tensor([1e9]))


def test_a_window_follows_the_models_noise_schedule(model):
    sampling = model.get_model_object("model_sampling")
    window = SigmaWindow.from_percent(sampling, 0.25, 0.75)
    middle = float(sampling.percent_to_sigma(0.5))
    assert window.open_at(torch.tensor([middle]))
    assert not window.open_at(torch.tensor([float(sampling.percent_to_sigma(0.2))]))
    assert not window.open_at(torch.tensor([float(sampling.percent_to_sigma(0.8))]))


@pytest.mark.parametrize("start,end", [(0.5, 0.5), (0.8, 0.2), (-0.1, 1.0), (0.0, 1.1)])
def test_an_empty_or_outlying_window_is_refused(model, start, end):
    with pytest.raises(LikenessError, match="`start` must lie below `end`"):
        SigmaWindow.from_percent(model.get_model_object("model_sampling"), start, end)


def test_a_window_answers_anew_for_every_step():
    window = SigmaWindow(start=2.0, end=1.0)
    steps = [torch.tensor([sigma]) for sigma in (3.0, 1.5, 1.5, 0.5, 1.2)]  # all alive at once
    answers = [window.open_at(sigmas) for sigmas in steps]
    assert answers == [False, True, True, False, True]
