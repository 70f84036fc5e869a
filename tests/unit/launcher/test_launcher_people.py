"""Folders of people: who is in them, what is refused, and the table."""

from __future__ import annotations

import pytest

from launcher.people.batch import Entry, read_state
from launcher.people.figures import table
from launcher.people.folders import list_people
from launcher.problems import Problem


def someone(place, name, photo=b"x"):
    (place / name).mkdir(parents=True)
    (place / name / "a.jpg").write_bytes(photo)


def test_everybody_has_a_folder_and_hidden_ones_are_nobody(tmp_path):
    for name in ("Zoe", "Ann", ".cache", "_old"):
        someone(tmp_path, name)
    (tmp_path / "Ann" / "settings.txt").write_text("\ufeff# words\n\nSubject.class_noun=woman\n",
                                                   "utf-8")
    people = list_people(tmp_path)
    assert [person.name for person in people] == ["Ann", "Zoe"]
    assert people[0].settings == ("Subject.class_noun=woman",) and people[1].settings == ()


def test_the_key_changes_with_a_photo_and_with_the_settings(tmp_path):
    someone(tmp_path, "Ann")
    keys = [list_people(tmp_path)[0].key()]
    (tmp_path / "Ann" / "a.jpg").write_bytes(b"y")
    keys.append(list_people(tmp_path)[0].key())
    (tmp_path / "Ann" / "settings.txt").write_text("Train.seed=3")
    keys.append(list_people(tmp_path)[0].key())
    assert len(set(keys)) == 3 and keys[2] == list_people(tmp_path)[0].key()


@pytest.mark.parametrize("folders, sentence", [
    ((), "There is no sub-folder in"),
    (("Ann", "ann"), "differ in upper and lower case alone"),
    (("A:b",), "cannot be a person's name"),
    (("Ann.",), "cannot be a person's name"),
])
def test_folders_that_cannot_be_people_are_refused(tmp_path, folders, sentence):
    for name in folders:
        someone(tmp_path, name)
    with pytest.raises(Problem, match=sentence):
        list_people(tmp_path)


def test_somebody_without_photos_is_named(tmp_path):
    someone(tmp_path, "Ann")
    (tmp_path / "Ben").mkdir()
    with pytest.raises(Problem, match="There is no photo in .*Ben"):
        list_people(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{", '{"Ann": 3}', '{"Ann": {"files": [], "odd": 1}}'])
def test_a_damaged_state_is_one_sentence(tmp_path, text):
    (tmp_path / "people.json").write_text(text)
    with pytest.raises(Problem, match="is no state of a batch of people; move it away"):
        read_state(tmp_path)


def test_the_table_tells_what_is_known_and_dashes_elsewhere():
    lines = table({"Ann": Entry("done", seconds=90, figures={
        "photos": 10, "photos_kept": 8, "pictures": 4, "pictures_kept": 1, "best_score": 0.612}),
        "Benedict": Entry("failed")})
    assert lines[1].split() == ["Ann", "done", "8", "of", "10", "4", "1", "0.61", "1.5"]
    assert lines[2].split() == ["Benedict", "failed", "-", "-", "-", "-", "0.0"]
    assert lines[0].index("status") == lines[1].index("done") == lines[2].index("failed")
