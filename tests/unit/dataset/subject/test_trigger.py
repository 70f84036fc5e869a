"""Triggers that CLIP already knows."""

from __future__ import annotations

import json

import pytest
from likeness.nodes.dataset.curate.curate import curate
from likeness.nodes.dataset.subject.nodes import LikenessSubject
from likeness.nodes.quality.rules import Rules


@pytest.fixture
def told(folder, load_folder):
    """The warnings of the node's report."""
    judged = curate(load_folder(folder), Rules(), lambda done: None)

    def run(trigger: str) -> list[str]:
        report = LikenessSubject.execute(judged, "Ann", trigger, "woman", 1, False).result[2]
        return json.loads(report)["warnings"]

    return run


def test_a_trigger_that_clip_knows_is_warned_of_and_a_new_word_is_not(told):
    for known in ("tom", "max", "anna", "maria", "lisa", "Tom", "man"):
        (text,) = told(known)
        assert f"`{known}`" in text and "ohwx" in text
    for new in ("ohwx", "sks", "tomq", "annax7", "zwx_anna", "Zo\u00eb-k"):
        assert told(new) == []
