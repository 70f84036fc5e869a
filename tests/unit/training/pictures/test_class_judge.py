"""Class photos are judged as photos are, and must not show the subject."""

from __future__ import annotations

import json

import numpy as np
import picture_models
import pytest
import torch
import training_models
from likeness.nodes import runtime
from likeness.nodes.errors import LikenessError
from likeness.nodes.media.images import read_photo, to_image
from likeness.nodes.training.pictures import class_photos
from likeness.nodes.training.pictures.class_judge import judge_pictures
from likeness.nodes.training.pictures.class_nodes import ClassPhotosNode
from likeness.nodes.training.pictures.class_photos import ClassPhoto

FLAT = np.full((512, 512, 3), 90, np.uint8)


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "output_directory", lambda: tmp_path)
    monkeypatch.setattr(runtime, "send_event", lambda *given: None)
    model, clip, vae = (training_models.make_model("sd15"), picture_models.make_clip(),
                        picture_models.make_vae())

    def run(**given):
        with torch.inference_mode():
            return ClassPhotosNode.execute(
                model, clip, vae, "man", class_photos.DEFAULT_PROMPT, "", 2, 3, 512, 512, 1, 1.0,
                "euler", "normal", 3.5, **given).result

    return run


@pytest.fixture(scope="module")
def pictures(assets):
    """A flat picture and two portraits of different men, as a batch."""
    shown = [class_photos._cover(read_photo(assets / f"{name}.jpg"), 512, 512)
             for name in ("obama", "biden2")]
    return to_image(np.stack([FLAT, *shown]))


def test_by_default_all_train_and_the_report_says_what_is_wrong(node, pictures):
    made, shown, text = node(own_pictures=pictures)
    told = json.loads(text)["judged"]
    assert len(made.items) == 3 == len(shown)
    assert (told["kept"], told["rejected"], told["left_out"]) == (3, 1, 0)
    assert told["by_rule"] == {"no_face": 1} and "No face" in told["photos"][0]["reasons"][0]


def test_what_is_rejected_is_left_out_when_asked(node, pictures):
    made, shown, text = node(own_pictures=pictures, judge_photos="leave out")
    assert len(made.items) == 2 == len(shown)
    assert json.loads(text)["judged"]["left_out"] == 1
    assert made.key != node(own_pictures=pictures, judge_photos="off")[0].key


def test_a_class_photo_of_the_subject_is_left_out(node, pictures, obama):
    made, _, text = node(own_pictures=pictures[1:], judge_photos="leave out", subject=obama)
    told = json.loads(text)["judged"]
    assert len(made.items) == 1 and told["by_rule"] == {"the_subject": 1}
    assert "This is Obama" in told["photos"][0]["reasons"][-1]


def test_all_rejected_is_one_sentence(node, pictures):
    with pytest.raises(LikenessError, match="All 1 class photos are rejected .no_face 1.; look"):
        node(own_pictures=pictures[:1], judge_photos="leave out")


def test_off_looks_at_nothing(node, pictures, monkeypatch):
    monkeypatch.setattr("likeness.nodes.training.pictures.class_nodes.judge_pictures", None)
    assert json.loads(node(own_pictures=pictures, judge_photos="off")[2])["judged"] is None


def test_an_unknown_way_is_refused(node):
    with pytest.raises(LikenessError, match="`judge_photos` must be one of report, leave out"):
        node(judge_photos="maybe")


def test_a_picture_that_is_gone_is_named(tmp_path):
    photo = ClassPhoto(None, tmp_path / "gone.png", None, False)
    with pytest.raises(LikenessError, match="class photo gone.png cannot be read"):
        judge_pictures([photo], None, lambda done: None)
