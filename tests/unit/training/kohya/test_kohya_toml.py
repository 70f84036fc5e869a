"""TOML that reads back as what was written."""

from __future__ import annotations

import pytest
from likeness.nodes.training.kohya import toml

tomllib = pytest.importorskip("tomllib")

TABLE = {
    "text": 'a "quoted" \\path\\ with tab\t, line\nbreak, \x7f, \x01 and \u00e9\U0001f600',
    "empty": "", "yes": True, "no": False, "whole": -3, "large": 2 ** 40,
    "small": 1e-06, "tiny": 5e-324, "share": 0.1, "round": 2.0, "huge": 1e+22,
    "list": ["weight_decay=0.01", "a,b"], "sizes": [512, 512], "none": [],
    "a key.with dots": 1,
    "general": {"on": True, "inner": {"deep": "x"}},
    "datasets": [{"n": 1, "subsets": [{"dir": "a"}, {"dir": "b"}]}, {"n": 2, "subsets": []}],
}


def test_what_is_written_reads_back_the_same():
    assert tomllib.loads(toml.dumps(TABLE)) == TABLE


def test_numbers_keep_their_kind():
    back = tomllib.loads(toml.dumps(TABLE))
    assert isinstance(back["round"], float) and isinstance(back["huge"], float)
    assert isinstance(back["whole"], int) and back["yes"] is True


def test_values_without_a_form_are_refused():
    with pytest.raises(TypeError, match="no form for NoneType"):
        toml.dumps({"key": None})
