"""The copy-paste measure at its ends, whatever the processor rounds."""

from __future__ import annotations

import numpy as np
import pytest
from likeness.nodes.faces.recognise.copying import copy_paste


def _rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 128)).astype(np.float32) / 10


@pytest.mark.parametrize("scale", [1.0, 1e-3, 100.0])
def test_the_reference_itself_is_one_and_the_target_itself_is_minus_one(scale):
    for seed in range(200):
        reference, target = _rows(2, seed) * scale
        assert copy_paste(reference, target[None], reference) == pytest.approx(1.0, abs=1e-6)
        assert copy_paste(target, target[None], reference) == pytest.approx(-1.0, abs=1e-6)


def test_a_rounding_of_the_embedding_moves_it_by_no_more_than_that_rounding():
    reference, target = _rows(2)
    for seed in range(200):
        noise = np.random.default_rng(seed).standard_normal(128) * 1e-7
        shifted = (reference * (1 + noise)).astype(np.float32)
        assert copy_paste(shifted, target[None], reference) == pytest.approx(1.0, abs=1e-5)


def test_it_is_the_published_formula():
    degrees = np.deg2rad([0.0, 20.0, 90.0])  # reference, generated, target in one plane
    reference, generated, target = (np.array([np.cos(a), np.sin(a)]) for a in degrees)
    expected = (np.deg2rad(70) - np.deg2rad(20)) / np.deg2rad(90)
    assert copy_paste(generated, target[None], reference) == pytest.approx(expected, abs=1e-9)
    assert copy_paste(generated, np.stack([target, reference]), reference) == pytest.approx(
        expected / 2, abs=1e-9)  # where target and reference are one, nothing is measured: 0
