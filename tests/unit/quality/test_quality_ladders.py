"""Photos made worse step by step: the verdict goes down once and never comes back."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from likeness.nodes.quality.judge import judge
from likeness.nodes.quality.look import look_at
from likeness.nodes.quality.rules import Rules
from PIL import Image, ImageFilter

ORDER = {"keep": 0, "unsure": 1, "reject": 2}
FACE = 234  # pixels of width in obama.jpg


def blurred(picture, radius):
    return picture.filter(ImageFilter.GaussianBlur(radius)) if radius else picture


def exposed(picture, light):
    linear = (np.asarray(picture, np.float64) / 255) ** 2.2 * light
    return Image.fromarray(np.uint8(np.clip(linear, 0, 1) ** (1 / 2.2) * 255))


def compressed(picture, quality):
    stored = io.BytesIO()
    picture.save(stored, "JPEG", quality=quality)
    return Image.open(stored).convert("RGB")


def shrunk_and_grown(picture, factor):
    small = picture.resize([round(side / factor) for side in picture.size],
                           Image.Resampling.BICUBIC)
    return small.resize(picture.size, Image.Resampling.BICUBIC)


def shrunk(picture, width):
    return picture.resize([round(side * width / FACE) for side in picture.size],
                          Image.Resampling.LANCZOS)


LADDERS = {
    "blurred": (blurred, (0, 1, 1.3, 2, 3, 4, 6, 9), "sharpness", -1, Rules()),
    "dark": (exposed, (1, 0.5, 0.3, 0.2, 0.12, 0.08, 0.04), "highlights", -1, Rules()),
    "bright": (exposed, (1, 1.5, 2, 2.3, 3, 4, 6, 9), "clipped_bright", 1, Rules()),
    "compressed": (compressed, (95, 75, 50, 30, 20, 15, 10, 5), "compression", 1,
                   Rules(min_sharpness=0, soft_sharpness=0)),
    "enlarged": (shrunk_and_grown, (1, 1.5, 2, 3, 4, 5, 6), "enlargement", 1,
                 Rules(min_sharpness=0, soft_sharpness=0)),
    "too_small": (shrunk, (234, 180, 140, 120, 105, 90, 70), "eyes_apart", -1, Rules()),
}


@pytest.fixture(scope="module")
def portrait(assets):
    with Image.open(assets / "obama.jpg") as picture:
        return picture.convert("RGB")


@pytest.mark.parametrize("rule", list(LADDERS))
def test_the_verdict_falls_once_and_the_measure_goes_one_way(portrait, rule):
    worsen, steps, name, direction, rules = LADDERS[rule]
    verdicts, values = [], []
    for step in steps:
        seen = look_at(np.asarray(worsen(portrait, step)))
        reason = next((one for one in judge(seen, rules) if one.rule == rule), None)
        verdicts.append(ORDER[reason.verdict.value] if reason else 0)
        values.append(seen.measures[name] * direction)
    assert verdicts == sorted(verdicts), (verdicts, values)
    assert verdicts[0] == 0 and verdicts[-1] == 2 and 1 in verdicts, (verdicts, values)
    worse = [value for value, verdict in zip(values, verdicts, strict=True) if verdict]
    assert worse == sorted(worse), values


def test_a_soft_photo_of_many_pixels_does_not_count_as_enlarged(portrait):
    grown = portrait.resize([side * 4 for side in portrait.size], Image.Resampling.BICUBIC)
    assert not judge(look_at(np.asarray(grown)), Rules())


def test_a_small_face_blown_up_is_found_out(portrait):
    small = shrunk(portrait, 60)
    grown = small.resize([side * 8 for side in small.size], Image.Resampling.BICUBIC)
    reasons = judge(look_at(np.asarray(grown)), Rules(min_sharpness=0, soft_sharpness=0))
    assert [(reason.rule, reason.verdict.value) for reason in reasons] == [("enlarged", "reject")]


@pytest.mark.parametrize(("factor", "share", "verdict"), [
    (3.5, 1.7, None), (2.3, 0.3, None), (2.5, 1.5, "unsure"), (2.5, 0.3, "unsure"),
    (3.5, 1.0, "unsure"), (3.5, 0.8, "reject")])
def test_an_enlarged_face_is_judged_by_the_pixels_that_it_came_from(portrait, factor, share,
                                                                    verdict):
    seen = look_at(np.asarray(portrait))
    rules = Rules(min_face=64)
    measures = {**seen.measures, "enlargement": factor, "eyes_apart": 0.0,
                "face_width": factor * share * rules.min_face}
    reasons = judge(dataclasses.replace(seen, measures=measures), rules)
    found = {reason.rule: reason.verdict.value for reason in reasons}
    assert found.get("enlarged") == verdict


@pytest.mark.parametrize(("width", "factor"), [(130, 4), (150, 5)])
def test_a_face_that_came_from_pixels_enough_is_not_rejected(portrait, width, factor):
    small = shrunk(portrait, width)
    grown = small.resize([side * factor for side in small.size], Image.Resampling.BICUBIC)
    reasons = judge(look_at(np.asarray(grown)), Rules(min_sharpness=0, soft_sharpness=0))
    assert all(reason.verdict.value == "unsure" for reason in reasons)


def test_the_block_grid_is_found_wherever_a_crop_has_put_it(portrait):
    stored = compressed(portrait, 15)
    values = [look_at(np.asarray(stored.crop((shift, shift // 2, 900, 1100)))).measures[
        "compression"] for shift in (0, 3, 5)]
    assert min(values) > 4 and max(values) < 1.2 * min(values)


def test_a_face_that_training_will_shrink_is_judged_at_that_size(portrait):
    wide = Image.new("RGB", (3600, 2400), "grey")
    wide.paste(portrait, (1300, 600))
    seen = look_at(np.asarray(wide))
    assert not judge(seen, Rules())
    (reason,) = judge(seen, Rules(training_size=1024))
    assert reason.rule == "too_small" and "at training size" in reason.text
