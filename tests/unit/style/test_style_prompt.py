"""Headshot styles: the data and the prompts made from them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from likeness.nodes.errors import LikenessError
from likeness.nodes.sockets import Subject
from likeness.nodes.style.catalog import style, styles
from likeness.nodes.style.nodes import LikenessStyle
from likeness.nodes.style.prompt import count_word, negative_prompt, positive_prompt


@pytest.fixture
def subject() -> Subject:
    return Subject(name="Ann", trigger="ohwx", class_noun="woman", references=(), held_out=(),
                   embeddings={}, spread={}, mesh=np.zeros((478, 3), np.float32))


def test_there_are_six_styles_with_distinct_prompts():
    assert len(styles()) == 6
    assert len({one.prompt for one in styles().values()}) == 6
    assert len({one.negative for one in styles().values()}) == 6


@pytest.mark.parametrize("style_id", list(styles()))
def test_every_style_names_the_person_first_and_once(style_id, subject):
    text = positive_prompt(style(style_id), subject)
    assert text.startswith("photo of ohwx woman, ")
    assert count_word("ohwx", text) == 1
    assert "{" not in text


@pytest.mark.parametrize("style_id", list(styles()))
def test_every_style_has_usable_sizes_and_strengths(style_id):
    chosen = style(style_id)
    assert chosen.width % 64 == 0 and chosen.height % 64 == 0
    assert set(chosen.control) == {"face mesh", "pose", "depth"}
    assert all(0 < strength <= 1 for strength in chosen.control.values())


@pytest.mark.parametrize("style_id", list(styles()))
def test_every_positive_prompt_fits_one_clip_window(style_id, subject):
    words = positive_prompt(style(style_id), subject).replace(",", " ,").replace("-", " - ").split()
    assert len(words) < 75


def test_prefix_and_suffix_stand_around_the_style(subject):
    text = positive_prompt(style("corporate"), subject, prefix=" grey hair, ", suffix=", glasses ")
    assert text.startswith("grey hair, photo of ohwx woman,")
    assert text.endswith(", glasses")
    assert ",," not in text.replace(" ", "")


@pytest.mark.parametrize("field", ["prefix", "suffix"])
def test_a_trigger_in_the_users_text_is_refused(field, subject):
    with pytest.raises(LikenessError, match=f"ohwx.*{field}"):
        positive_prompt(style("corporate"), subject, **{field: "smiling OHWX"})


def test_a_trigger_that_is_a_word_of_the_style_is_refused(subject):
    with pytest.raises(LikenessError, match="blazer"):
        positive_prompt(style("corporate"), dataclasses.replace(subject, trigger="blazer"))


def test_a_trigger_that_is_part_of_another_word_is_accepted(subject):
    text = positive_prompt(style("corporate"), dataclasses.replace(subject, trigger="blaz"))
    assert "blaz woman" in text


def test_an_empty_trigger_is_refused(subject):
    with pytest.raises(LikenessError, match="no trigger"):
        positive_prompt(style("corporate"), dataclasses.replace(subject, trigger=" "))


def test_the_negative_prompt_never_names_the_subject(subject):
    assert count_word("ohwx", negative_prompt(style("editorial"), subject, "beard")) == 0
    assert negative_prompt(style("editorial"), subject, "beard").endswith(", beard")
    with pytest.raises(LikenessError, match="ohwx"):
        negative_prompt(style("editorial"), subject, "ohwx")


def test_an_unknown_style_is_an_error_that_lists_the_known_ones():
    with pytest.raises(LikenessError, match="corporate.*creative colour"):
        style("baroque")


def test_the_node_gives_style_prompts_and_size(subject):
    result = LikenessStyle.execute(subject, "studio black", suffix="beard")
    chosen, positive, negative, width, height = result.result
    assert chosen is style("studio black")
    assert positive.endswith("beard") and "bright background" in negative
    assert (width, height) == (896, 1152)
    assert positive in result.ui.as_dict()["text"][0]
