"""The coach's page: whose left and right its labels mean, what it asks for, and damaged files."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
from likeness.nodes.dataset.coach import coach, shot_words
from likeness.nodes.dataset.coach.coverage import AXIS
from likeness.nodes.dataset.coach.sheet import coach_page
from likeness.nodes.sockets import PhotoSet
from PIL import Image, ImageDraw


@pytest.fixture
def written(monkeypatch):
    """Draws a page and gives its texts in their order, as (text, x, y, colour)."""
    def page_of(photos):
        found = []
        plain = ImageDraw.ImageDraw.text

        def text(self, xy, text, fill=None, *args, **kwargs):
            found.append((text, *xy, fill))
            return plain(self, xy, text, fill, *args, **kwargs)

        monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
        photos = PhotoSet(tuple(photos))
        page_of.page = coach_page(coach.advise(photos), photos)
        monkeypatch.undo()
        return found

    return page_of


def words(found) -> list[str]:
    return [text for text, *_ in found]


def test_the_columns_say_the_turn_that_the_shooting_list_asks_for(written):
    """From the left of the page, as the noses point; a turn to the right shows the left cheek."""
    found = words(written([]))
    start = found.index("full turn to your right")
    titles = found[start:start + 5]
    assert titles == ["full turn to your right", "half turn to your right", "frontal",
                      "half turn to your left", "full turn to your left"]
    for title, part in zip(titles, AXIS["yaw"].bins, strict=True):
        text = shot_words.describe_shot(
            {"yaw": part.id, "pitch": "level", "expression": "neutral", "light": "even",
             "distance": "close", "place": "same"}, None)
        for side in ("left", "right"):
            assert (f"your {side}" in title) == (f"your own {side}" in text)
        assert ("half" in title) == ("half way" in text)
    assert not any("profile" in word for word in titles)


@pytest.mark.parametrize(("yaw", "title"), [
    (-60, "full turn to your right"), (-30, "half turn to your right"), (0, "frontal"),
    (30, "half turn to your left"), (60, "full turn to your left")])
def test_a_photo_lies_under_the_turn_that_it_shows(written, posed, yaw, title):
    found = written([posed("a", yaw=yaw)])
    x = {text: x for text, x, *_ in found}
    picture = written.page[380:520]  # the middle row, all columns
    white = (np.abs(picture.astype(int) - (243, 245, 247)).sum(2) < 6) | (picture.min(2) > 250)
    shares = {name: (~white[:, int(x[name]) - 80:int(x[name]) + 80]).mean() for name in (
        "full turn to your right", "half turn to your right", "frontal",
        "half turn to your left", "full turn to your left")}
    assert max(shares, key=shares.get) == title


@pytest.mark.parametrize(("side", "label"), [(-0.5, "your right"), (0.5, "your left")])
def test_light_is_counted_on_the_persons_own_side(written, posed, side, label):
    """Light from the left of the picture falls on the person's own right."""
    found = written([posed("a", side=side)])
    place = next(at for at, (text, *_) in enumerate(found) if text == label)
    count = next(text for text, _, y, _ in found[place + 1:] if y == found[place][2])
    other = "your left" if label == "your right" else "your right"
    place = next(at for at, (text, *_) in enumerate(found) if text == other)
    assert (count, next(text for text, _, y, _ in found[place + 1:]
                        if y == found[place][2])) == ("1", "0")


def test_parts_of_which_one_is_enough_name_each_other(written, posed):
    found = words(written([posed("a", share=0.5, mouthSmile=0.6)]))
    assert {"this or serious", "this or neutral", "this or upper body", "this or full body",
            "this or your left", "this or your right"} <= set(found)
    assert "this or broad smile" not in found
    assert found[found.index("head, shoulders") + 1] == "needed"


def test_one_photo_is_written_in_the_singular(written, posed):
    assert "1 photo" in words(written([posed("a")])) and "0 photos" in words(written([]))


def damaged_png(path):
    Image.effect_noise((400, 400), 90).save(path, format="PNG")
    data = bytearray(path.read_bytes())
    second = data.find(b"IDAT", data.find(b"IDAT") + 4)
    data[second:second + 4] = b"\0\1\2\3"
    path.write_bytes(bytes(data))


def bomb(path):
    Image.new("1", (20000, 19000)).save(path, format="PNG")


def other_size(path):
    Image.new("RGB", (900, 60)).save(path, format="JPEG")


@pytest.mark.parametrize("spoil", [damaged_png, bomb, other_size, lambda path: path.unlink()])
def test_a_file_that_changed_since_leaves_a_gap_with_a_word(written, posed, tmp_path, spoil):
    file = tmp_path / "a.jpg"
    photo = posed("a")
    file.write_bytes(photo.file.read_bytes())
    moved = dataclasses.replace(photo, file=file)
    assert "file changed" not in words(written([moved]))
    spoil(file)
    assert "file changed" in words(written([moved]))
    if file.exists() and spoil is not other_size:
        now = hashlib.sha256(file.read_bytes()).hexdigest()
        assert "file changed" in words(written([dataclasses.replace(moved, sha256=now)]))


def test_a_cancel_ends_the_drawing(posed):
    def cancel():
        raise KeyboardInterrupt

    photos = PhotoSet((posed("a"),))
    with pytest.raises(KeyboardInterrupt):
        coach_page(coach.advise(photos), photos, cancel)


def test_no_bar_runs_into_the_next_chart_or_the_list(written, posed):
    """Every label of the bars has a line of its own in its column, above the list."""
    found = written([posed(name) for name in "abc"])
    said = words(found)
    chart = found[said.index("Expression"):said.index("Shoot next")]
    columns: dict[int, list[float]] = {}
    for text, x, y, _ in chart:
        if not text.isdigit() and not text.startswith(("this or", "needed")):
            columns.setdefault(round(x) // 360, []).append(y)
    assert {"Light colour", "Distance", "Backgrounds"} <= {text for text, *_ in chart}
    assert len(columns) == 3
    for lines in columns.values():
        assert min(np.diff(sorted(lines))) >= 18
        assert max(lines) < found[said.index("Shoot next")][2] - 30
