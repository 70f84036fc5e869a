"""Telling, loading and calling restorers."""

from __future__ import annotations

import sys

import pytest
import torch
from likeness.nodes.errors import LikenessError, MissingModelError
from likeness.nodes.restore import registry
from likeness.nodes.restore.registry import ARCHITECTURES, detect, load_network, restore_chip

BY_ID = {architecture.id: architecture for architecture in ARCHITECTURES}


def keys_of(name: str) -> dict[str, torch.Tensor]:
    return {key: torch.zeros(1) for key in BY_ID[name].keys}


@pytest.mark.parametrize("name", BY_ID)
def test_each_restorer_is_told_from_its_tensors(name):
    assert detect(keys_of(name), "renamed.pth").id == name


def test_a_file_that_is_no_restorer_is_named_in_the_error():
    with pytest.raises(LikenessError, match="upscaler.pth"):
        load_network({"conv.weight": torch.zeros(1)}, "upscaler.pth")


def test_tensors_that_do_not_fit_are_an_error_and_not_a_crash():
    with pytest.raises(LikenessError, match="broken.pth"):
        load_network(keys_of("GFPGAN"), "broken.pth")


def test_codeformer_without_its_package_says_which_one_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", None)
    with pytest.raises(MissingModelError, match="spandrel-extra-arches"):
        load_network(keys_of("CodeFormer"), "codeformer.pth")


def test_gfpgan_is_called_without_random_noise_and_intermediate_pictures(same):
    chips = torch.rand(1, 3, 512, 512) * 2 - 1
    assert torch.equal(BY_ID["GFPGAN"].call(same, chips, 0.5), chips)
    assert same.seen["return_rgb"] is False
    assert same.seen["randomize_noise"] is False


def test_codeformer_gets_the_fidelity_that_was_asked_for():
    class CodeFormerLike(torch.nn.Module):
        def forward(self, x, weight=0.5):
            return x * weight, None

    chips = torch.ones(1, 3, 8, 8)
    assert torch.equal(BY_ID["CodeFormer"].call(CodeFormerLike(), chips, 0.25), chips * 0.25)


def test_networks_see_minus_one_to_one_and_lose_no_dark_half(same):
    chip = torch.linspace(0, 1, 512 * 512 * 3).reshape(512, 512, 3)
    restored = restore_chip(lambda chips: same(chips, randomize_noise=False)[0], chip)
    assert (same.seen["low"], same.seen["high"]) == (-1.0, 1.0)
    torch.testing.assert_close(restored, chip, atol=1e-6, rtol=0)


def test_values_that_are_not_numbers_are_an_error():
    with pytest.raises(LikenessError, match="not numbers"):
        restore_chip(lambda chips: chips * float("nan"), torch.zeros(512, 512, 3))


def test_a_network_of_another_size_is_an_error():
    with pytest.raises(LikenessError, match="512 x 512"):
        restore_chip(lambda chips: chips[..., ::2, ::2], torch.zeros(512, 512, 3))


def test_only_faces_of_512_pixels_are_given_to_a_network():
    with pytest.raises(ValueError, match="chip"):
        restore_chip(lambda chips: chips, torch.zeros(256, 256, 3))


def test_a_small_restoreformer_loads_from_wrapped_weights(small_restoreformer):
    architecture, network = load_network({"params_ema": small_restoreformer}, "small.pth")
    assert architecture.id == "RestoreFormer"
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.training


def test_none_is_a_restorer_that_was_not_chosen():
    assert not registry.NONE.chosen
