"""Nothing in a person's folder is lost without a word: captions, masks, sub-folders, names."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import icc_profiles
import pytest
from likeness.nodes import runtime
from likeness.nodes.dataset.curate.overrides import read_overrides
from likeness.nodes.dataset.saved.load_nodes import LikenessLoadPhotos
from likeness.nodes.errors import LikenessError
from likeness.nodes.files import on_disk
from PIL import Image


@pytest.fixture
def people(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(runtime, "input_directory", lambda: tmp_path / "input")
    monkeypatch.setattr(runtime, "output_directory", lambda: tmp_path / "output")
    (tmp_path / "input" / "anna").mkdir(parents=True)
    return tmp_path / "input" / "anna"


def picture(path: Path, kind: str = "JPEG", **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 24), (90, 120, 150)).save(path, kind, **options)


def load(folder="anna", files="", side_files=True):
    assert LikenessLoadPhotos.validate_inputs(folder, files) is True
    photos, _, report = LikenessLoadPhotos.execute(folder, files, side_files).result
    return {photo.name: photo for photo in photos.photos}, json.loads(report)


def test_photos_under_any_name_are_loaded(people):
    for name, kind in (("a.jfif", "JPEG"), ("b.jpe", "JPEG"), ("c", "PNG"), ("d.gif", "GIF"),
                       ("e.HEIC", "JPEG"), ("f.old", "WEBP"), ("g.jp2", "JPEG2000")):
        picture(people / name, kind)
    photos, report = load()
    assert list(photos) == ["a.jfif", "b.jpe", "c", "d.gif", "e.HEIC", "f.old", "g.jp2"]
    assert not any(photo.verdict for photo in photos.values()) and report["left_out"] == {}


def test_captions_of_either_ending_are_taken(people):
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
        picture(people / name)
    (people / "a.caption").write_text("ohwx man a")
    (people / "b.txt").write_text("ohwx man b")
    (people / "b.caption").write_text("another")
    (people / "c.TXT").write_text("ohwx man c")
    photos, report = load()
    assert [photo.caption for photo in photos.values()] == [
        "ohwx man a", "ohwx man b", "ohwx man c", ""]
    notes = {entry["name"]: entry["note"] for entry in report["photos"]}
    assert "b.caption was left out, because b.txt" in notes["b.jpg"] and not notes["a.jpg"]
    plain, report = load(side_files=False)
    assert not any(photo.caption for photo in plain.values()) and report["left_out"] == {}


def test_a_caption_is_read_as_all_texts_are_and_noted_when_it_is_none(people):
    picture(people / "a.jpg")
    picture(people / "b.jpg")
    (people / "a.txt").write_text("ohwx man\n", encoding="utf-16")
    (people / "b.caption").write_bytes("ohwx man, caf\u00e9".encode("cp1252"))
    photos, report = load()
    assert [photo.caption for photo in photos.values()] == ["ohwx man", ""]
    notes = {entry["name"]: entry["note"] for entry in report["photos"]}
    assert "The caption was left out: b.caption is no UTF-8 text (line 1" in notes["b.jpg"]


def test_masks_of_onetrainer_are_masks_and_no_photos(people):
    picture(people / "a.jpg")
    Image.new("L", (32, 24), 255).save(people / "a-masklabel.png")
    picture(people / "a-condlabel.png", "PNG")
    photos, report = load()
    assert list(photos) == ["a.jpg"] and photos["a.jpg"].mask == people / "a-masklabel.png"
    assert list(report["left_out"]) == ["a-condlabel.png"]
    assert list(load(side_files=False)[0]) == ["a.jpg"]


def test_what_is_not_read_is_named(people):
    for name in ("a.jpg", "masks/a.png", "masks/gone.png", "trip/day one/b.jpg", "trip/c.jpg"):
        picture(people / name, "PNG" if name.endswith("png") else "JPEG")
    for name in ("a.txt", "gone.caption", "verdicts.txt", "IMG_2.CR2", "clip.mov", ".hidden"):
        (people / name).write_bytes(b"II*\0 x")
    photos, report = load()
    assert list(photos) == ["a.jpg"]
    assert report["left_out"] == {
        "gone.caption": "It is the caption of no photo here.",
        "IMG_2.CR2": "It is a camera's raw file; export it as JPEG.",
        "clip.mov": "It is no photo.", "masks/gone.png": "It is the mask of no photo here.",
        "trip": "Photos in this sub-folder are not read: 1.",
        "trip/day one": "Photos in this sub-folder are not read: 1."}


def test_a_kohya_folder_names_what_lies_outside_of_its_folders(people):
    for name in ("10_ohwx man/a.jpg", "extra/b.jpg", "masks/a.jpg"):
        picture(people / name)
    photos, report = load()
    assert list(photos) == ["10_ohwx man/a.jpg"] and photos["10_ohwx man/a.jpg"].mask
    assert report["left_out"] == {"extra": "Photos in this sub-folder are not read: 1."}


def test_photos_in_sub_folders_alone_are_named(people):
    picture(people / "2023" / "a.jpg")
    picture(people / "2024" / "b.jpg")
    with pytest.raises(LikenessError, match=r"sub-folders \(2023: 1, 2024: 1\).*`anna/2023`"):
        LikenessLoadPhotos.execute("anna", "", True)


def test_the_report_says_from_which_colours_a_photo_came(people):
    picture(people / "a.jpg", icc_profile=icc_profiles.profile("Display P3"))
    assert load()[1]["photos"][0]["note"] == "Its colours were brought from Display P3 to sRGB."


FORMS = ("NFC", "NFD")


@pytest.mark.parametrize(("typed", "stored"), [FORMS, FORMS[::-1]])
def test_names_are_found_in_either_unicode_form(people, typed, stored):
    name = "Zo\u00eb 1"
    disk, given = (unicodedata.normalize(form, name) for form in (stored, typed))
    picture(people.parent / disk / f"{disk}.jpg")
    (people.parent / disk / f"{given}.txt").write_text("ohwx woman")
    Image.new("L", (32, 24), 255).save(people.parent / disk / f"{given}-masklabel.png")
    photos, report = load(given)
    (photo,) = photos.values()
    assert photo.caption == "ohwx woman" and photo.mask and report["left_out"] == {}
    assert list(load("", f"{given}/{given}.jpg")[0].values())[0].sha256 == photo.sha256
    assert on_disk(people.parent / given) == people.parent / disk


def test_verdicts_find_photos_in_either_unicode_form(people):
    picture(people / unicodedata.normalize("NFD", "Zo\u00eb.jpg"))
    picture(people / "Ren\u00e9.jpg")
    (people / "verdicts.txt").write_text("Zo\u00eb.jpg: reject", encoding="utf-8")
    photos = LikenessLoadPhotos.execute("anna", "", True).result[0].photos
    given = unicodedata.normalize("NFD", "Ren\u00e9.jpg: keep")
    found = read_overrides(given, photos)
    assert {name: said.verdict.value for name, said in found.verdicts.items()} == {
        photo.name: "keep" if photo.name[0] == "R" else "reject" for photo in photos}
    assert not found.notes


def test_links_to_another_disk_are_followed_and_broken_ones_named(people, tmp_path):
    picture(tmp_path / "disk" / "a.jpg")
    os.symlink(tmp_path / "disk", people.parent / "linked", target_is_directory=True)
    os.symlink(tmp_path / "disk" / "a.jpg", people / "b.jpg")
    assert list(load("linked")[0]) == ["a.jpg"] and list(load("anna")[0]) == ["b.jpg"]
    assert list(load("", "linked/a.jpg")[0]) == ["linked/a.jpg"]
    assert runtime.is_inside(people.parent / "linked" / "a.jpg", [people.parent])
    assert not runtime.is_inside(tmp_path / "disk" / "a.jpg", [people.parent])
    (tmp_path / "disk" / "a.jpg").unlink()
    (tmp_path / "disk").rmdir()
    with pytest.raises(LikenessError, match="leads through the link .*linked to .*disk"):
        runtime.contained(people.parent, "linked/a.jpg")
    with pytest.raises(LikenessError, match="lies outside"):
        runtime.contained(people.parent, "linked/../../x")


def test_a_folder_of_the_output_may_be_a_link(people, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "output").mkdir()
    os.symlink(tmp_path / "disk", tmp_path / "output" / "likeness", target_is_directory=True)
    assert runtime.contained(tmp_path / "output" / "likeness", "anna").parent.is_dir()


def test_a_photo_that_is_turned_has_its_pixels_counted_upright(people):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(people / "a.dat", exif=exif)
    photo = load()[0]["a.dat"]
    assert (photo.width, photo.height) == (24, 32)
