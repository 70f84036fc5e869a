"""The vendored recogniser tells people apart on real photos."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces.recognise import dlib_resnet
from likeness.nodes.faces.recognise.backends import backend
from likeness.nodes.faces.recognise.embed import (
    centre,
    embed,
    leave_one_out,
    similarity,
    subject_embeddings,
)
from likeness.nodes.sockets import Photo, Subject

PEOPLE = {"obama": "Obama", "obama3": "Obama", "obama_partial_face": "Obama",
          "obama_partial_face2": "Obama", "biden": "Biden", "biden2": "Biden",
          "astronaut": "Collins"}


def test_the_same_person_is_on_one_side_of_the_cut_and_others_on_the_other(seen):
    cut = backend("dlib").same_person
    rows = {name: embed(*seen(name)) for name in PEOPLE}
    for a, b in itertools.combinations(PEOPLE, 2):
        alike = similarity(rows[a], rows[b])
        assert (alike > cut + 0.1) if PEOPLE[a] == PEOPLE[b] else (alike < cut - 0.1), (a, b, alike)


def test_an_embedding_does_not_depend_on_the_size_of_the_photo(seen):
    from likeness.nodes.faces.detect import find_face
    from likeness.nodes.media.images import resize

    pixels, face = seen("obama")
    small = resize(pixels, 455, 568)
    assert similarity(embed(pixels, face), embed(small, find_face(small))) > 0.85


def test_an_embedding_is_128_numbers_and_repeats_exactly(seen):
    first, second = embed(*seen("obama")), embed(*seen("obama"))
    assert first.shape == (128,) and first.dtype == np.float32
    np.testing.assert_array_equal(first, second)


def test_the_network_serves_inside_and_outside_of_inference_mode(seen):
    dlib_resnet._network.cache_clear()
    with torch.inference_mode():
        inside = embed(*seen("obama"))
    np.testing.assert_array_equal(embed(*seen("obama")), inside)


def test_the_network_matches_published_distances_of_known_photos(seen):
    distance = 1 - similarity(embed(*seen("obama")), embed(*seen("obama3")))
    assert distance == pytest.approx(0.34, abs=0.03), "dlib itself measures 0.3 to 0.4 here"


def test_the_centre_of_cosine_recognisers_weighs_photos_alike():
    rows = np.array([[10.0, 0.0], [0.0, 1.0]], np.float32)
    np.testing.assert_allclose(centre(rows, "buffalo_l"), [2 ** -0.5] * 2, rtol=1e-6)
    np.testing.assert_allclose(centre(rows, "dlib"), [5.0, 0.5])


def test_similarity_is_one_for_equal_embeddings_of_either_kind():
    row = np.array([3.0, 4.0], np.float32)
    assert similarity(row, row, "dlib") == pytest.approx(1)
    assert similarity(row, 2 * row, "antelopev2") == pytest.approx(1)
    assert similarity(row, 2 * row, "dlib") == pytest.approx(-4)


def test_leave_one_out_compares_each_with_the_others_alone():
    rows = np.array([[0.0], [0.0], [3.0]], np.float32)
    spread = leave_one_out(rows)
    assert spread.similarities == pytest.approx((1 - 1.5, 1 - 1.5, 1 - 3.0))


def test_leave_one_out_needs_two():
    with pytest.raises(LikenessError, match="at least two"):
        leave_one_out(np.zeros((1, 128), np.float32))


def test_subject_embeddings_are_computed_from_the_files_in_order(seen, assets):
    photos = [Photo(file=Path(assets / f"{name}.jpg"), name=name, face=seen(name)[1])
              for name in ("obama3", "obama")]
    subject = Subject(name="x", trigger="x", class_noun="man", references=tuple(photos[:1]),
                      held_out=tuple(photos[1:]), embeddings=MappingProxyType({}),
                      spread=MappingProxyType({}), mesh=photos[0].face.mesh)
    rows = subject_embeddings(subject)
    np.testing.assert_array_equal(rows[0], embed(*seen("obama3")))
    np.testing.assert_array_equal(rows[1], embed(*seen("obama")))


def test_a_photo_that_vanished_is_named(seen, tmp_path):
    from likeness.nodes.faces.recognise.embed import embed_photo

    gone = Photo(file=tmp_path / "gone.jpg", name="gone.jpg", face=seen("obama")[1])
    with pytest.raises(LikenessError, match=r"gone\.jpg"):
        embed_photo(gone)
