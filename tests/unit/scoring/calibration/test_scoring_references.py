"""Several photos as one yardstick."""

from __future__ import annotations

import numpy as np
import pytest
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces.recognise.centre import robust_centre
from likeness.nodes.faces.recognise.embed import centre, similarity
from likeness.nodes.scoring.calibration.references import nearness, own_spread

BACKENDS = ("dlib", "buffalo_l")


def cloud(count: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    middle = np.eye(1, 64)[0]
    return (middle + 0.05 * random.normal(size=(count, 64))).astype(np.float32)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_odd_photo_does_not_drag_the_centre(backend):
    rows = cloud(6)
    odd = np.concatenate([rows, -np.ones((1, 64), np.float32)])
    before = robust_centre(rows, backend)
    moved = np.linalg.norm(robust_centre(odd, backend) - before)
    assert moved < 0.4 * np.linalg.norm(centre(odd, backend) - before)


def test_how_far_an_odd_photo_lies_does_not_matter():
    rows = cloud(6)
    near, far = (robust_centre(np.concatenate([rows, np.full((1, 64), -size, np.float32)]))
                 for size in (1.0, 1000.0))
    assert np.linalg.norm(near - far) < 0.02


def test_the_centre_has_the_least_sum_of_distances():
    rows = cloud(7, seed=1)
    middle = robust_centre(rows)

    def total(point):
        return np.linalg.norm(rows - point, axis=1).sum()

    random = np.random.default_rng(2)
    assert all(total(middle) <= total(middle + 1e-3 * random.normal(size=64)) for _ in range(50))


def test_a_photo_given_several_times_holds_the_centre():
    rows = np.concatenate([np.repeat(cloud(1), 4, 0), cloud(3, seed=3)])
    assert np.allclose(robust_centre(rows), rows[0], atol=1e-4)


@pytest.mark.parametrize("count", [1, 2])
def test_of_one_or_two_photos_the_centre_is_the_mean(count):
    rows = cloud(count)
    assert np.allclose(robust_centre(rows), rows.mean(0))


def test_where_cosine_counts_the_centre_is_a_unit_vector():
    rows = cloud(5) * np.arange(1, 6, dtype=np.float32)[:, None]
    assert np.linalg.norm(robust_centre(rows, "buffalo_l")) == pytest.approx(1, abs=1e-6)
    assert np.allclose(robust_centre(rows, "buffalo_l"), robust_centre(cloud(5), "buffalo_l"),
                       atol=1e-6)


def test_no_photos_have_no_centre():
    with pytest.raises(LikenessError, match="keep at least one"):
        robust_centre(np.zeros((0, 128), np.float32))


def test_one_photo_has_no_spread():
    assert own_spread(cloud(1)) is None


def test_best_mean_and_nearest_are_of_the_single_photos():
    rows = cloud(4)
    found = nearness(rows[2], rows)
    values = [similarity(rows[2], row) for row in rows]
    assert (found.best, found.nearest) == (pytest.approx(1.0), 2)
    assert found.mean == pytest.approx(np.mean(values))
