"""A set that is saved and loaded is the set that it was, and what changed since is told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from likeness.nodes.dataset.saved.reading import read_saved
from likeness.nodes.dataset.saved.save import SaveSettings, save
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces.detect import find_face
from likeness.nodes.media.images import read_photo
from likeness.nodes.quality.look import look
from likeness.nodes.sockets import Photo, PhotoSet, Reason, Verdict
from PIL import Image

SETTINGS = SaveSettings("anna", "ohwx", "man")


@pytest.fixture(scope="module")
def judged(assets, tmp_path_factory, load_folder) -> PhotoSet:
    """Three kept photos with all that can be known, an overridden, a rejected, a broken one."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("obama", "biden", "obama3", "astronaut"):
        (folder / f"{name}.jpg").write_bytes((assets / f"{name}.jpg").read_bytes())
    (folder / "torn.jpg").write_bytes((assets / "obama.jpg").read_bytes()[:3000])
    photos = []
    for number, photo in enumerate(load_folder(folder).photos):
        if photo.sha256:
            seen = look(photo.file, photo.sha256)
            photo = dataclasses.replace(
                photo, face=seen.face, measures=seen.measures, embedding=seen.embedding,
                scene=np.linspace(0, 1 / 3, 7, dtype=np.float32), verdict=Verdict.KEEP,
                caption=f"ohwx man {number}\nohwx, {{brace}}")
        photos.append(photo)
    mask = folder / "own mask.png"
    Image.new("L", (photos[1].width, photos[1].height), 128).save(mask)
    photos[0] = dataclasses.replace(
        photos[0], verdict=Verdict.REJECT, caption="",
        reasons=(Reason("somebody_else", "Not \u00e4lways.", Verdict.REJECT),))
    photos[1] = dataclasses.replace(photos[1], mask=mask)
    photos[2] = dataclasses.replace(photos[2], overridden=True, reasons=(
        Reason("blurred", "Soft.", Verdict.UNSURE),))
    return PhotoSet(tuple(photos), "photos")


def _saved(judged, base, **changes) -> Path:
    settings = dataclasses.replace(SETTINGS, **changes)
    return save(judged, settings, base, lambda done: None)[0]


def _load(place):
    return read_saved(place, place.name, lambda done: None)


def _plain(value):
    """Values that compare: arrays by type and bytes, paths by their files' content."""
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name))
                for field in dataclasses.fields(value)}
    if hasattr(value, "items"):
        return {name: _plain(entry) for name, entry in value.items()}
    return value


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Photo)
                                   if field.name not in ("file", "mask")])
def test_every_field_of_every_photo_comes_back_equal(judged, tmp_path_factory, field):
    place = _saved(judged, tmp_path_factory.getbasetemp() / "round")
    loaded = _load(place)
    assert [_plain(getattr(photo, field)) for photo in loaded.photos.photos] == [
        _plain(getattr(photo, field)) for photo in judged.photos]
    assert not loaded.notes


def test_files_and_masks_come_back_with_their_content(judged, tmp_path):
    loaded = _load(_saved(judged, tmp_path)).photos.photos
    for before, after in zip(judged.photos, loaded, strict=True):
        assert after.file.read_bytes() == before.file.read_bytes()
        assert (after.mask is None) == (before.mask is None), "masks from faces are not the user's"
    assert np.array_equal(read_photo(loaded[1].mask), read_photo(judged.photos[1].mask))


def test_the_layout_is_kohyas_and_what_must_not_train_lies_beside(judged, tmp_path):
    place = _saved(judged, tmp_path, repeats=7)
    names = sorted(path.relative_to(place).as_posix() for path in place.rglob("*.*"))
    assert names == ["7_ohwx man/biden.jpg", "7_ohwx man/biden.txt", "7_ohwx man/obama.jpg",
                     "7_ohwx man/obama.txt", "7_ohwx man/obama3.jpg", "7_ohwx man/obama3.txt",
                     "left_out/astronaut.jpg", "left_out/torn.jpg", "likeness.json",
                     "masks/biden.png", "masks/obama.png", "masks/obama3.png"]
    assert (place / "7_ohwx man/obama.txt").read_text() == judged.photos[2].caption
    with Image.open(place / "masks/obama.png") as mask:
        assert mask.size == (judged.photos[2].width, judged.photos[2].height)
        assert mask.getextrema() == (0, 255)


def test_crops_carry_the_face_where_a_detector_finds_it(judged, tmp_path):
    place = _saved(judged, tmp_path, pictures="crops", framing="head", resolution=512,
                   level_eyes=True)
    for photo in _load(place).photos.kept:
        found = find_face(read_photo(photo.file))
        assert np.abs(found.landmarks[:, :2] - photo.face.landmarks[:, :2]).mean() < 4
        assert abs(found.pose.roll - photo.face.pose.roll) < 3
        assert photo.file.suffix == ".png" and photo.width == read_photo(photo.file).shape[1]
        with Image.open(place / "masks" / photo.file.name) as mask:
            assert mask.size == (photo.width, photo.height)
    entries = {entry["name"]: entry for entry in json.loads(
        (place / "likeness.json").read_text())["photos"]}
    assert entries["obama.jpg"]["source"]["sha256"] == judged.photos[2].sha256


def test_the_same_set_is_not_written_twice_and_another_never_over_it(judged, tmp_path):
    first = _saved(judged, tmp_path)
    assert save(judged, SETTINGS, tmp_path, lambda done: None) == (first, False)
    (first / "10_ohwx man" / "obama.txt").write_text("edited by hand")
    second = _saved(judged, tmp_path)
    assert second.name == "anna_2" and (first / "10_ohwx man/obama.txt").read_text()[0] == "e"
    with pytest.raises(LikenessError, match="exists already and holds something else"):
        _saved(judged, tmp_path, existing="refuse", repeats=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["anna", "anna_2"]


def test_a_full_disk_or_a_cancel_leaves_nothing(judged, tmp_path, monkeypatch):
    class Cancelled(Exception):
        pass

    def cancel(done):
        raise Cancelled

    with pytest.raises(Cancelled):
        save(judged, SETTINGS, tmp_path, cancel)
    assert list(tmp_path.iterdir()) == []

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.rename", full)
    with pytest.raises(LikenessError, match="No space left on device.*nothing of it is left"):
        _saved(judged, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_photo_that_changed_since_it_was_judged_is_not_saved(judged, tmp_path):
    copy = tmp_path / "obama.jpg"
    copy.write_bytes(judged.photos[2].file.read_bytes() + b"x")
    photo = dataclasses.replace(judged.photos[2], file=copy)
    with pytest.raises(LikenessError, match="obama.jpg` changed since it was judged"):
        _saved(PhotoSet((photo,)), tmp_path / "out")


def test_a_picture_that_changed_in_the_set_comes_unjudged_with_a_note(judged, tmp_path):
    place = _saved(judged, tmp_path)
    Image.new("RGB", (60, 40)).save(place / "10_ohwx man" / "obama.jpg")
    loaded = _load(place)
    photo = next(photo for photo in loaded.photos.photos if photo.name == "obama.jpg")
    assert photo.verdict is None and photo.face is None and (photo.width, photo.height) == (60, 40)
    assert photo.caption == judged.photos[2].caption
    assert loaded.notes == {"obama.jpg": "The picture changed since the set was saved, so it is "
                                         "not judged yet."}


def test_edits_by_hand_are_taken_up_and_told(judged, tmp_path):
    place = _saved(judged, tmp_path)
    training = place / "10_ohwx man"
    (training / "obama.txt").write_text("ohwx man edited")
    (training / "obama3.jpg").unlink()
    (training / "new.jpg").write_bytes((training / "biden.jpg").read_bytes())
    Image.new("L", (30, 40), 255).save(place / "masks" / "obama.png")
    loaded = _load(place)
    photos = {photo.name: photo for photo in loaded.photos.photos}
    assert photos["obama.jpg"].caption == "ohwx man edited"
    assert photos["obama.jpg"].mask == place / "masks" / "obama.png"
    assert photos["10_ohwx man/new.jpg"].verdict is None and "obama3.jpg" not in photos
    assert sorted(loaded.notes) == ["10_ohwx man/new.jpg", "obama.jpg", "obama3.jpg"]


def test_edited_captions_are_read_as_all_texts_are(judged, tmp_path):
    place = _saved(judged, tmp_path)
    file = place / "10_ohwx man" / "obama.txt"
    file.write_text("ohwx man, edited\r\n", encoding="utf-16", newline="")
    photos = {photo.name: photo for photo in _load(place).photos.photos}
    assert photos["obama.jpg"].caption == "ohwx man, edited"
    file.write_bytes("ohwx man in a caf\u00e9".encode("cp1252"))
    with pytest.raises(LikenessError, match="obama.txt is no UTF-8 text .line 1 .* save it as"):
        _load(place)


@pytest.mark.parametrize(("change", "words"), [
    (lambda data: data["photos"][1].pop("sha256"), "cannot be read .photo 2"),
    (lambda data: data["photos"][1].update(file="../../secret.jpg"), "lies outside the set"),
    (lambda data: data.update(format=9), "saved in format 9"),
    (lambda data: data.pop("photos"), "cannot be read")])
def test_a_damaged_record_is_one_sentence(judged, tmp_path, change, words):
    place = _saved(judged, tmp_path)
    data = json.loads((place / "likeness.json").read_text())
    change(data)
    (place / "likeness.json").write_text(json.dumps(data))
    with pytest.raises(LikenessError, match=words):
        _load(place)


def test_photos_of_one_stem_get_names_of_their_own(judged, tmp_path):
    kept = judged.photos[1:3]
    twins = PhotoSet((kept[0], dataclasses.replace(kept[1], name="sub/BIDEN.png")))
    names = [photo.file.name for photo in _load(_saved(twins, tmp_path)).photos.photos]
    assert names == ["biden.jpg", "BIDEN_2.jpg"]


@pytest.mark.parametrize(("change", "words"), [
    ({"name": "a/b"}, "`name` must be"), ({"trigger": "two words"}, "`trigger` must be"),
    ({"class_noun": "man/../.."}, "`class_noun` becomes"), ({"repeats": 0}, "`repeats` must"),
    ({"name": ".."}, "`name` must be"), ({"pictures": "both"}, "`pictures` must be one of")])
def test_names_that_cannot_be_folders_are_refused(change, words):
    with pytest.raises(LikenessError, match=words):
        dataclasses.replace(SETTINGS, **change)
