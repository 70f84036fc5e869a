"""Folders of people: who is in them, what is refused, and the table."""

from __future__ import annotations

import hashlib
import json

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from launcher.people.batch import Entry, read_state
from launcher.people.belongings import Places, find
from launcher.people.figures import table
from launcher.people.folders import list_people
from launcher.people.forget import run_forget
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


@pytest.fixture
def places(tmp_path):
    made = Places(*(tmp_path / name for name in ("input", "output")), (tmp_path / "temp",),
                  tmp_path / "models")
    for place in (made.input, made.reports, *made.temp, made.models / "loras"):
        place.mkdir(parents=True)
    return made


def trained(file, subject, digest):
    """A file as Train saves it, without tensors."""
    header = json.dumps({"__metadata__": {
        "modelspec.implementation": "comfyui-likeness", "likeness.photos": json.dumps([digest]),
        "ss_tag_frequency": json.dumps({subject: {}})}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    return file


def reported(folder, name, digest, **more):
    """A report in a person's folder that names a photo."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    told = {"photos": {"references": [{"name": "a.jpg", "sha256": digest}]}, **more}
    (place / "report.json").write_text(json.dumps(told))


def test_a_trained_file_under_another_name_is_found_by_its_photos_and_told(places, capsys):
    digest, other = "a" * 64, "b" * 64
    reported(places.reports, "Ann", digest)
    known = trained(places.models / "loras" / "x.safetensors", "me", digest)
    trained(places.models / "loras" / "y.safetensors", "me", other)
    found = find("Ann", places)
    assert found.files == (known,) and found.folders == (places.reports / "Ann",)
    run_forget("Ann", places, None, sure=False)
    assert f"{known}   (of the same photos, under the name me)" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["", " ", ".", "..", "../..", "a/b", "a\\b", "Ann."])
def test_what_is_no_name_removes_nothing(places, tmp_path, name):
    reported(places.reports, "Ann", "a" * 64)
    (places.output / "else.txt").write_text("kept")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Problem, match="is no person's name"):
        run_forget(name, places, tmp_path, sure=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_model_that_others_use_too_makes_nobody_elses_files_theirs(places, capsys):
    model, ben = "c" * 64, places.reports / "Ben"
    reported(places.reports, "Ann", "a" * 64, inputs={"model": model})
    reported(places.reports, "Ben", "b" * 64, inputs={"model": model})
    (ben / "likeness.json").write_text(json.dumps({"photos": [{"sha256": "b" * 64}],
                                                   "recogniser": model}))
    run_forget("Ann", places, None, sure=True)
    assert "Removed 1;" in capsys.readouterr().out
    assert sorted(path.name for path in ben.iterdir()) == ["likeness.json", "report.json"]


def test_pictures_that_were_drawn_elsewhere_are_found_by_their_workflow(places):
    def saved(file, subject):
        words = PngInfo()
        words.add_text("prompt", json.dumps({"1": {"class_type": "LikenessSubject",
                                                   "inputs": {"name": subject}}}))
        Image.new("RGB", (8, 8)).save(file, pnginfo=words)
        return file

    mine = saved(places.output / "ComfyUI_1.png", "Ann")
    saved(places.output / "ComfyUI_2.png", "Ben")
    Image.new("RGB", (8, 8)).save(places.output / "plain.png")
    (places.output / "no.png").write_bytes(b"none")
    assert find("Ann", places).files == (mine,)


def test_a_page_of_curation_goes_with_the_photos_that_it_lists(places, tmp_path):
    upload = places.input / "likeness_0123456789"
    upload.mkdir()
    for name in ("kept.jpg", "rejected.jpg"):
        (upload / name).write_bytes(name.encode())
    reported(places.reports, "Ann", hashlib.sha256(b"kept.jpg").hexdigest())
    linked = tmp_path / "another way"
    linked.symlink_to(places.input, target_is_directory=True)
    for page, listed in (("curation-1", linked / upload.name / "rejected.jpg"),
                         ("curation-2", places.input / "else.jpg")):
        (places.reports / f"{page}.json").write_text(json.dumps(
            {"photos": [{"file": str(listed)}]}))
        (places.reports / f"{page}.png").write_bytes(b"sheet")
    found = find("Ann", places)
    assert {path.name for path in found.files} == {"curation-1.json", "curation-1.png"}
    assert set(found.folders) == {places.reports / "Ann", upload}


def test_what_is_no_trained_file_is_left_alone(places):
    (places.models / "loras" / "broken.safetensors").write_bytes(b"\xff" * 40)
    (places.models / "loras" / "short.safetensors").write_bytes(b"")
    stranger = trained(places.models / "loras" / "z.safetensors", "Ann", "c" * 64)
    stranger.write_bytes(stranger.read_bytes().replace(b"comfyui-likeness", b"somebody-elses-x"))
    with pytest.raises(Problem, match="Nothing of `Ann` is in"):
        run_forget("Ann", places, None, sure=True)
    assert len(list((places.models / "loras").iterdir())) == 3


def test_a_set_that_was_saved_of_the_photos_goes_with_them(places):
    digest = "d" * 64
    for name, known in (("her set", digest), ("another set", "e" * 64)):
        (places.reports / name).mkdir()
        (places.reports / name / "likeness.json").write_text(
            json.dumps({"photos": [{"name": "x", "source": {"sha256": known}}]}))
    reported(places.reports, "Ann", digest)
    assert set(find("Ann", places).folders) == {places.reports / "Ann", places.reports / "her set"}
