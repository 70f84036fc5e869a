"""Crop, caption, save and load as the executor calls them, on real photos."""

from __future__ import annotations

import json

import folder_paths
import numpy as np
import pytest
import torch
from likeness.nodes.dataset.caption.nodes import LikenessCaptionPhotos
from likeness.nodes.dataset.curate.curate import curate
from likeness.nodes.dataset.prepare.crop_nodes import LikenessCropPhotos
from likeness.nodes.dataset.saved.load_nodes import LikenessLoadPhotos
from likeness.nodes.dataset.saved.save_nodes import LikenessSavePhotos
from likeness.nodes.dataset.subject.nodes import LikenessSubject
from likeness.nodes.errors import LikenessError
from likeness.nodes.quality.rules import Rules
from PIL import Image

CAPTION = {"trigger": "ohwx", "class_noun": "man", "template": "photo of {subject}, {pose}",
           "subject_words": "in place of the class word", "side_cars": False, "existing": "keep",
           "on_trait": "warn", "may_change": "", "include_unsure": False}
SAVE = {"name": "anna", "trigger": "ohwx", "class_noun": "man", "repeats": 10,
        "pictures": "original files", "framing": "head", "resolution": 512, "level_eyes": False,
        "masks": "none", "include_unsure": False, "existing": "number"}


@pytest.fixture(autouse=True)
def host(monkeypatch, tmp_path, folder):
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    with torch.inference_mode():
        yield tmp_path


@pytest.fixture
def photos(host):
    loaded = LikenessLoadPhotos.execute("photos", "").result[0]
    return curate(loaded, Rules(), lambda done: None)


def _caption(photos, captions=None, **changes):
    inputs = {name: [value] for name, value in {**CAPTION, **changes}.items()}
    return LikenessCaptionPhotos.execute([photos], **inputs, captions=captions)


def _captions(result):
    return [photo.caption for photo in result.result[0].kept]


def test_crops_come_as_lists_of_one_order_and_in_the_history(photos, host):
    result = LikenessCropPhotos.execute(photos, "head", 256, True, "face oval", False)
    images, masks, names, captions, text = result.result
    assert names == [photo.name for photo in photos.kept] and captions == [""] * len(names)
    for image, mask in zip(images, masks, strict=True):
        assert image.shape == (1, *mask.shape[1:], 3) and mask.shape[0] == 1
        assert 0.1 < mask.mean() < 0.9 and mask.max() <= 1
    assert len(json.loads(text)["photos"]) == len(names) == len(result.ui["images"])
    schema = LikenessCropPhotos.GET_SCHEMA()
    assert [output.is_output_list for output in schema.outputs] == [True] * 4 + [False]


def test_a_captioners_texts_reach_their_photos_with_the_trigger(photos):
    texts = ["A man in a dark\nsuit", "ohwx {smiling}", "a tie"]
    result = _caption(photos, texts)
    assert _captions(result) == ["ohwx man in a dark suit", "ohwx {smiling}", "ohwx man, a tie"]
    told = json.loads(result.result[2])
    assert [entry["source"] for entry in told["photos"]] == ["captions"] * 3
    assert told["warnings"] == [] and result.ui["images"] and result.ui["text"]


def test_another_number_of_captions_is_one_sentence(photos):
    with pytest.raises(LikenessError, match="2 captions came for 3 photos; connect the captioner"):
        _caption(photos, ["a", "b"])


def test_captioner_then_text_file_then_own_caption_then_template(photos, host):
    first = _caption(photos, ["ohwx one", "ohwx two", "ohwx three"]).result[0]
    names = [photo.name for photo in photos.kept]
    (host / "photos" / names[1]).with_suffix(".txt").write_text("from a file\n{subject}, {pose}")
    told = _caption(first, ["ohwx new", "", ""], side_cars=True)
    assert _captions(told)[0] == "ohwx new" and _captions(told)[2] == "ohwx three"
    assert _captions(told)[1].startswith("ohwx man, from a file\nohwx man, facing")
    plain = _caption(first, existing="replace")
    assert set(_captions(plain)) == {"photo of ohwx man, facing the camera"}


@pytest.mark.parametrize(("way", "after"), [
    ("in front", "ohwx man, A man smiling"), ("leave", "A man smiling")])
def test_the_trigger_goes_where_it_is_asked_to(photos, way, after):
    assert _captions(_caption(photos, ["A man smiling"] * 3, subject_words=way))[0] == after


def test_traits_are_warned_of_removed_or_refused(photos):
    texts = ["ohwx man with blue eyes, smiling", "ohwx man in a suit", "ohwx man, outdoors"]
    warned = json.loads(_caption(photos, texts).result[2])
    assert len(warned["warnings"]) == 1 and "eye colour" in warned["warnings"][0]
    removed = _caption(photos, texts, on_trait="remove")
    assert _captions(removed)[0] == "ohwx man, smiling"
    told = json.loads(removed.result[2])
    assert told["warnings"] == [] and told["removed"][0]["words"] == ["blue eyes"]
    assert told["photos"][0]["before"] == texts[0]
    with pytest.raises(LikenessError, match="names the eye colour"):
        _caption(photos, texts, on_trait="error")
    assert json.loads(_caption(photos, texts, may_change="eye colour").result[2])["warnings"] == []


def test_photos_without_verdicts_are_refused(host):
    loaded = LikenessLoadPhotos.execute("photos", "").result[0]
    with pytest.raises(LikenessError, match="no verdicts yet"):
        _caption(loaded)


def test_a_saved_set_loads_from_output_and_makes_the_same_subject(photos, host):
    captioned = _caption(photos).result[0]
    result = LikenessSavePhotos.execute(captioned, **SAVE)
    saved, label, text = result.result
    assert label == "output/likeness/anna" and json.loads(text)["trains"] == 3
    assert list(result.ui.as_dict()["text"]) == [text]
    assert LikenessLoadPhotos.validate_inputs(label, "") is True
    loaded, count, told = LikenessLoadPhotos.execute(label, "").result
    assert count == 3 and json.loads(told)["saved_set"]
    assert _captions_of(loaded) == _captions_of(captioned) == _captions_of(saved)
    subjects = [LikenessSubject.execute(entry, "me", "ohwx", "man", 1, False).result[0]
                for entry in (captioned, loaded)]
    assert np.array_equal(subjects[0].embeddings["dlib"], subjects[1].embeddings["dlib"])


def _captions_of(photos):
    return [photo.caption for photo in photos.photos]


def test_the_fingerprint_follows_the_captions_of_a_saved_set(photos, host):
    LikenessSavePhotos.execute(_caption(photos).result[0], **SAVE)
    label = "output/likeness/anna"
    first = LikenessLoadPhotos.fingerprint_inputs(label, "")
    assert LikenessLoadPhotos.fingerprint_inputs(label, "") == first
    next((host / label).rglob("*.txt")).write_text("ohwx man, edited by hand")
    assert LikenessLoadPhotos.fingerprint_inputs(label, "") != first


@pytest.mark.parametrize("folder", ["output/likeness/../../photos", "output/likeness/../..",
                                    "output/likeness//etc"])
def test_a_saved_set_cannot_lead_out_of_the_output_folder(folder):
    with pytest.raises(LikenessError, match="lies outside"):
        LikenessLoadPhotos.execute(folder, "")


def test_a_folder_made_by_kohyas_hand_comes_with_captions_and_masks(host, assets):
    training = host / "kohya" / "10_ohwx man"
    training.mkdir(parents=True)
    (host / "kohya" / "masks").mkdir()
    for name in ("obama", "biden"):
        (training / f"{name}.jpg").write_bytes((assets / f"{name}.jpg").read_bytes())
    (training / "obama.txt").write_text("ohwx man, at a desk\n")
    (training / "biden.txt").write_text(" \n")
    Image.new("L", (910, 1137), 255).save(host / "kohya" / "masks" / "obama.png")
    photos, count, text = LikenessLoadPhotos.execute("kohya", "").result
    biden, obama = photos.photos
    assert (obama.name, obama.caption) == ("10_ohwx man/obama.jpg", "ohwx man, at a desk")
    assert obama.mask == host / "kohya" / "masks" / "obama.png" and biden.mask is None
    assert biden.caption == "" and "biden.txt is empty" in json.loads(text)["photos"][0]["note"]
    plain = LikenessLoadPhotos.execute("kohya", "", side_files=False).result[0]
    assert all(not photo.caption and photo.mask is None for photo in plain.photos)


def test_the_host_hands_the_caption_node_lists(photos):
    schema = LikenessCaptionPhotos.GET_SCHEMA()
    assert schema.is_input_list and LikenessCaptionPhotos.INPUT_IS_LIST
    assert LikenessCropPhotos.OUTPUT_IS_LIST == [True] * 4 + [False]


def test_paragraphs_of_a_text_file_are_told_and_its_wildcards_are_captions(photos, host):
    name = photos.kept[0].name
    (host / "photos" / name).with_suffix(".txt").write_bytes(
        "\ufeffohwx man, {smiling|sad}\r\n\r\nThe sun shines.".encode())
    told = _caption(photos, side_cars=True)
    assert _captions(told)[0].splitlines() == ["ohwx man, smiling", "ohwx man, sad",
                                               "ohwx man, The sun shines."]
    assert f"Each line is a caption of its own, also in paragraphs like those of {name};" in (
        json.loads(told.result[2])["warnings"][0])
