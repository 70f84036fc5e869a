"""Joining several references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from likeness.nodes.errors import LikenessError
from likeness.nodes.identity.adapter import parse_adapter
from likeness.nodes.identity.blend import (
    Combine,
    Pictures,
    PlusVersion,
    check_embeddings,
    combine,
    face_tokens,
)
from likeness.nodes.identity.projection import project, resample

UNEQUAL = torch.tensor([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def test_mean_lets_longer_embeddings_count_more():
    expected = torch.tensor([[1.5, 0.5, 0.0]])
    torch.testing.assert_close(combine(UNEQUAL, Combine.MEAN, normed=False), expected)


def test_norm_average_scales_each_embedding_and_not_each_column():
    expected = torch.tensor([[0.5, 0.5, 0.0]])
    torch.testing.assert_close(combine(UNEQUAL, Combine.NORM_AVERAGE, normed=False), expected)


@pytest.mark.parametrize("how", list(Combine))
def test_an_adapter_of_unit_embeddings_gets_unit_embeddings(how):
    joined = combine(UNEQUAL, how, normed=True)
    torch.testing.assert_close(joined.norm(dim=1), torch.ones(len(joined)))


def test_concat_keeps_every_embedding():
    assert torch.equal(combine(UNEQUAL, Combine.CONCAT, normed=False), UNEQUAL)


def test_weights_shift_the_average_and_zero_leaves_a_photo_out():
    weights = torch.tensor([1.0, 0.0])
    joined = combine(UNEQUAL, Combine.MEAN, normed=False, weights=weights)
    torch.testing.assert_close(joined, UNEQUAL[:1])


def test_one_reference_gives_the_same_tokens_however_it_is_combined(sd15, tools):
    adapter = parse_adapter(tools["adapter"](sd15), "a.bin")
    one = torch.randn(1, 512)
    tokens = [face_tokens(adapter, one, how, normed=True).face for how in Combine]
    torch.testing.assert_close(tokens[0], tokens[1])
    torch.testing.assert_close(tokens[0], tokens[2])


def test_concat_puts_the_tokens_of_each_photo_side_by_side(sd15, tools):
    adapter = parse_adapter(tools["adapter"](sd15), "a.bin")
    faces = torch.randn(3, 512)
    tokens = face_tokens(adapter, faces, Combine.CONCAT, normed=False)
    expected = torch.cat([project(adapter.projection, face[None]) for face in faces], dim=1)
    torch.testing.assert_close(tokens.face, expected)
    assert tokens.nobody.shape == tokens.face.shape == (1, 12, 768)


def test_nobody_is_the_projection_of_a_zero_embedding(sd15, tools):
    adapter = parse_adapter(tools["adapter"](sd15), "a.bin")
    tokens = face_tokens(adapter, torch.randn(2, 512), Combine.MEAN, normed=True)
    assert torch.equal(tokens.nobody, project(adapter.projection, torch.zeros(1, 512)))
    assert tokens.nobody.abs().max() > 0


def test_plus_looks_at_every_photo_and_averages_what_it_saw(sd15, tools):
    adapter = parse_adapter(tools["adapter"](sd15, plus=True), "a.bin")
    faces, pictures = torch.randn(2, 512), Pictures(torch.randn(2, 10, 96), torch.randn(1, 10, 96))
    tokens = face_tokens(adapter, faces, Combine.MEAN, normed=False, pictures=pictures,
                         plus=PlusVersion(shortcut=False))
    face = project(adapter.projection, faces.mean(0, keepdim=True))
    seen = [resample(adapter.projection, face, picture[None]) for picture in pictures.references]
    torch.testing.assert_close(tokens.face, (seen[0] + seen[1]) / 2)
    nobody = project(adapter.projection, torch.zeros(1, 512))
    torch.testing.assert_close(tokens.nobody, resample(adapter.projection, nobody, pictures.blank))


@pytest.mark.parametrize("embeddings,names,words", [
    (np.zeros((0, 512)), [], "no reference photos"),
    (np.ones((1, 128)), ["a.jpg"], "width 512, the recogniser gives 128"),
    (np.stack([np.ones(512), np.zeros(512)]), ["a.jpg", "b.jpg"], "embedding of b.jpg is empty"),
    (np.full((1, 512), np.nan), ["a.jpg"], "embedding of a.jpg is empty")])
def test_an_embedding_that_shows_nobody_is_never_injected(embeddings, names, words):
    with pytest.raises(LikenessError, match=words):
        check_embeddings(embeddings, names, 512)
