"""Cutting faces out and putting them back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from likeness.nodes.faces.align import inverse
from likeness.nodes.restore.paste import cut, paste, sample


def turned(scale: float, degrees: float, shift: tuple[float, float]) -> np.ndarray:
    angle = np.radians(degrees)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, shift])


def smooth(height: int, width: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height) / 40, torch.arange(width) / 40, indexing="ij")
    return torch.stack([x.sin(), y.cos(), (x + y).sin()], -1) / 2 + 0.5


def test_sampling_through_the_identity_changes_nothing():
    picture = smooth(40, 60)
    same = sample(picture, np.eye(2, 3), 40, 60)
    torch.testing.assert_close(same, picture, atol=1e-5, rtol=0)


def test_halving_gives_the_mean_of_each_block():
    picture = torch.rand(16, 24, 3, generator=torch.Generator().manual_seed(0))
    half = sample(picture, np.array([[2.0, 0, 0], [0, 2.0, 0]]), 8, 12)
    means = picture.reshape(8, 2, 12, 2, 3).mean((1, 3))
    torch.testing.assert_close(half, means, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [0.7, 1.0, 2.6])
def test_a_face_cut_out_and_put_back_is_the_same_picture(scale):
    picture = smooth(220, 260)
    to_chip = turned(scale, 9, (20.0, -10.0))
    mask = torch.zeros(220, 260)
    mask[60:120, 60:120] = 1
    back = paste(picture, cut(picture, to_chip, 512), to_chip, mask, 1.0)
    assert float((back - picture).abs().max()) < 0.01


def test_nothing_changes_outside_the_mask_by_a_bit():
    picture = torch.rand(100, 120, 3)
    mask = torch.zeros(100, 120)
    mask[30:60, 40:80] = torch.rand(30, 40)
    result = paste(picture, torch.ones(512, 512, 3), turned(5, 0, (0.0, 0.0)), mask, 1.0)
    assert torch.equal(result[mask == 0], picture[mask == 0])
    assert not torch.equal(result[mask > 0], picture[mask > 0])


def test_nothing_changes_outside_the_chip_where_the_mask_reaches_beyond():
    picture = torch.rand(100, 120, 3)
    result = paste(picture, torch.ones(64, 64, 3), turned(1, 0, (-20.0, -20.0)),
                   torch.ones(100, 120), 1.0)
    outside = torch.ones(100, 120, dtype=torch.bool)
    outside[19:85, 19:85] = False
    assert torch.equal(result[outside], picture[outside])


def test_half_the_strength_is_half_the_change():
    picture, chip = torch.rand(64, 64, 3), torch.ones(512, 512, 3)
    to_chip, mask = turned(8, 0, (0.0, 0.0)), torch.ones(64, 64)
    full, half = (paste(picture, chip, to_chip, mask, strength) for strength in (1.0, 0.5))
    torch.testing.assert_close(half - picture, (full - picture) / 2, atol=1e-6, rtol=0)


def test_the_picture_that_was_given_stays_as_it_was():
    picture = torch.rand(64, 64, 3)
    before = picture.clone()
    paste(picture, torch.ones(512, 512, 3), turned(8, 0, (0.0, 0.0)), torch.ones(64, 64), 1.0)
    assert torch.equal(picture, before)


def test_a_cut_reads_the_place_that_the_matrix_names():
    picture = torch.zeros(100, 100, 3)
    picture[50, 30] = 1
    to_chip = turned(4, 30, (40.0, 60.0))
    chip = cut(picture, to_chip, 512)[..., 0]
    row, column = divmod(int(chip.argmax()), 512)
    expected = to_chip @ (30.5, 50.5, 1)
    assert np.abs(np.array([column + 0.5, row + 0.5]) - expected).max() <= 1.0
    assert np.allclose(inverse(inverse(to_chip)), to_chip)
