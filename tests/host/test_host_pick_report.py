"""The workflows that sweep, pick and report, on tiny models and real photos.

Tiny random models draw no faces, so photos stand where the pictures would be.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from launcher.client.refusals import FailedPrompt
from launcher.client.workflows import load_workflow, with_settings
from launcher.makers import sample_photos

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows" / "api"
PHOTOS = ("01_portrait.jpg", "02_outdoors.jpg", "09_somebody_else.jpg")
SMALL = {"checkpoint.ckpt_name": "tiny_sd15.safetensors", "photos.folder": "picked"}


@pytest.fixture(scope="module", autouse=True)
def samples(host):
    """The sample photos in the server's input folder."""
    return sample_photos.write(host.input / "picked")


@pytest.fixture(scope="module")
def prompt(host, samples):
    """The workflow with photos in place of what the tiny model draws."""
    wanted = {**SMALL, "prepare.resolution": 128, "preset.steps": 4, "monitor.every": 2,
              "monitor.pictures": 1, "monitor.steps": 1, "canvas.width": 128,
              "canvas.height": 128, "canvas.batch_size": 1, "sample.steps": 1,
              "train.name": "picked", "subject.name": "picked"}
    full = with_settings(load_workflow(WORKFLOWS / "pick_and_report.json"), wanted)
    for number, name in enumerate(PHOTOS):
        picture = Image.open(samples[name]).convert("RGB").resize((512, 512))
        picture.save(host.input / "picked" / f"square_{number}.png")
        full[f"photo_{number}"] = {"class_type": "LoadImage", "inputs": {
            "image": f"picked/square_{number}.png"}}
    for number, (one, other) in enumerate((("photo_0", "photo_1"), ("batch_0", "photo_2"))):
        full[f"batch_{number}"] = {"class_type": "ImageBatch", "inputs": {
            "image1": [one, 0], "image2": [other, 0]}}
    for node in ("score", "pick", "report"):
        full[node]["inputs"]["images"] = ["batch_1", 0]
    full["photos"]["inputs"] |= {"folder": "", "files": "\n".join(
        f"picked/{name}" for name in sorted(samples))}
    return full


@pytest.fixture(scope="module")
def done(host, prompt):
    """The whole workflow, with rules that let a training photo pass."""
    prompt["pick"]["inputs"] |= {"verdict": "keep or unsure", "copies": "allow", "quality": "any",
                                 "count": 1}
    return host.run(prompt)


def test_the_best_picture_is_picked_and_saved_and_the_reasons_told(done):
    told = json.loads(done.text("pick"))
    assert told["count"] == 1 and len(told["images"]) == 3
    assert told["images"][0]["picked"] and 2 not in told["picked"]
    assert len(done.files("save")) == 1
    assert Path(told["sheet"]).is_file() and Path(told["report"]).is_file()


def test_the_page_holds_training_and_coverage_of_the_same_run(done):
    told = json.loads(done.text("report"))
    assert told["training"]["steps"] == 4 and told["coverage"]["coverage"]["photos"] > 0
    assert [entry["rank"] for entry in told["score"]["images"]] == [1, 2, 3]
    assert Image.open(told["page"]).width == 1400
    assert json.loads(Path(told["report"]).read_text()) == told


def test_pictures_without_a_face_are_not_picked_and_the_sentence_says_so(host, prompt, done):
    drawn = {**prompt, "pick": {**prompt["pick"], "inputs": {
        **prompt["pick"]["inputs"], "images": ["decode", 0]}}}
    del drawn["pick"]["inputs"]["report"]
    with pytest.raises(FailedPrompt, match="None of 1 pictures may be picked"):
        host.run(drawn)


def test_the_sweep_workflow_runs_on_the_lora_of_another_run(host, done):
    trained = Path(json.loads(done.text("train"))["files"]["lora"])
    wanted = {**SMALL, "subject.name": "picked", "sweep.lora": f"output/loras/{trained.name}",
              "sweep.width": 64, "sweep.height": 64, "sweep.steps": 1, "sweep.seeds": 1,
              "sweep.strengths": "0, 1", "sweep.prompts": "{subject}\n%trigger% as a statue"}
    full = with_settings(load_workflow(WORKFLOWS / "sweep_lora_strength.json"), wanted)
    full["photos"]["inputs"] |= {"folder": "", "files": done_files(host)}
    told = json.loads(host.run(full).text("sweep.0.0.result"))
    assert told["cells"] == told["sampled"] == 4 and told["flexibility_kind"] == "variety"
    assert all(column["flexibility"] is not None for column in told["columns"])


def done_files(host):
    """The sample photos alone, without the squares made of them."""
    return "\n".join(sorted(f"picked/{file.name}" for file in (host.input / "picked").iterdir()
                            if not file.name.startswith("square_")))
