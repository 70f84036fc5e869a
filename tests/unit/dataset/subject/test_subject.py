"""The subject: its words, its split, its spread, and one sentence when it cannot be made."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from likeness.nodes.dataset.caption.describe import chosen_photos
from likeness.nodes.dataset.coach.coverage import nothing_usable
from likeness.nodes.dataset.curate.curate import curate
from likeness.nodes.dataset.subject import subject as subjects
from likeness.nodes.dataset.subject.subject import SubjectSettings, make_subject, split
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces.recognise.embed import embed_photo, leave_one_out
from likeness.nodes.quality.rules import Rules
from likeness.nodes.sockets import HeadPose, Reason, Subject, Verdict

SETTINGS = SubjectSettings("Barack", "ohwx", "man", held_out=1, include_unsure=False)


def settings(**changes: object) -> SubjectSettings:
    return dataclasses.replace(SETTINGS, **changes)


@pytest.fixture
def judged(folder, load_folder):
    return curate(load_folder(folder), Rules(), lambda done: None)


def with_verdicts(photos, **verdicts: str):
    """Change verdicts by photo name without its extension."""
    return dataclasses.replace(photos, photos=tuple(
        dataclasses.replace(photo, verdict=Verdict(verdicts[photo.file.stem]), reasons=(
            Reason("blurred", "It is blurred.", Verdict(verdicts[photo.file.stem])),))
        if photo.file.stem in verdicts else photo for photo in photos.photos))


def test_references_and_held_out_photos_divide_the_kept_ones(judged):
    done = []
    subject = make_subject(judged, SETTINGS, done.append)
    names = [photo.name for photo in subject.references + subject.held_out]
    assert sorted(names) == sorted(photo.name for photo in judged.photos)
    assert len(subject.held_out) == 1 and done == [1, 2, 3]
    assert (subject.name, subject.trigger, subject.class_noun) == ("Barack", "ohwx", "man")


def test_embeddings_stand_in_the_order_of_the_photos(judged):
    subject = make_subject(judged, SETTINGS, lambda done: None)
    rows = subject.embeddings["dlib"]
    assert rows.shape == (3, 128) and not rows.flags.writeable
    for row, photo in zip(rows, subject.photos, strict=True):
        np.testing.assert_array_equal(row, embed_photo(photo))


def test_the_spread_is_each_photo_against_the_others(judged):
    subject = make_subject(judged, SETTINGS, lambda done: None)
    assert subject.spread["dlib"] == leave_one_out(subject.embeddings["dlib"])
    assert 0.5 < subject.spread["dlib"].low < subject.spread["dlib"].median < 0.9


def test_the_mean_mesh_lies_between_the_photos(judged):
    subject = make_subject(judged, SETTINGS, lambda done: None)
    meshes = np.stack([photo.face.mesh for photo in judged.photos])
    assert subject.mesh.shape == (478, 3)
    assert (subject.mesh >= meshes.min(0) - 1e-4).all()
    assert (subject.mesh <= meshes.max(0) + 1e-4).all()


def test_nothing_of_the_curated_photos_is_changed(judged):
    before = [(photo.name, photo.verdict, photo.reasons) for photo in judged.photos]
    make_subject(judged, SETTINGS, lambda done: None)
    assert [(photo.name, photo.verdict, photo.reasons) for photo in judged.photos] == before


def turned_photos(photo, *yaws: float):
    return tuple(dataclasses.replace(photo, name=f"{index}.jpg", face=dataclasses.replace(
        photo.face, pose=HeadPose(yaw, 0.0, 0.0))) for index, yaw in enumerate(yaws))


def test_the_held_out_photos_are_spread_over_the_angles(judged):
    photos = turned_photos(judged.photos[0], 0, 1, 2, 3, 40, 41, -40, -41, 4, 5)
    _, held_out = split(photos, 3)
    yaws = sorted(photo.face.pose.yaw for photo in held_out)
    assert yaws[0] < 0 and 1 <= yaws[1] <= 4 and yaws[2] > 30


def test_the_split_depends_on_the_photos_alone(judged):
    photos = turned_photos(judged.photos[0], 5, -5, 5, 20, -20)
    first, again = split(photos, 2), split(photos[::-1], 2)
    assert {photo.name for photo in first[1]} == {photo.name for photo in again[1]}
    assert [photo.name for photo in first[0]] == sorted(photo.name for photo in first[0])


@pytest.mark.parametrize(("held_out", "expected"), [(0, (3, 0)), (1, (2, 1)), (2, (1, 2)),
                                                    (50, (1, 2))])
def test_at_least_one_reference_remains(judged, held_out, expected):
    subject = make_subject(judged, settings(held_out=held_out), lambda done: None)
    assert (len(subject.references), len(subject.held_out)) == expected
    assert subjects.report(subject, settings(held_out=held_out))["held_out_asked"] == held_out


def test_unsure_photos_are_used_only_when_asked(judged):
    photos = with_verdicts(judged, good_obama="unsure")
    assert len(make_subject(photos, SETTINGS, lambda done: None).photos) == 2
    assert len(make_subject(photos, settings(include_unsure=True), lambda done: None).photos) == 3


def test_rejected_photos_are_never_used(judged):
    photos = with_verdicts(judged, good_obama="reject")
    subject = make_subject(photos, settings(include_unsure=True), lambda done: None)
    assert "good_obama.jpg" not in [photo.name for photo in subject.photos]


def test_no_usable_photo_says_which_rule_rejected_how_many_and_what_to_do(judged):
    photos = with_verdicts(judged, good_obama="reject", good_obama3="reject",
                           good_turned="reject")
    with pytest.raises(LikenessError) as caught:
        make_subject(photos, SETTINGS, lambda done: None)
    text = str(caught.value)
    assert text.startswith("None of 3 photos") and "blurred 3" in text and "min_sharpness" in text


def test_one_usable_photo_is_too_few_and_unsure_ones_are_pointed_out(judged):
    photos = with_verdicts(judged, good_obama="reject", good_obama3="unsure")
    with pytest.raises(LikenessError, match="Only 1 of 3 .* at least 2 .*include_unsure.* 1 more"):
        make_subject(photos, SETTINGS, lambda done: None)


def test_photos_that_were_not_curated_are_refused(folder, load_folder):
    with pytest.raises(LikenessError, match="Curate"):
        make_subject(load_folder(folder), SETTINGS, lambda done: None)


@pytest.mark.parametrize(("field", "value"), [
    ("trigger", ""), ("trigger", "  "), ("trigger", "two words"), ("trigger", "(ohwx:1.2)"),
    ("name", ""), ("name", "../up"), ("name", "a/b"), ("name", "a\\b"), ("name", ".."),
    ("class_noun", " "), ("held_out", -1)])
def test_a_useless_setting_is_named(field, value):
    with pytest.raises(LikenessError, match=f"`{field}` must"):
        settings(**{field: value})


def test_names_of_any_script_are_welcome():
    assert settings(name="Zo\u00eb M\u00fcller-\u674e").name == "Zo\u00eb M\u00fcller-\u674e"


def test_a_name_with_spaces_becomes_one_folder():
    subject = Subject("Ana Maria", "ohwx", "woman", (), (), {}, {}, np.zeros((478, 3)))
    assert subject.folder_name == "Ana_Maria"


def test_photos_of_different_people_are_told_by_name_and_none_is_offered(
        assets, tmp_path, load_folder):
    for name in ("astronaut", "biden", "obama"):
        (tmp_path / f"{name}.jpg").write_bytes((assets / f"{name}.jpg").read_bytes())
    mixed = curate(load_folder(tmp_path), Rules(), lambda done: None)
    who = "3 different people, none in a majority: astronaut.jpg; biden.jpg; obama.jpg"
    with pytest.raises(LikenessError, match=who) as subject:
        make_subject(mixed, SETTINGS, lambda done: None)
    with pytest.raises(LikenessError, match=who) as caption:
        chosen_photos(mixed, include_unsure=False)
    said = (str(subject.value), str(caption.value), nothing_usable(mixed))
    assert who in said[2]
    # Teaching three people as one is no way out.
    assert all("Load photos of one person" in text and "include_unsure" not in text
               for text in said)
