"""The page and the JSON of a whole run, of real photos and of what other nodes report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import folder_paths
import numpy as np
import pytest
import torch
from likeness.nodes.errors import LikenessError
from likeness.nodes.media.images import read_photo, to_image
from likeness.nodes.scoring.pick.nodes import scored
from likeness.nodes.scoring.report.nodes import LikenessReportNode
from likeness.nodes.scoring.report.page import WIDTH

NAMES = ("nobody", "biden", "obama3", "obama", "astronaut", "two", "biden2")
STEPS = 120


@pytest.fixture
def output(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def images(pictures):
    return to_image(np.stack([pictures[name] for name in NAMES]))


@pytest.fixture(scope="module")
def report(pictures, obama):
    return scored([pictures[name] for name in NAMES], obama, "dlib")


def training(output: Path) -> dict:
    """What Likeness Train reports, and the file it names."""
    looks = [{"step": step, "likeness": None if step == 20 else 0.3 + step / 500,
              "copy": 0.02 + step / 4000} for step in range(20, STEPS + 1, 20)]
    noise = np.random.default_rng(3).normal(0, 0.02, STEPS)
    steps = [{"step": step, "loss": 0.14 - step / 4000 + float(noise[step - 1])}
             for step in range(1, STEPS + 1)]
    file = output / "likeness" / "runs" / "Obama.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"steps": steps, "looks": looks}))
    return {"method": "lora", "steps": STEPS, "kept_step": 100, "first_loss": 0.14, "photos": 8,
            "final_loss": 0.11, "class_photos": 0, "ended": f"all {STEPS} steps are done.",
            "likeness": looks, "history": str(file), "warnings": [], "seed": 7,
            "recipe": {"method": "lora", "steps": STEPS, "rank": 16, "alpha": 16.0,
                       "learning_rate": 0.0001, "optimizer": "adamw", "batch_size": 1}}


COACH = {"headline": "Good: 9 photos that amount to 7.1 entirely different ones.", "score": 61.5,
         "shots": [{"text": "Three-quarter view: turn your head half way to your own right, a soft "
                            "smile, soft window light from your own left, one step closer."}],
         "coverage": {"counts": {
             "yaw": {"profile_left": 0, "three_quarter_left": 1, "frontal": 5,
                     "three_quarter_right": 2, "profile_right": 0},
             "pitch": {"up": 1, "level": 7, "down": 0},
             "expression": {"neutral": 3, "serious": 0, "smile": 3, "laugh": 2, "talking": 0},
             "light_side": {"left": 2, "even": 5, "right": 1},
             "light_key": {"low": 2, "middle": 5, "high": 1},
             "light_contrast": {"soft": 6, "hard": 2},
             "light_warmth": {"cold": 0, "plain": 6, "warm": 2},
             "distance": {"full": 0, "upper_body": 2, "shoulders": 4, "close": 2}}}}

SWEEP = {"axis": "strength", "best": 0.6, "knee": True, "cells": 24, "prompts": ["a", "b"],
         "advice": "Beyond 0.6 likeness costs more flexibility than it did before.",
         "flexibility": "CLIP-T: mean cosine of picture and prompt", "flexibility_kind": "clip_t",
         "spread": {"low": 0.55, "median": 0.62, "high": 0.7},
         "columns": [{"label": f"{x:g}", "strength": x, "likeness": alike, "likeness_error": 0.01,
                      "flexibility": free, "flexibility_error": 0.004, "scored": 4}
                     for x, alike, free in ((0, 0.3, 0.31), (0.4, 0.48, 0.305), (0.6, 0.6, 0.3),
                                            (0.8, 0.62, 0.28), (1.0, 0.63, 0.25))]}


def run(report, subject, **inputs):
    with torch.inference_mode():
        done = LikenessReportNode.execute(report, subject, "Obama, October", **inputs)
    page, text = done.args
    return page, json.loads(text), done.ui


def test_a_whole_run_stands_on_one_page_and_in_one_file(output, report, obama, images):
    page, told, shown = run(report, obama, images=images,
                            training_report=json.dumps(training(output)),
                            coach_report=json.dumps(COACH), sweep=json.dumps(SWEEP))
    assert page.shape[2] == WIDTH and page.shape[1] > 1800
    assert json.loads(Path(told["report"]).read_text()) == told
    assert np.array_equal(read_photo(told["page"]), np.uint8(page[0].numpy() * 255 + 0.5))
    assert told["sweep"]["best"] == 0.6 and told["training"]["recipe"]["rank"] == 16
    assert told["score"] == report.data and len(told["photos"]["held_out"]) == 1
    assert shown["images"][0]["filename"] == "report_00001.png"
    assert Path(told["report"]).parent == output / "likeness" / "Obama"


def test_what_is_not_connected_is_left_out(output, report, obama):
    page, told, _ = run(report, obama)
    whole = run(report, obama, sweep=json.dumps(SWEEP))[0]
    assert (told["training"], told["coverage"], told["sweep"]) == (None, None, None)
    assert page.shape[1] < whole.shape[1]


def test_a_training_file_that_is_gone_leaves_the_looks(output, report, obama):
    told = training(output)
    Path(told["history"]).unlink()
    page, data, _ = run(report, obama, training_report=json.dumps(told))
    assert data["training"]["steps"] == STEPS and page.shape[2] == WIDTH


def test_a_training_report_may_not_lead_out_of_the_output_folder(output, report, obama, tmp_path):
    told = training(output) | {"history": "/etc/passwd"}
    with pytest.raises(LikenessError, match="outside the output folder"):
        run(report, obama, training_report=json.dumps(told))


@pytest.mark.parametrize("name, text", [("training_report", "{}"), ("coach_report", "words"),
                                        ("sweep", "[1]"), ("training_report", json.dumps(COACH))])
def test_another_text_than_the_one_meant_is_refused(output, report, obama, name, text):
    with pytest.raises(LikenessError, match=f"`{name}` is not what"):
        run(report, obama, **{name: text})
    assert not list(output.iterdir())


def test_pictures_and_people_that_do_not_belong_together_are_refused(output, report, obama, images):
    with pytest.raises(LikenessError, match="other pictures"):
        run(report, obama, images=images[:2])
    with pytest.raises(LikenessError, match="about `Obama`"):
        run(report, replace(obama, name="Joe"))


def test_a_photo_whose_file_is_gone_is_named_and_not_fatal(output, report, obama, tmp_path):
    lost = replace(obama.references[0], file=tmp_path / "gone.png")
    changed = replace(obama, references=(lost, *obama.references[1:]))
    assert run(report, changed)[1]["photos"]["references"][0]["file"].endswith("gone.png")
