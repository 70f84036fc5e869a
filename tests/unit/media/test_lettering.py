"""Words that must fit the room they have on a page."""

from __future__ import annotations

import pytest
from likeness.nodes.media.lettering import fit, fit_name, font, wrap
from PIL import Image, ImageDraw


@pytest.fixture
def draw():
    return ImageDraw.Draw(Image.new("RGB", (10, 10)))


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "a.jpg", "ab" * 40, "\u674e" * 90])
def test_long_names_are_shortened_in_the_middle(draw, name):
    short = fit_name(draw, name, 14, 150)
    assert draw.textlength(short, font(14)) <= 150
    assert short == name or (short.startswith(name[:2]) and short.endswith(name[-2:]))


def test_long_texts_end_in_an_ellipsis_after_so_many_lines(draw):
    lines = wrap(draw, "word " * 100, 14, 200, lines=3)
    assert len(lines) == 3 and lines[-1].endswith("...")
    assert max(draw.textlength(line, font(14)) for line in lines) <= 200


def test_what_fits_stays_as_it_is(draw):
    assert wrap(draw, "short", 14, 200, lines=3) == ["short"]
    assert fit(draw, "short", 14, 200) == "short"


def test_a_word_longer_than_the_line_is_cut(draw):
    lines = wrap(draw, "x" * 200 + " end", 14, 200, lines=3)
    assert lines[0].endswith("...") and lines[1] == "end"
    assert max(draw.textlength(line, font(14)) for line in lines) <= 200
