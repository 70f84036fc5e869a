"""Embeddings as points: what their distances say of one recogniser and of several together."""

from __future__ import annotations

import numpy as np
import pytest
from likeness.nodes.faces.detect import find_face
from likeness.nodes.faces.recognise.backends import BOTH, parts_of
from likeness.nodes.faces.recognise.embed import embed, similarity, split_parts
from likeness.nodes.faces.recognise.points import as_points
from likeness.nodes.media.images import read_photo
from likeness.nodes.scoring.bank.bank import shipped


@pytest.fixture(scope="module")
def strangers():
    """The pack's bank: (535, 320), the same people in the same order for both recognisers."""
    return np.concatenate([shipped(part).embeddings for part in parts_of(BOTH)], axis=1)


def apart(rows, count=120):
    """Squared distances of all pairs of the first rows."""
    rows = rows[:count].astype(np.float64)
    upper = np.triu_indices(len(rows), 1)
    return ((rows[upper[0]] - rows[upper[1]]) ** 2).sum(-1)


def test_of_one_recogniser_distances_say_what_its_similarity_says(strangers):
    dlib, mobile = split_parts(strangers, BOTH)
    for part, rows in zip(parts_of(BOTH), (dlib, mobile), strict=True):
        points = as_points(rows, part)
        assert points.shape == rows.shape and points.dtype == rows.dtype
        alike = similarity(rows[0], rows[1], part)
        squared = ((points[0] - points[1]) ** 2).sum()
        expected = (1 - alike) ** 2 if part == "dlib" else 2 - 2 * alike
        assert squared == pytest.approx(expected, abs=1e-5)


def test_both_have_as_much_of_a_say_and_strangers_lie_as_far_apart_as_by_the_first(strangers):
    points = as_points(strangers, BOTH)
    shares = [apart(rows) for rows in split_parts(points, BOTH)]
    assert shares[0].std() == pytest.approx(shares[1].std(), rel=0.1)
    assert apart(points).mean() == pytest.approx(apart(strangers[:, :128]).mean(), rel=0.02)


def test_a_mirror_image_lies_nearer_than_by_dlib_alone(assets):
    rows = []
    pixels = read_photo(assets / "obama.jpg")
    for picture in (pixels, np.ascontiguousarray(pixels[:, ::-1])):
        rows.append(embed(picture, find_face(picture), BOTH))
    joint, alone = (np.linalg.norm(np.subtract(*(as_points(row, name) for row in found)))
                    for name, found in ((BOTH, rows), ("dlib", [row[:128] for row in rows])))
    assert joint < 0.8 * alone


def test_rows_of_one_person_and_of_many_are_taken_alike(strangers):
    assert np.array_equal(as_points(strangers[3], BOTH), as_points(strangers, BOTH)[3])
