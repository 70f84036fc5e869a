"""A strength sweep through the queue: cells on disk, what is sampled again, cancel, refusals.

Tiny random models draw no faces, so nothing is scored here: the curves have gaps and no strength
is recommended. Figures on real photos are in tests/unit/scoring.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from training_graphs import PHOTOS, Training

from launcher.client.refusals import FailedPrompt, InterruptedPrompt, RejectedPrompt
from launcher.makers import sample_photos

SMALL = {"width": 64, "height": 64, "steps": 1, "cfg": 1.0, "prompts": "photo of {subject}"}


@pytest.fixture(scope="module", autouse=True)
def photos(host):
    """Three photos of one person in the server's input folder."""
    made = sample_photos.write(host.input / "all_samples")
    return host.copy_photos([made[name] for name in PHOTOS], "training")


@pytest.fixture
def sweep(host, new_graph, object_info):
    """Queues a sweep of a freshly trained LoRA; gives the ids of the samplers that ran, and the
    sweep's JSON."""
    def _sweep(on_event=lambda event: None, **changes):
        samplers = set()

        def heard(event):
            node = str(event["data"].get("node"))
            if event["type"] == "executing" and ".sample_" in node:
                samplers.add(node)
            on_event(event)

        prompt = Training(new_graph(), object_info, "sd15", "swept")
        train = prompt.train(prompt.recipe("LoRA"), name="swept")
        wanted = {"model": prompt.checkpoint(0), "clip": prompt.checkpoint(1),
                  "vae": prompt.checkpoint(2), "subject": prompt.subject, **SMALL,
                  "lora_path": train(3), **changes}
        if "lora_model" in changes:
            wanted |= {"lora_path": "", "lora_model": train(1)}
        node = prompt.add("LikenessSweep", **wanted)
        if changes.get("strengths") == "0, 1":
            prompt.add("SaveImage", images=node(0), filename_prefix="swept/grid")
        run = host.run(prompt.graph.prompt, heard)
        return samplers, json.loads(run.text(f"{node.id}.0.0.result"))

    return _sweep


def test_each_cell_is_sampled_kept_and_told_without_a_score(sweep):
    samplers, told = sweep(strengths="0, 1", seed=1)
    assert len(samplers) == told["sampled"] == told["cells"] == 2
    assert all(Image.open(cell["file"]).size == (64, 64) for cell in told["pictures"])
    assert {(cell["status"], cell["score"]) for cell in told["pictures"]} == {("no_face", None)}
    assert [column["likeness"] for column in told["columns"]] == [None, None]
    assert told["best"] is None and "No picture could be scored" in told["advice"]
    assert all(Path(told[name]).is_file() for name in ("grid", "chart", "report"))
    pixels = [Path(cell["file"]).read_bytes() for cell in told["pictures"]]
    assert pixels[0] != pixels[1]


def test_a_wider_sweep_samples_what_is_new_alone(sweep):
    first = sweep(strengths="0, 1", seed=2)[1]
    samplers, told = sweep(strengths="0, 0.5, 1", seed=2)
    assert len(samplers) == told["sampled"] == 1 and told["reused"] == 2
    files = [{cell["file"] for cell in each["pictures"]} for each in (first, told)]
    assert files[0] < files[1]


def test_a_cancelled_sweep_goes_on_where_it_stopped(host, sweep):
    def cancel(event):
        if event["type"] == "executed" and ".cell_1" in event["data"]["node"]:
            host.client.interrupt(event["data"]["prompt_id"])

    with pytest.raises(InterruptedPrompt):
        sweep(cancel, strengths="1", seeds=6, seed=3)
    samplers, told = sweep(strengths="1", seeds=6, seed=3)
    assert 2 <= told["reused"] < 6 and len(samplers) == 6 - told["reused"]


def test_a_lora_of_a_socket_is_swept_like_a_file(sweep):
    told = sweep(strengths="1", seed=4, lora_model=True)[1]
    assert told["sampled"] == 1


@pytest.mark.parametrize("changes, refusal, sentence", [
    ({"strengths": "0, strong"}, RejectedPrompt, "`strong`"),
    ({"prompts": "  "}, RejectedPrompt, "`prompts` is empty"),
    ({"strengths": "0, 1", "seeds": 3, "max_cells": 5}, FailedPrompt, "6 pictures"),
    ({"lora_path": "nowhere"}, FailedPrompt, "was not found")])
def test_what_cannot_be_swept_is_refused_in_a_sentence(sweep, changes, refusal, sentence):
    with pytest.raises(refusal, match=sentence):
        sweep(**changes)
