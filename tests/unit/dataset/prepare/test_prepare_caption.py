"""Captions carry the trigger and say what can be seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from likeness.nodes.dataset.caption.caption import caption, captions, class_caption, shuffled
from likeness.nodes.errors import LikenessError
from likeness.nodes.sockets import Face, HeadPose, Photo


def _photo(yaw: float = 0, pitch: float = 0, expression: dict | None = None) -> Photo:
    face = Face((100, 100, 300, 400), np.zeros((478, 3)), np.zeros((478, 3)),
                HeadPose(yaw, pitch, 0), expression or {"mouthSmileLeft": 0.0})
    return Photo(Path("a.jpg"), "a.jpg", "0" * 64, 800, 1000, face=face)


def test_the_default_caption_names_person_framing_pose_and_expression():
    text = caption(_photo(), "ohwx", "man")
    assert text == "photo of ohwx man, head and shoulders, facing the camera, neutral expression"


def test_turned_heads_are_described_from_the_viewers_side():
    assert "three-quarter view to the right" in caption(_photo(yaw=30), "ohwx", "man")
    assert "profile to the left" in caption(_photo(yaw=-70), "ohwx", "man")


def test_a_level_portrait_that_reads_a_little_down_is_not_called_chin_down():
    assert "chin down" not in caption(_photo(pitch=14), "ohwx", "man")
    assert "chin down" in caption(_photo(pitch=28), "ohwx", "man")


def test_smiles_are_told_from_blendshapes():
    smile = {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8, "mouthUpperUpLeft": 0.5,
             "mouthUpperUpRight": 0.5}
    assert caption(_photo(expression=smile), "ohwx", "man").endswith("smiling with teeth")


def test_a_template_that_loses_the_trigger_is_refused():
    with pytest.raises(LikenessError, match="trigger"):
        caption(_photo(), "ohwx", "man", "a nice photo, {pose}")


@pytest.mark.parametrize("template", ["{subject}, {", "{subject} }"])
def test_a_stray_brace_is_one_clear_sentence(template):
    with pytest.raises(LikenessError, match="brace that belongs to no field"):
        caption(_photo(), "ohwx", "man", template)


def test_an_unknown_field_is_named():
    with pytest.raises(LikenessError, match="{mood}"):
        caption(_photo(), "ohwx", "man", "{subject}, {mood}")


def test_every_line_of_a_template_is_one_caption_without_repeats():
    texts = captions(_photo(), "ohwx", "man", "photo of {subject}\n\n{trigger}, {pose}\n"
                                              "photo of {subject}\n")
    assert texts == ("photo of ohwx man", "ohwx, facing the camera")


def test_every_line_must_hold_the_trigger_as_a_word_of_its_own():
    with pytest.raises(LikenessError, match="add one to every line"):
        captions(_photo(), "man", "person", "photo of {subject}\na woman, {pose}")


def test_an_empty_template_is_refused():
    with pytest.raises(LikenessError, match="trigger"):
        captions(_photo(), "ohwx", "man", " \n")


@pytest.mark.parametrize("text,expected", [
    ("photo of ohwx man, smiling", "photo of man, smiling"),
    ("photo of ohwx, smiling", "photo of man, smiling"),
    ("ohwx\tman beside ohwx mannequin and ohwxy", "man beside man mannequin and ohwxy")])
def test_the_class_caption_has_the_noun_and_not_the_trigger(text, expected):
    assert class_caption(text, "ohwx", "man") == expected


def test_shuffled_captions_keep_the_front_and_every_part_and_repeat_under_a_seed():
    text = "photo of ohwx man, a, b, c, d"
    orders = shuffled(text, 5, 1, "photo")
    assert len(set(orders)) == 5 and text not in orders
    for order in orders:
        assert order.startswith("photo of ohwx man, ")
        assert sorted(order.split(", ")) == sorted(text.split(", "))
    assert orders == shuffled(text, 5, 1, "photo") != shuffled(text, 5, 1, "other photo")


def test_a_caption_with_few_parts_has_fewer_orders():
    assert shuffled("x, a, b", 4, 1, "photo") == ("x, b, a",)
    assert shuffled("x, a", 4, 1, "photo") == shuffled("x, a", 0, 0, "photo") == ()


def test_a_line_without_the_trigger_is_named_and_lines_are_said_to_be_captions():
    with pytest.raises(LikenessError, match="^Line 3 of the caption template .*each line is a "
                                            "caption of its own"):
        captions(_photo(), "ohwx", "man", "photo of ohwx man\n\nHe smiles in the sun.")


def test_wildcards_are_a_caption_for_each_choice_and_double_braces_are_braces():
    texts = captions(_photo(), "ohwx", "man", "{subject} in a {red|blue} {tie|scarf}, {{a|b}}")
    assert texts == tuple(f"ohwx man in a {colour} {thing}, {{a|b}}"
                          for colour in ("red", "blue") for thing in ("tie", "scarf"))


def test_wildcards_for_too_many_captions_are_refused():
    with pytest.raises(LikenessError, match="The caption template has wildcards for 32 captions"):
        captions(_photo(), "ohwx", "man", "ohwx" + " {a|b}" * 5)
