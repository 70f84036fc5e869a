"""Brackets in a caption are words to encoders that read weights and to those that do not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from comfy.sd1_clip import SD1Tokenizer
from likeness.nodes.brackets import literal_tokens, plain


@pytest.fixture(scope="module")
def tokenizer():
    return SD1Tokenizer()


def _words(tokenizer, tokens):
    assert {entry[1] for section in tokens["l"] for entry in section} == {1.0}
    return tokenizer.clip_l.tokenizer.decode([entry[0] for section in tokens["l"]
                                              for entry in section], skip_special_tokens=True)


@pytest.mark.parametrize(("caption", "read"), [
    ("a cat (smiling)", "a cat (smiling)"), ("a cat (red:1.5)", "a cat (red:1.5)"),
    ("smile :)", "smile :)"), ("((nested))", "((nested))")])
@pytest.mark.parametrize("weights", [True, False])
def test_brackets_are_words_of_weight_one(tokenizer, caption, read, weights):
    clip = SimpleNamespace(tokenize=lambda text: tokenizer.tokenize_with_weights(
        text, disable_weights=not weights))
    found = _words(tokenizer, literal_tokens(clip, caption))
    assert found.replace(" ", "") == read.replace(" ", "")


def test_one_that_is_escaped_already_stays_so():
    assert plain(r"anna \(film\), (x)") == r"anna \(film\), \(x\)"
