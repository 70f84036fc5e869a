"""How much each reference photo counts."""

from __future__ import annotations

import numpy as np
import pytest
from likeness.nodes.errors import LikenessError
from likeness.nodes.identity.weighting import Weighting, photo_weights
from likeness.nodes.sockets import Face, HeadPose, Photo


def photo(width: float = 300.0, yaw: float = 0.0) -> Photo:
    mesh = np.zeros((478, 3), np.float32)
    face = Face((0.0, 0.0, width, 1.2 * width), mesh, mesh, HeadPose(yaw, 0.0, 0.0))
    return Photo(file=None, name="a.jpg", face=face)


def test_equal_weights_need_no_faces():
    weights = photo_weights([Photo(file=None, name="a"), photo()], Weighting.EQUAL)
    np.testing.assert_allclose(weights, [0.5, 0.5])


def test_a_turned_head_counts_by_the_squared_cosine():
    weights = photo_weights([photo(), photo(yaw=-60.0)], Weighting.QUALITY)
    np.testing.assert_allclose(weights, [0.8, 0.2], rtol=1e-5)


def test_a_small_face_counts_by_its_width_and_large_ones_count_alike():
    weights = photo_weights([photo(224.0), photo(2000.0), photo(112.0)], Weighting.QUALITY)
    np.testing.assert_allclose(weights, [0.4, 0.4, 0.2], rtol=1e-5)


def test_profiles_alone_still_average():
    weights = photo_weights([photo(yaw=90.0), photo(yaw=-100.0)], Weighting.QUALITY)
    np.testing.assert_allclose(weights, [0.5, 0.5], rtol=1e-5)


def test_quality_without_a_known_face_names_the_photo():
    with pytest.raises(LikenessError, match="`b.jpg` has no known face to weigh"):
        photo_weights([photo(), Photo(file=None, name="b.jpg")], Weighting.QUALITY)
