"""Attention and rotation of training steps: values, gradients, and what the graph keeps."""

from __future__ import annotations

import comfy.ldm.flux.math
import comfy.ldm.modules.attention
import comfy.ldm.qwen_image.model
import pytest
import torch
import torch.nn.functional as F
from likeness.nodes.training.frozen import attention
from likeness.nodes.training.frozen.host_operations import attach_operations
from likeness.nodes.training.frozen.rotary import attach_rotary
from likeness.nodes.training.frozen.scope import Scope

HEADS = 3


def _inputs(rows, keys, width=10, offset=0.0, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(5)
    return [(torch.randn(2, length, HEADS * width, generator=generator) + shift).to(dtype)
            .requires_grad_() for length, shift in ((rows, 0.0), (keys, 0.0), (keys, offset))]


def _split(value):
    return value.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def _errors(run, inputs):
    """Relative errors of the output and of each gradient against double precision."""
    exact = [value.detach().double().requires_grad_() for value in inputs]
    truth = F.scaled_dot_product_attention(*map(_split, exact)).transpose(1, 2).flatten(2)
    generator = torch.Generator().manual_seed(6)
    slope = torch.randn(truth.shape, generator=generator).bfloat16()
    true = [truth, *torch.autograd.grad(truth, exact, slope.double())]
    y = run(*inputs)
    found = [y, *torch.autograd.grad(y, inputs, slope.to(y.dtype))]
    assert [value.shape for value in found] == [value.shape for value in true]
    assert all(value.dtype == inputs[0].dtype for value in found)
    return [((ours - real).norm() / real.norm()).item()
            for ours, real in zip(found, true, strict=True)]


def _torch_attention(q, k, v):
    return comfy.ldm.modules.attention.attention_pytorch(q, k, v, HEADS)


def _training_attention(q, k, v):
    return attention.training_attention(_torch_attention, q, k, v, HEADS)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32], ids=["with", "without"])
@pytest.mark.parametrize("tile", [1 << 19, 2500, 300, 7],
                         ids=["all heads", "two heads", "some rows", "one row"])
@pytest.mark.parametrize("keys", [30, 41], ids=["self", "cross"])
def test_bfloat16_attention_on_a_cpu_is_as_exact_as_its_format(keys, tile, kind, monkeypatch):
    monkeypatch.setattr(attention, "_TILE", tile)
    monkeypatch.setattr(attention, "_format", lambda: kind)  # with and without fast bfloat16
    assert max(_errors(_training_attention, _inputs(30, keys))) < 4e-3


def test_values_that_share_an_offset_cost_no_exactness():
    # Subtracting the rounded output, as torch's own backward does, costs 1.9e-2 here.
    assert max(_errors(_training_attention, _inputs(200, 200, offset=4.0))) < 4e-3


@pytest.mark.parametrize("split_in", [False, True])
@pytest.mark.parametrize("split_out", [False, True])
def test_heads_come_and_go_in_the_hosts_two_layouts(split_in, split_out):
    inputs = _inputs(12, 9)
    given = [_split(value) for value in inputs] if split_in else inputs
    y = attention.training_attention(_torch_attention, *given, HEADS, skip_reshape=split_in,
                                     skip_output_reshape=split_out)
    plain = _training_attention(*inputs)
    assert torch.equal(y.transpose(1, 2).flatten(2) if split_out else y, plain)


def test_attention_gives_the_same_with_and_without_a_graph():
    inputs = _inputs(12, 9)
    with torch.no_grad():
        plain = _training_attention(*inputs)
    assert torch.equal(_training_attention(*inputs), plain)


def test_the_graph_keeps_query_key_and_value_alone():
    inputs, kept = _inputs(64, 64), {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _training_attention(*inputs)
    assert sum(kept.values()) == sum(value.nbytes for value in inputs)


@pytest.mark.parametrize("case", ["float32", "mask", "one key set for all photos"])
def test_all_other_attention_is_torchs_own(case):
    q, k, v = _inputs(12, 9, dtype=torch.float32 if case == "float32" else torch.bfloat16)
    mask = torch.zeros(2, 12, 9, dtype=q.dtype) if case == "mask" else None
    if mask is not None:
        mask[:, :, 4:] = -torch.inf
    q, k, v = map(_split, (q, k, v))
    if case.startswith("one"):
        k, v = k[:1], v[:1]
    y = attention.training_attention(_torch_attention, q, k, v, HEADS, mask, skip_reshape=True)
    own = comfy.ldm.modules.attention.attention_pytorch(q, k, v, HEADS, mask, skip_reshape=True)
    assert torch.equal(y, own) and "Products" not in type(y.grad_fn).__name__


@pytest.mark.parametrize("option", [{"scale": 1.0}, {"enable_gqa": True}])
def test_what_newer_hosts_ask_of_torchs_attention_goes_there(option, monkeypatch):
    asked = {}
    monkeypatch.setattr(comfy.ldm.modules.attention, "attention_pytorch",
                        lambda *args, **kwargs: asked.update(kwargs))
    attention.training_attention(_torch_attention, *_inputs(12, 9), HEADS, **option)
    assert option.items() <= asked.items()


def _matrices(rows):
    ids = torch.arange(rows, dtype=torch.float32)[None]
    return comfy.ldm.flux.math.rope(ids, 8, 10_000)[:, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_of_a_rotation_is_the_hosts(dtype):
    matrices = _matrices(5)
    q, k = (torch.randn(2, HEADS, 5, 8).to(dtype).requires_grad_() for _ in range(2))
    grads = [torch.randn(2, HEADS, 5, 8).to(dtype) for _ in range(2)]
    with Scope() as scope:
        attach_operations(scope)  # on newer hosts it has a backward pass under this alone
        expected = comfy.ldm.flux.math.apply_rope(q, k, matrices)
        truth = torch.autograd.grad(expected, (q, k), grads)
        attach_rotary(scope)
        turned = comfy.ldm.flux.math.apply_rope(q, k, matrices)
        assert all("Rotated" in type(value.grad_fn).__name__ for value in turned)
        ours = torch.autograd.grad(turned, (q, k), grads)
    bound = 1e-6 if dtype == torch.float32 else 4e-3
    assert all(torch.equal(*pair) for pair in zip(turned, expected, strict=True))
    for mine, true in zip(ours, truth, strict=True):
        assert (mine - true).norm() <= bound * true.norm()


@pytest.mark.parametrize("home", [comfy.ldm.flux.math, comfy.ldm.qwen_image.model],
                         ids=["its own module", "one that imports it"])
def test_the_hosts_rotation_is_put_back(home):
    before = home.apply_rope1
    with pytest.raises(KeyError), Scope() as scope:
        attach_rotary(scope)
        assert home.apply_rope1 is not before
        raise KeyError
    assert home.apply_rope1 is before
