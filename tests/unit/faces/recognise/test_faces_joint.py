"""Two recognisers that judge as one: their similarities on one scale, added up."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from likeness.nodes.faces.recognise import backends
from likeness.nodes.faces.recognise.backends import BOTH
from likeness.nodes.faces.recognise.centre import robust_centre
from likeness.nodes.faces.recognise.copying import copy_paste
from likeness.nodes.faces.recognise.embed import (
    centre,
    embed,
    joint_similarity,
    leave_one_out,
    similarity,
    split_parts,
    subject_embeddings,
)
from likeness.nodes.scoring.bank.bank import shipped

PARTS = ("dlib", "mobilefacenet")


@pytest.fixture(scope="module")
def rows(seen) -> dict[str, np.ndarray]:
    return {name: embed(*seen(name), BOTH) for name in ("obama", "obama3", "biden")}


def test_an_embedding_is_that_of_each_recogniser_behind_the_other(rows, seen):
    assert rows["obama"].shape == (backends.backend(BOTH).dimension,) == (320,)
    for part, own in zip(PARTS, split_parts(rows["obama"], BOTH), strict=True):
        np.testing.assert_array_equal(own, embed(*seen("obama"), part))


def test_strangers_are_alike_by_nothing_and_the_same_picture_by_one(rows):
    assert similarity(rows["obama"], rows["obama"], BOTH) == pytest.approx(1, abs=1e-6)
    assert similarity(rows["obama"], rows["obama3"], BOTH) > backends.backend(BOTH).same_person
    assert abs(similarity(rows["obama"], rows["biden"], BOTH)) < 0.3
    mean = [part.stranger_mean for part in backends.backend(BOTH).parts]
    assert joint_similarity(mean, BOTH) == pytest.approx(0)


@pytest.mark.parametrize("part", backends.backend(BOTH).parts, ids=lambda part: part.id)
def test_the_scales_are_those_of_the_shipped_bank(part):
    people = shipped(part.id).embeddings[:200]
    alike = np.array([similarity(people[i], people[j], part.id)
                      for i in range(len(people)) for j in range(i)])
    assert alike.mean() == pytest.approx(part.stranger_mean, abs=0.02)
    assert alike.std() == pytest.approx(part.stranger_deviation, abs=0.01)


def test_both_count_alike_in_units_of_their_strangers():
    parts = backends.backend(BOTH).parts
    mean = [part.stranger_mean for part in parts]
    moved = [joint_similarity([value + (place == which) * part.stranger_deviation for which,
                               (value, part) in enumerate(zip(mean, parts, strict=True))], BOTH)
             for place in range(2)]
    assert moved[0] == pytest.approx(moved[1]) and moved[0] > 0


@pytest.mark.parametrize("middle", [centre, robust_centre])
def test_a_centre_is_that_of_each_recogniser(rows, middle):
    stacked = np.stack(list(rows.values()))
    for part, whole, own in zip(PARTS, split_parts(middle(stacked, BOTH), BOTH),
                                split_parts(stacked, BOTH), strict=True):
        np.testing.assert_allclose(whole, middle(own, part), rtol=1e-5)


def test_copy_paste_is_the_mean_of_what_both_measure(rows):
    generated, target, reference = rows["biden"], rows["obama3"][None], rows["obama"]
    alone = [copy_paste(*(split_parts(one, BOTH)[place] for one in (generated, target, reference)))
             for place in range(2)]
    assert copy_paste(generated, target, reference, BOTH) == pytest.approx(np.mean(alone))
    assert copy_paste(reference, target, reference, BOTH) == pytest.approx(1, abs=1e-6)


def test_a_subject_that_holds_both_is_not_read_again(obama, monkeypatch):
    monkeypatch.setattr("likeness.nodes.faces.recognise.embed.reread_photo",
                        lambda *_: pytest.fail("a photo was read again"))
    held = {part: obama.embeddings["dlib"] if part == "dlib" else np.ones((4, 192), np.float32)
            for part in PARTS}
    joint = subject_embeddings(dataclasses.replace(obama, embeddings=held), BOTH)
    assert joint.shape == (4, 320)


def test_leave_one_out_speaks_the_joint_scale(rows):
    spread = leave_one_out(np.stack([rows["obama"], rows["obama3"]]), BOTH)
    assert spread.similarities[0] == pytest.approx(similarity(rows["obama"], rows["obama3"], BOTH))


def test_only_single_recognisers_are_offered_to_face_adapters():
    assert BOTH in backends.ids() and BOTH not in backends.single_ids()
    assert set(PARTS) <= set(backends.single_ids())
