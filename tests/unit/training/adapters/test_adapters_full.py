"""Layers that learn in full: where they start from, and what they tell the host of its weights."""

from __future__ import annotations

import comfy.ops
import pytest
import torch
from likeness.nodes.training.adapters.full import FullLayer
from likeness.nodes.training.frozen import layers as frozen
from likeness.nodes.training.recipes.whole import DreamBoothRecipe
from torch import nn

CPU = torch.device("cpu")


def _linear(stored: torch.dtype) -> nn.Module:
    layer = comfy.ops.manual_cast.Linear(24, 40)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return layer.to(stored)


def _full(layer: nn.Module) -> FullLayer:
    return FullLayer("layer", layer, DreamBoothRecipe(), torch.Generator(), CPU)


def test_every_weight_that_is_read_is_released_once(monkeypatch):
    held, read = [], frozen.read_weight

    def counted(module, like):
        weight, bias, _ = read(module, like)
        held.append("stream")
        return weight, bias, "stream"

    def release(module, weight, bias, stream):
        held.remove(stream)

    monkeypatch.setattr(frozen, "read_weight", counted)
    monkeypatch.setattr(frozen, "release", release)
    full = _full(_linear(torch.float32))
    assert held == [] and full.bias is not None


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_a_streamed_patched_weight_starts_where_a_loaded_one_does(stored):
    layer = _linear(stored)
    layer.weight_function = [lambda weight: weight * 1.001]
    loaded = (layer.weight.float() * 1.001).to(stored).float()
    full = _full(layer)
    assert torch.equal(full.weight, loaded) and torch.equal(full.bias, layer.bias.float())


def test_what_is_learned_shares_no_memory_with_the_model():
    layer = _linear(torch.float32)
    before = layer.weight.detach().clone()
    with torch.no_grad():
        _full(layer).weight.zero_()
    assert torch.equal(layer.weight, before)
