"""What the identity guard lets through."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from likeness.nodes.errors import FaceNotFoundError, LikenessError
from likeness.nodes.faces.detect import find_faces
from likeness.nodes.faces.mesh import face_mask
from likeness.nodes.faces.recognise import embed
from likeness.nodes.faces.recognise.backends import BOTH
from likeness.nodes.media.images import read_photo, to_image, to_uint8
from likeness.nodes.restore.guard import (
    FRACTIONS,
    LOWERS,
    SOMEBODY_ELSE,
    UNSEEN,
    make_judge,
    strongest,
)
from likeness.nodes.restore.pipeline import Outcome, Settings, restore_images


def run(module, image, judge, **settings):
    def network(chips):
        return module(chips, return_rgb=False, randomize_noise=False)[0]

    images, entries = restore_images(image, network, judge, Settings(**settings))
    return images, entries


def test_the_ladder_stops_at_the_strongest_setting_that_is_enough():
    strength, trials = strongest(lambda strength: 1 - strength, 1.0, least=0.5)
    assert strength == pytest.approx(0.4)
    assert [trial.strength for trial in trials] == pytest.approx([1.0, 0.8, 0.6, 0.4])


def test_the_ladder_gives_nothing_when_every_setting_harms():
    strength, trials = strongest(lambda strength: 0.1, 0.5, least=0.2)
    assert strength == 0
    assert len(trials) == len(FRACTIONS)


def test_a_face_that_becomes_somebody_else_stays_as_it_was(somebody_else, portrait, obama):
    images, entries = run(somebody_else, portrait, make_judge(obama, "dlib"), strength=1.0)
    assert torch.equal(images, portrait)
    face, = entries[0]["faces"]
    assert (entries[0]["status"], face["status"], face["strength"]) == ("unchanged",) * 2 + (0,)
    assert face["likeness_after"] == face["likeness_before"]
    assert face["reason"] == SOMEBODY_ELSE


def test_a_face_of_noise_stays_as_it_was(noise, portrait, obama):
    images, entries = run(noise, portrait, make_judge(obama, "dlib"))
    assert torch.equal(images, portrait)


def test_a_face_of_the_same_person_that_is_less_alike_stays_as_it_was(blur, portrait, obama):
    images, entries = run(blur, portrait, make_judge(obama, "dlib"), strength=1.0)
    face, = entries[0]["faces"]
    assert torch.equal(images, portrait)
    assert face["reason"] == LOWERS
    assert len(face["tried"]) == len(FRACTIONS)
    assert all(trial["likeness"] < face["likeness_before"] for trial in face["tried"])


def test_a_loss_that_is_allowed_lets_a_weaker_blend_through(blur, portrait, obama):
    strict, loose = (run(blur, portrait, make_judge(obama, "dlib", loss), strength=1.0)[1]
                     for loss in (0.0, 0.02))
    assert strict[0]["faces"][0]["strength"] == 0
    assert 0 < loose[0]["faces"][0]["strength"] < 1


def test_without_the_guard_the_harm_is_done_and_reported(somebody_else, portrait, obama):
    images, entries = run(somebody_else, portrait, make_judge(obama, "dlib"), strength=1.0,
                          guard=False)
    face, = entries[0]["faces"]
    assert face["status"] == "restored"
    assert face["likeness_after"] < face["likeness_before"] - 0.2
    assert not torch.equal(images, portrait)


def test_a_harmless_restorer_is_used_and_the_face_really_changes(sharpen, portrait, obama):
    images, entries = run(sharpen, portrait, make_judge(obama, "dlib", allowed_loss=0.02),
                          strength=0.8)
    face, = entries[0]["faces"]
    assert (face["status"], face["strength"]) == ("restored", 0.8)
    assert face["likeness_after"] >= face["likeness_before"] - 0.02
    assert face["mean_change"] > 0.0005


def test_nothing_changes_outside_the_face_by_a_bit(somebody_else, portrait, obama):
    images, _ = run(somebody_else, portrait, make_judge(obama, "dlib"), strength=1.0, guard=False)
    face = find_faces(to_uint8(portrait[0]))[0]
    outside = torch.from_numpy(face_mask(face, *portrait.shape[1:3])) == 0
    assert torch.equal(images[0][outside], portrait[0][outside])


def test_without_a_subject_a_face_must_stay_the_same_person(somebody_else, sharpen, portrait):
    _, harmed = run(somebody_else, portrait, make_judge(None, "dlib"), strength=1.0)
    _, fine = run(sharpen, portrait, make_judge(None, "dlib"), strength=1.0)
    assert harmed[0]["faces"][0]["strength"] == 0
    assert fine[0]["faces"][0]["strength"] == 1
    assert fine[0]["faces"][0]["likeness_before"] == 1


def test_the_held_out_photos_judge_when_there_are_any(portrait, sharpen, obama):
    everything = dataclasses.replace(obama, references=obama.photos, held_out=())
    _, held_out = run(sharpen, portrait, make_judge(obama, "dlib"))
    _, all_photos = run(sharpen, portrait, make_judge(everything, "dlib"))
    assert held_out[0]["faces"][0]["compared_with"] == "held-out photos"
    assert all_photos[0]["faces"][0]["compared_with"] == "all photos"
    assert (held_out[0]["faces"][0]["likeness_before"]
            != all_photos[0]["faces"][0]["likeness_before"])


def test_strength_zero_changes_nothing(sharpen, portrait, obama):
    images, entries = run(sharpen, portrait, make_judge(obama, "dlib"), strength=0.0)
    assert torch.equal(images, portrait)
    assert entries[0]["status"] == "unchanged"


@pytest.fixture(scope="module")
def two_people(assets) -> torch.Tensor:
    left, right = read_photo(assets / "biden.jpg"), read_photo(assets / "obama3.jpg")
    return torch.cat([to_image(left), to_image(right)], 2)


@pytest.mark.parametrize("which, touched", [
    ("all", (True, True)), ("largest", (True, False)), ("most like the subject", (False, True))])
def test_the_chosen_faces_and_no_others_are_restored(which, touched, sharpen, two_people, obama):
    images, entries = run(sharpen, two_people, make_judge(obama, "dlib"), which=which, guard=False)
    middle = 528
    halves = (images[:, :, :middle], images[:, :, middle:])
    before = (two_people[:, :, :middle], two_people[:, :, middle:])
    changed = tuple(not torch.equal(a, b) for a, b in zip(halves, before, strict=True))
    assert changed == touched
    assert len(entries[0]["faces"]) == sum(touched)


def test_a_picture_without_a_face_is_kept_and_says_so(sharpen, obama):
    blank = torch.full((1, 256, 256, 3), 0.5)
    images, entries = run(sharpen, blank, make_judge(obama, "dlib"))
    assert torch.equal(images, blank)
    assert entries == [{"index": 0, "status": "no_face", "faces_found": 0, "faces": []}]


def test_a_picture_without_a_face_is_an_error_when_asked_for(sharpen, portrait, obama):
    pictures = torch.cat([portrait, torch.full_like(portrait, 0.5)])
    with pytest.raises(LikenessError, match="image 2"):
        run(sharpen, pictures, make_judge(obama, "dlib"), no_face="error")


def test_the_pictures_that_were_given_stay_as_they_were(somebody_else, portrait, obama):
    before = portrait.clone()
    run(somebody_else, portrait, make_judge(obama, "dlib"), guard=False)
    assert torch.equal(portrait, before)


def test_a_recogniser_without_a_cut_cannot_guard_without_a_subject(monkeypatch):
    from likeness.nodes.faces.recognise import backends

    monkeypatch.setattr(backends, "require", lambda id: ())
    with pytest.raises(LikenessError, match="auraface"):
        make_judge(None, "auraface")


@pytest.mark.parametrize("bad", [{"strength": 1.5}, {"which": "the tall one"}, {"no_face": "?"}])
def test_settings_that_mean_nothing_are_errors(bad):
    with pytest.raises(LikenessError):
        Settings(**bad)


@pytest.mark.parametrize("which", ["all", "most like the subject"])
def test_a_face_that_the_recogniser_does_not_see_is_not_restored(
        which, sharpen, portrait, obama, monkeypatch):
    def blind(pixels, face, backend):
        raise FaceNotFoundError("not seen")

    judge = make_judge(obama, "dlib")
    monkeypatch.setattr(embed, "embed", blind)
    images, entries = run(sharpen, portrait, judge, which=which)
    assert torch.equal(images, portrait)
    assert entries[0]["status"] == "unchanged"
    assert all(face["reason"] == UNSEEN and face["likeness_before"] is None
               for face in entries[0]["faces"])


def test_two_judges_guard_together_and_each_is_told_of_alone(blur, portrait, obama):
    _, entries = run(blur, portrait, make_judge(obama, BOTH), strength=0.3, guard=False)
    face, = entries[0]["faces"]
    for id in ("dlib", "mobilefacenet"):
        _, alone = run(blur, portrait, make_judge(obama, id), strength=0.3, guard=False)
        assert face["judges"][id] == {"before": alone[0]["faces"][0]["likeness_before"],
                                      "after": alone[0]["faces"][0]["likeness_after"]}
        assert alone[0]["faces"][0]["judges"] == {}
    ups = {told["after"] < told["before"] for told in face["judges"].values()}
    assert face["judges_differ"] == (len(ups) > 1)


def test_judges_differ_when_one_alone_finds_the_face_less_alike():
    assert Outcome(0.5, 0.6, 0.7, alone={"a": (0.5, 0.6), "b": (0.5, 0.4)}).disputed
    assert not Outcome(0.5, 0.6, 0.7, alone={"a": (0.5, 0.6), "b": (0.5, 0.5)}).disputed


@pytest.mark.parametrize("subject", [True, False])
def test_somebody_else_is_refused_by_both_together(somebody_else, portrait, obama, subject):
    images, entries = run(somebody_else, portrait, make_judge(obama if subject else None, BOTH),
                          strength=1.0)
    assert torch.equal(images, portrait)
    assert entries[0]["faces"][0]["reason"] == SOMEBODY_ELSE
