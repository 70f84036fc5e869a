"""Captions that the user brings are matched with the photos or refused by name."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from likeness.nodes.dataset.caption.caption import captions
from likeness.nodes.dataset.caption.given import (
    GivenCaptions,
    paragraphs_note,
    photo_captions,
    side_car_captions,
    typed_captions,
)
from likeness.nodes.errors import LikenessError
from likeness.nodes.sockets import Photo, Subject


@pytest.fixture
def subject(tmp_path) -> Subject:
    files = [tmp_path / name for name in ("one.jpg", "sub/two.jpg", "held.jpg", "rejected.jpg")]
    (tmp_path / "sub").mkdir()
    for file in files:
        file.write_bytes(b"")
    photos = [Photo(file, file.relative_to(tmp_path).as_posix()) for file in files[:3]]
    return Subject("x", "ohwx", "man", tuple(photos[:2]), tuple(photos[2:]), {}, {},
                   np.zeros((478, 3)))


def test_lines_name_photos_by_label_or_file_name_and_may_repeat(subject):
    given = typed_captions("one.jpg: first: with a colon\n\ntwo.jpg: b\none.jpg: second", subject)
    assert given.texts == {"one.jpg": "first: with a colon\nsecond", "sub/two.jpg": "b"}


def test_json_gives_a_caption_or_several(subject):
    given = typed_captions('{"one.jpg": "a\\nline", "sub/two.jpg": ["b", "c"]}', subject)
    assert given.texts == {"one.jpg": "a line", "sub/two.jpg": "b\nc"}


def test_captions_of_photos_that_do_not_train_are_told_and_not_refused(subject):
    given = typed_captions("held.jpg: a\nrejected.jpg: b", subject)
    assert not given.texts and given.unused == ("held.jpg", "rejected.jpg")


@pytest.mark.parametrize("text,match", [
    ("three.jpg: a", "names `three.jpg`, which is none of the subject's photos.*one.jpg"),
    ("no colon here", "the line `no colon here` is neither"),
    ("one.jpg:  ", "is neither"),
    ('{"one.jpg": ', "begins like JSON"),
    ('{"one.jpg": []}', "`one.jpg` has no text"),
    ('{"one.jpg": 3}', "`one.jpg` has no text")])
def test_a_text_that_cannot_be_meant_is_refused(text, match, subject):
    with pytest.raises(LikenessError, match=match):
        typed_captions(text, subject)


def test_a_file_name_that_two_photos_have_is_refused(subject):
    twin = Photo(subject.references[0].file.parent / "two.jpg", "two.jpg (2)")
    doubled = Subject("x", "ohwx", "man", (*subject.references, twin), (), {}, {},
                      np.zeros((478, 3)))
    with pytest.raises(LikenessError, match="several photos are called"):
        typed_captions("two.jpg: a", doubled)


def test_text_files_beside_photos_are_read_and_typed_captions_come_first(subject):
    for photo in subject.references:
        photo.file.with_suffix(".txt").write_text("\ufefffrom the file\nmore\n", "utf-8")
    found = side_car_captions(subject.references)
    assert found.texts["sub/two.jpg"].splitlines() == ["from the file", "more"]
    both = GivenCaptions({"one.jpg": "typed"}).joined(found)
    assert both.texts == {"one.jpg": "typed", "sub/two.jpg": found.texts["sub/two.jpg"]}


def test_captions_in_the_files_that_sd_scripts_read_by_default_are_read_too(subject):
    photo = subject.references[0]
    photo.file.with_suffix(".caption").write_text("as sd-scripts name it")
    assert side_car_captions([photo]).texts == {photo.name: "as sd-scripts name it"}
    photo.file.with_suffix(".txt").write_text("comes first")
    assert side_car_captions([photo]).texts == {photo.name: "comes first"}


@pytest.mark.parametrize("content,match", [(b" \n", "one.txt is empty"),
                                           (b"\xff\xfe\x00", "one.txt is no UTF-16 text")])
def test_a_text_file_without_text_is_named(content, match, subject):
    subject.references[0].file.with_suffix(".txt").write_bytes(content)
    with pytest.raises(LikenessError, match=match):
        side_car_captions(subject.references)


def test_braces_of_a_photo_s_own_caption_are_wildcards_or_braces(subject):
    photo = dataclasses.replace(subject.references[0], caption="ohwx man {smiling|sad}, {pose}")
    text = photo_captions([photo]).texts["one.jpg"]
    assert captions(photo, "ohwx", "man", text) == ("ohwx man smiling, {pose}",
                                                    "ohwx man sad, {pose}")


@pytest.mark.parametrize(("text", "told"), [
    ("ohwx man.\n\nohwx smiles.", True), ("ohwx man.\nHe smiles.", True),
    ("ohwx man\nohwx, smiling", False), ("a man\na person", False),
    ("{subject}\nohwx, smiling", False), ("ohwx man\n", False)])
def test_lines_that_look_like_paragraphs_are_told(text, told):
    note = paragraphs_note({"one.jpg": text}, "ohwx")
    assert ("Each line is a caption of its own" in note and "one.jpg" in note) == told
