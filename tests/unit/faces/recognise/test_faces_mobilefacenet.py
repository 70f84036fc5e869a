"""The second vendored recogniser is the TensorFlow Lite file it was converted from, on torch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from likeness.nodes.faces.recognise import mobilefacenet
from likeness.nodes.faces.recognise.backends import backend
from likeness.nodes.faces.recognise.embed import embed, similarity

ID = mobilefacenet.ID
PEOPLE = {"obama": "Obama", "obama3": "Obama", "biden": "Biden", "biden2": "Biden",
          "astronaut": "Collins"}


@pytest.fixture(scope="module")
def truth(assets):
    with np.load(assets / "mobilefacenet_tflite.npz") as file:
        return file["crops"], file["embeddings"]


def tensors(crops: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(crops.astype(np.float32)).permute(0, 3, 1, 2)


def test_the_network_gives_what_the_tflite_file_gives(truth):
    crops, expected = truth
    with torch.no_grad():
        found = mobilefacenet._network()(tensors(crops)).numpy()
    assert np.linalg.norm(expected, axis=1).min() > 20  # so 1e-4 is a part in 200 000
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


def test_an_embedding_is_the_sum_of_both_sides_of_the_face(truth):
    crops, _ = truth
    with torch.no_grad():
        rows = mobilefacenet._network()(tensors(np.stack([crops[0], crops[0][:, ::-1]])))
    unit = torch.nn.functional.normalize(rows, dim=1).sum(0).numpy()
    found = mobilefacenet.embed_crop(crops[0])
    np.testing.assert_allclose(found, unit, atol=1e-5)
    mirrored = mobilefacenet.embed_crop(np.ascontiguousarray(crops[0][:, ::-1]))
    assert similarity(found, mirrored, ID) == pytest.approx(1, abs=1e-5)


def test_the_same_person_is_on_one_side_of_the_cut_and_others_on_the_other(seen):
    cut = backend(ID).same_person
    rows = {name: embed(*seen(name), ID) for name in PEOPLE}
    for a, b in itertools.combinations(PEOPLE, 2):
        alike = similarity(rows[a], rows[b], ID)
        assert (alike > cut + 0.1) if PEOPLE[a] == PEOPLE[b] else (alike < cut - 0.1), (a, b, alike)


def test_gradients_reach_the_picture_and_agree_with_differences(truth):
    crops, _ = truth
    network = mobilefacenet.differentiable_network(torch.device("cpu"))
    network = type(network)({name: value.double() for name, value in network.named_buffers()})
    picture = tensors(crops[:1]).double().requires_grad_()
    target = mobilefacenet.both_sides(network, tensors(crops[1:2]).double()).detach()

    def alike(value: torch.Tensor) -> torch.Tensor:
        return torch.cosine_similarity(mobilefacenet.both_sides(network, value), target).sum()

    (slope,) = torch.autograd.grad(alike(picture), picture)
    step = 1e-3 * slope / slope.norm()  # short, so that few units of PReLU cross zero
    with torch.no_grad():
        change = alike(picture + step) - alike(picture - step)
    assert (2 * slope * step).sum().item() == pytest.approx(change.item(), rel=1e-3)


def test_the_network_serves_inside_and_outside_of_inference_mode(truth):
    crops, _ = truth
    mobilefacenet._network.cache_clear()
    with torch.inference_mode():
        inside = mobilefacenet.embed_crop(crops[2])
    np.testing.assert_array_equal(mobilefacenet.embed_crop(crops[2]), inside)
