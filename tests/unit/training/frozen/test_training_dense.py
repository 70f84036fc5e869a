"""Dense products by either library: the same values, as tensors that networks may write into."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from likeness.nodes.training.frozen import dense
from likeness.nodes.training.frozen import layers as frozen


@pytest.fixture(params=["mkl", "onednn"])
def library(request, monkeypatch):
    """Whichever library this processor would take, both are tried."""
    monkeypatch.setattr(dense, "_mkl_is_slow", lambda: request.param == "onednn")
    return request.param


@pytest.mark.parametrize("shape", [(40, 96), (2, 40, 96), (1, 2, 20, 96)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_is_that_of_torch(library, shape, bias):
    x, weight = torch.randn(*shape), torch.randn(72, 96)
    offset = torch.randn(72) if bias else None
    assert dense._wants_onednn(x, weight) == (library == "onednn")
    y = dense.dense(x, weight, offset)
    assert y.is_contiguous() and y.layout == torch.strided
    assert torch.allclose(y, F.linear(x, weight, offset), atol=1e-4)


def test_the_gradient_of_an_input_is_that_of_torch(library):
    grad, weight = torch.randn(2, 40, 72), torch.randn(72, 96)
    found = dense.dense_input_gradient(grad, weight)
    assert torch.allclose(found, grad @ weight, atol=1e-4)


def test_a_part_of_a_larger_tensor_and_a_turned_weight_are_read_right(library):
    x, weight = torch.randn(2, 40, 200)[..., 50:146], torch.randn(96, 72).t()
    assert torch.allclose(dense.dense(x, weight, None), F.linear(x, weight), atol=1e-4)


@pytest.mark.parametrize("pairs", [1, 3])
def test_products_of_pairs_are_those_of_torch(library, pairs):
    a, b = torch.randn(pairs, 96, 40).transpose(1, 2), torch.randn(pairs, 72, 200)[..., 50:146]
    assert torch.allclose(dense.products(a, b), a @ b.transpose(1, 2), atol=1e-4)


@pytest.mark.parametrize("turned", ["x", "weight", "both"])
def test_no_layout_is_read_slowly(turned, monkeypatch):
    monkeypatch.setattr(dense, "_mkl_is_slow", lambda: True)
    x, weight = torch.randn(64, 100), torch.randn(48, 100)
    if turned != "weight":
        x = torch.randn(100, 64).t()
    if turned != "x":
        weight = torch.randn(48, 200)[:, ::2]
    given = []
    run = torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise",
                        lambda x, weight, *rest: given.extend((x, weight)) or run(
                            x, weight, *rest))
    y = dense.dense(x, weight, None)
    assert all(value.is_contiguous() for value in given)
    assert torch.allclose(y, x @ weight.t(), atol=1e-4)


def test_a_network_may_write_into_what_a_layer_returns(library):
    layer = torch.nn.Linear(96, 72).requires_grad_(False)
    x = torch.randn(2, 40, 96, requires_grad=True)
    y = frozen.frozen_linear(layer, x)
    y += 1
    y.sum().backward()
    assert torch.allclose(x.grad, layer.weight.sum(0).expand_as(x), atol=1e-4)


def test_weights_born_under_inference_mode_are_read(library):
    with torch.inference_mode():
        layer = torch.nn.Linear(96, 72).requires_grad_(False)
    x = torch.randn(40, 96, requires_grad=True)
    frozen.frozen_linear(layer, x).sum().backward()
    assert torch.allclose(x.grad, layer.weight.clone().sum(0).expand_as(x), atol=1e-4)


@pytest.mark.parametrize("x", [torch.randn(40, 96).bfloat16(), torch.randn(4, 96),
                               torch.randn(40, 16)], ids=["bfloat16", "few rows", "thin"])
def test_other_products_stay_with_torch(x, monkeypatch):
    monkeypatch.setattr(dense, "_mkl_is_slow", lambda: True)
    weight = torch.randn(72, x.shape[-1], dtype=x.dtype)
    assert not dense._wants_onednn(x, weight)
    assert torch.equal(dense.dense(x, weight, None), F.linear(x, weight))


@pytest.mark.parametrize(("maker", "slow"), [("AuthenticAMD", True), ("GenuineIntel", False)])
@pytest.mark.parametrize("listed", [True, False], ids=["a list of processors", "no list"])
def test_only_processors_of_amd_leave_mkl(maker, slow, listed, monkeypatch):
    monkeypatch.setattr(Path, "is_file", lambda path: listed)
    monkeypatch.setattr(Path, "read_text", lambda path: f"vendor_id\t: {maker}\n")
    monkeypatch.setattr(platform, "processor", lambda: f"AMD64 Family 25, {maker}")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert dense._mkl_is_slow.__wrapped__() == slow
