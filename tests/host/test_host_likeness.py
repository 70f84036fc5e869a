"""The person comes out: real faces from the small base model, before and after training.

One person, whom the base has never seen, through the queue of a real ComfyUI; judged by the two
recognisers apart, against photos that do not train.
"""

from __future__ import annotations

import json
from statistics import median

import pytest

from launcher.demo import prompts
from launcher.makers import sample_photos

STEPS = 250
# By how much training must raise the median likeness to photos that never train; two strangers have
# 0.18 by dlib and 0.04 by MobileFaceNet.
MARGIN = {"dlib": 0.1, "mobilefacenet": 0.25}


@pytest.fixture(scope="module")
def demo(host):
    """The demo's prompt run once, with every branch scored."""
    sample_photos.write(host.input / "likeness_demo")
    prompt = prompts.with_demonstrator("man")
    prompt["photos"]["inputs"]["folder"] = "likeness_demo"
    prompt["recipe"]["inputs"]["steps"] = STEPS
    for branch in ("before", "after"):
        _score(prompt, branch)
    return host.run(prompt)


def _score(prompt, branch):
    score = json.loads(json.dumps(prompt["score"]))
    score["inputs"] |= {"images": [f"{branch}_decode", 0], "save_prefix": f"likeness/ci/{branch}"}
    prompt[f"{branch}_score"] = score


def likeness(run, node):
    """The median similarity by each judge, of the pictures in which it can be told."""
    images = json.loads(run.text(node))["images"]
    return {judge: median(own["score"] for image in images for own in image["judges"]
                          if own["backend"] == judge and own["score"] is not None)
            for judge in MARGIN}


def test_the_base_draws_faces(demo):
    images = json.loads(demo.text("before_score"))["images"]
    assert [image["faces"] for image in images] == [1] * prompts.PICTURES


def test_training_makes_them_look_like_the_person_to_both_judges(demo):
    before, after = likeness(demo, "before_score"), likeness(demo, "after_score")
    for judge, margin in MARGIN.items():
        assert after[judge] > before[judge] + margin, (judge, before, after)
