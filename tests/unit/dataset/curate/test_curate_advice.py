"""Every rule that can speak against a photo has advice for who runs out of photos."""

from __future__ import annotations

import re
from pathlib import Path

import likeness
from likeness.nodes.dataset.coach.select import PASSED
from likeness.nodes.dataset.curate.overrides import BY_HAND
from likeness.nodes.dataset.subject.subject import _ADVICE


def test_every_rule_that_speaks_against_a_photo_has_advice():
    nodes = Path(likeness.__file__).parent / "nodes"
    sources = [*(nodes / "quality").glob("*.py"), *(nodes / "dataset").rglob("*.py")]
    ruled = {rule for source in sources
             for rule in re.findall(r"Reason\(\s*\"(\w+)\"", source.read_text("utf-8"))}
    assert len(ruled) > 14
    assert (ruled | {BY_HAND, PASSED}) - _ADVICE.keys() == set()
