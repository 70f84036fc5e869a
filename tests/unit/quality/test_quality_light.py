"""Where the light comes from, how bright, hard and warm it is, on lit copies of real photos."""

from __future__ import annotations

import numpy as np
import pytest
from likeness.nodes.faces.detect import find_face
from likeness.nodes.quality.light import light_measures
from likeness.nodes.quality.tones import landmark_colours
from PIL import Image


@pytest.fixture(scope="module")
def lit(assets):
    with Image.open(assets / "obama.jpg") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    face = find_face(pixels)

    def run(gain=1.0, mirror=False, tint=(1, 1, 1)):
        linear = (pixels / 255.0) ** 2.2 * np.broadcast_to(gain, pixels.shape[:2])[..., None]
        shown = np.uint8(np.clip(linear * tint, 0, 1) ** (1 / 2.2) * 255)
        if mirror:
            shown = np.ascontiguousarray(shown[:, ::-1])
        return light_measures(landmark_colours(shown, find_face(shown) if mirror else face))

    run.face, run.shape = face, pixels.shape
    return run


def ramp(lit, axis, strong):
    """Light that falls off across the face along an axis, four times from one edge to the other."""
    x0, y0, x1, y1 = lit.face.box
    edges = (x0, x1) if axis == 1 else (y0, y1)
    share = np.clip((np.arange(lit.shape[axis]) - edges[0]) / (edges[1] - edges[0]), 0, 1)
    light = 0.25 + 0.75 * (share if strong == "end" else 1 - share)
    return light[None] if axis == 1 else light[:, None]


def test_light_from_each_side_has_its_sign(lit):
    plain = lit()["light_side"]
    assert lit(ramp(lit, 1, "end"))["light_side"] > plain + 0.2 > plain - 0.2
    assert lit(ramp(lit, 1, "start"))["light_side"] < plain - 0.2


def test_a_mirrored_photo_has_its_light_on_the_other_side(lit):
    gain = ramp(lit, 1, "end")
    assert lit(gain, mirror=True)["light_side"] == pytest.approx(-lit(gain)["light_side"], abs=0.08)


def test_light_from_above_and_below_has_its_sign(lit):
    plain = lit()["light_top"]
    assert lit(ramp(lit, 0, "start"))["light_top"] > plain + 0.2
    assert lit(ramp(lit, 0, "end"))["light_top"] < plain - 0.2


def test_less_light_lowers_the_key_and_nothing_else(lit):
    plain, dim = lit(), lit(0.4)
    assert dim["light_key"] < 0.75 * plain["light_key"]
    for name in ("light_side", "light_top", "light_contrast"):
        assert dim[name] == pytest.approx(plain[name], abs=0.08)


def test_hard_light_has_more_contrast(lit):
    assert lit(ramp(lit, 1, "end"))["light_contrast"] > lit()["light_contrast"] + 0.15


def test_a_warm_tint_is_warmer_and_a_cold_one_colder(lit):
    warm, plain, cold = (lit(tint=tint)["light_warmth"]
                         for tint in ((1, 0.85, 0.6), (1, 1, 1), (0.7, 0.85, 1)))
    assert warm > plain + 0.2 and cold < plain - 0.2
