"""The check names traits, missing and meaningful triggers, and takes trait words out cleanly."""

from __future__ import annotations

import pytest
from likeness.nodes.dataset.caption.check import changeable, check, without_traits
from likeness.nodes.errors import LikenessError


def _rules(*texts, trigger="ohwx", noun="man", **more):
    captions = {f"{number}.jpg": text for number, text in enumerate(texts)}
    return [finding.rule for finding in check(captions, trigger, noun, **more)]


@pytest.mark.parametrize(("text", "rule"), [
    ("ohwx man with short dark brown hair", "hair colour"),
    ("blonde-haired ohwx man", "hair colour"),
    ("ohwx man, blue eyes", "eye colour"), ("ohwx man with a trimmed grey beard", "beard"),
    ("bearded ohwx man", "beard"), ("ohwx man, freckles", "skin"), ("young ohwx man", "age"),
    ("ohwx man, a 40 year old", "age"), ("an african american ohwx man", "ethnicity"),
    ("ohwx man beside a black man", "ethnicity"), ("ohwx man with a square jaw", "face shape")])
def test_a_trait_that_is_to_be_learned_is_named(text, rule):
    assert rule in _rules(text)


@pytest.mark.parametrize("text", [
    "ohwx man in a black shirt and a white tie, old house", "ohwx man, smiling, brown jacket",
    "ohwx man facing the camera, warm light from the left, green eyeshade"])
def test_clothes_places_and_light_are_no_traits(text):
    assert _rules(text) == []


def test_the_sentence_names_the_photo_the_words_and_the_reason():
    finding, = check({"a.jpg": "ohwx man with blue eyes"}, "ohwx", "man")
    assert finding.text.startswith('The caption of a.jpg names the eye colour ("blue eyes"): ')
    assert finding.text.endswith(".") and finding.words == ("blue eyes",) and finding.is_trait


def test_glasses_count_only_when_nearly_always_worn():
    assert _rules("ohwx man, glasses", "ohwx man, smiling") == []
    assert _rules("ohwx man, black glasses", "ohwx man, wearing glasses, smiling") == [
        "glasses", "glasses"]


def test_the_class_noun_itself_is_no_trait():
    assert _rules("ohwx young woman, smiling", noun="young woman") == []


def test_traits_that_may_change_are_let_through_and_unknown_ones_refused():
    assert _rules("ohwx man, blue eyes, a beard", may_change=changeable("beard")) == ["eye colour"]
    with pytest.raises(LikenessError, match="`hat`, which is no known trait; use some of hair"):
        changeable("beard, hat")


def test_a_missing_trigger_is_told_for_each_line():
    assert _rules("ohwx man\na man", "ohwxy man, smiling") == ["no_trigger", "no_trigger"]


@pytest.mark.parametrize(("trigger", "rules"), [("John", ["trigger_word"]), ("ohwx", []),
                                                ("sks", ["trigger_word"])])
def test_a_trigger_that_means_something_is_told(trigger, rules):
    assert _rules(f"{trigger} man", trigger=trigger) == rules


def test_captions_that_are_all_alike_or_too_long_are_told():
    assert _rules("ohwx man", "ohwx  man") == ["alike"]
    assert _rules("ohwx man " + "very " * 74) == ["long"] and _rules("ohwx" + " a" * 74) == []


@pytest.mark.parametrize(("before", "after"), [
    ("ohwx man with a beard and a red tie", "ohwx man with a red tie"),
    ("ohwx man with short brown hair and blue eyes, wearing a suit", "ohwx man, wearing a suit"),
    ("an old man beside ohwx man, blue eyes, smiling", "a man beside ohwx man, smiling"),
    ("bearded ohwx man in a park", "ohwx man in a park"),
    ("a portrait of ohwx man. He has blue eyes. He smiles.",
     "a portrait of ohwx man. He smiles."),
    ("ohwx man with a hat and a beard", "ohwx man with a hat"),
    ("ohwx man, smiling", "ohwx man, smiling")])
def test_trait_words_leave_without_a_trace(before, after):
    assert without_traits({"a": before}, "ohwx", "man") == {"a": after}


def test_what_removal_leaves_passes_the_check():
    text = ("A young bearded ohwx man with short curly black hair and dark brown eyes, a scar, "
            "wearing a suit")
    left = without_traits({"a": text}, "ohwx", "man")
    assert check(left, "ohwx", "man") == () and left["a"].endswith("wearing a suit")


def test_the_line_without_the_trigger_is_named():
    (finding,) = check({"a.jpg": "ohwx man\na man"}, "ohwx", "man")
    assert finding.text.startswith("Line 2 of the caption of a.jpg, a caption of its own, lacks")
