"""Alignment puts the five points on the template and finds the way back."""

from __future__ import annotations

import numpy as np
import pytest
from likeness.nodes.faces import align
from likeness.nodes.faces.detect import find_face


def test_a_similarity_is_recovered_exactly():
    angle, scale = 0.4, 1.7
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    target = align.FFHQ_512 @ turn.T + (12.0, -30.0)
    matrix = align.similarity_transform(align.FFHQ_512, target)
    np.testing.assert_allclose(matrix, np.column_stack([turn, (12.0, -30.0)]), atol=1e-3)


def test_the_fit_never_mirrors():
    mirrored = align.FFHQ_512 * (-1, 1)
    assert np.linalg.det(align.similarity_transform(align.FFHQ_512, mirrored)[:, :2]) > 0


@pytest.mark.parametrize("name", ["obama", "obama3", "biden", "biden2", "astronaut"])
def test_an_aligned_face_lies_on_the_template(seen, name):
    pixels, face = seen(name)
    crop = align.align(pixels, align.five_points(face), align.FFHQ_512, 512)
    found = align.five_points(find_face(crop))
    error = np.linalg.norm(found - align.FFHQ_512, axis=1).mean()
    assert crop.shape == (512, 512, 3)
    assert error < 16, "a template fits no face exactly: 11 px is usual"


def test_the_five_points_are_in_the_templates_order(seen):
    points = align.five_points(seen("obama")[1])
    order = np.argsort(points[:, 0]).tolist(), np.argsort(points[:, 1]).tolist()
    assert order[0][2] == 2, "the nose is in the middle"
    assert points[0, 0] < points[1, 0] and points[3, 0] < points[4, 0]
    assert set(order[1][:2]) == {0, 1} and set(order[1][3:]) == {3, 4}


def test_a_warp_there_and_back_returns_the_picture(seen):
    pixels, face = seen("obama3")
    matrix = align.similarity_transform(align.five_points(face), align.FFHQ_512)
    crop = align.warp(pixels, matrix, 512)
    back = align.warp_back(crop, matrix, *pixels.shape[:2])
    inside = align.warp_back(np.ones((512, 512), np.float32), matrix, *pixels.shape[:2])
    assert back.shape == pixels.shape and inside.dtype == np.float32
    error = np.abs(back.astype(float) - pixels)[inside > 0.999]
    assert error.mean() < 2.0
    assert inside[0, 0] == 0


def test_a_big_photo_is_reduced_without_aliasing():
    stripes = np.zeros((900, 900, 3), np.uint8)
    stripes[:, ::2] = 255
    small = align.warp(stripes, np.array([[0.1, 0, 0], [0, 0.1, 0]]), 90)
    assert np.abs(small[5:-5, 5:-5].astype(float) - 127.5).max() < 20
