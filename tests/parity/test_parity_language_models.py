"""Gradients through the language models that newer networks read their captions with.

Newer hosts add the last sum of such a model's block into the block's input, which autograd refuses.
"""

from __future__ import annotations

import comfy.ops
import comfy.text_encoders.llama as llama
import pytest
import torch
import training_models
from kernel_formulas import formulas_for_kernels
from likeness.nodes.training.adapters.attach import attach
from likeness.nodes.training.adapters.group import Adapters
from likeness.nodes.training.frozen.scope import Scope
from likeness.nodes.training.recipes.adapters import LoRARecipe

MODELS = ("Mistral3Small24B", "Qwen25_3B", "Qwen3_4B", "Qwen25_7BVLI", "Gemma2_2B", "Gemma3_4B")
SIZES = {"vocab_size": 48, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
         "num_attention_heads": 2, "num_key_value_heads": 1}
RECIPE = LoRARecipe(rank=2, target="attention and feed-forward")


def _network(kind: str) -> torch.nn.Module:
    """A small language model of the host's with random weights, without what reads pictures."""
    network = getattr(llama, kind)(dict(SIZES), torch.float32, "cpu",
                                   comfy.ops.manual_cast).model
    training_models.fill(network)
    return network


def _outputs(network: torch.nn.Module, embedded: torch.Tensor) -> torch.Tensor:
    """The last and the middle layer's tokens, which are what conditionings are made of."""
    last, middle = network(None, embeds=embedded, num_tokens=[embedded.shape[1]],
                           intermediate_output=1)[:2]
    return torch.cat([last, middle], -1)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("kind", MODELS)
def test_gradients_equal_the_slope_of_the_hosts_own_forward(kind, checkpointing):
    network, generator = _network(kind), torch.Generator().manual_seed(3)
    embedded = torch.randn(1, 7, SIZES["hidden_size"], generator=generator)
    adapters = Adapters(network, RECIPE, generator, training_models.CPU)
    with torch.no_grad():
        plain = _outputs(network, embedded.clone())
    pull = torch.randn(plain.shape, generator=generator)
    with Scope() as scope, torch.enable_grad():
        attach(scope, network, network, adapters, checkpointing)
        leaf = embedded.clone().requires_grad_()
        found = _outputs(network, leaf * 1)
        (found * pull).sum().backward()
    assert torch.allclose(found.detach(), plain, atol=1e-4)
    assert all(layer.up.grad is not None and layer.up.grad.abs().sum() > 0
               for layer in adapters.layers.values())
    twin = _network(kind).double()
    with formulas_for_kernels(), torch.no_grad():
        for _ in range(3):
            along = torch.randn(embedded.shape, generator=generator, dtype=torch.float64)
            ends = [(_outputs(twin, embedded.double() + sign * 1e-5 * along) * pull).sum()
                    for sign in (1, -1)]
            slope = float(ends[0] - ends[1]) / 2e-5
            assert float((leaf.grad.double() * along).sum()) == pytest.approx(slope, rel=1e-3,
                                                                             abs=1e-3)


def test_the_hosts_model_is_left_as_it_was():
    network = _network("Qwen3_4B")
    with Scope() as scope:
        attach(scope, network, network, None, True)
    assert not any("forward" in vars(module) for module in network.modules())
