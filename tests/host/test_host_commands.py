"""`run.py`'s commands against a real server: the demo's results, and a queued run's files."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from launcher.client.workflows import load_workflow, with_settings
from launcher.command_line import main
from launcher.demo import command, prompts, results
from launcher.hosts.host import ROOT, Host
from launcher.makers import sample_photos

COMFYUI = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".host" / "ComfyUI")
PICTURES = 4
# Small sizes and the test host's models.
SMALL = {
    "prepare.resolution": 192, "recipe.steps": 3, "canvas.width": 192, "canvas.height": 240,
    "canvas.batch_size": PICTURES, "face_map.width": 192, "face_map.height": 240,
    "face_map.smallest_face": 48, "pose_map.width": 192, "pose_map.height": 240,
    "sample.steps": 4, "checkpoint.ckpt_name": "tiny_sd15.safetensors",
    "face_control.control_net_name": "tiny_sd15_face.safetensors",
    "pose_control.control_net_name": "tiny_sd15_pose.safetensors",
    "face_adapter.adapter": "tiny_faceid_sd15.safetensors", "subject.name": "commands",
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The sample photos in a folder of the user's."""
    folder = tmp_path_factory.mktemp("photos")
    sample_photos.write(folder)
    return folder


def test_collect_puts_a_finished_run_together(host, photos):
    files = sorted(photos.iterdir())
    folder = host.copy_photos(files, "commands")
    run = host.run(with_settings(load_workflow(prompts.WORKFLOW),
                                 {**SMALL, "photos.folder": folder}))

    found = json.loads(json.dumps(results.collect(run, files)))

    assert set(found) == {"photos", "training", "images", "report"}
    assert [Path(photo["file"]) for photo in found["photos"]] == files
    for photo in found["photos"]:
        assert set(photo) == {"file", "verdict", "reasons"}
        assert bool(photo["reasons"]) == (photo["verdict"] != "keep")
    assert {photo["verdict"] for photo in found["photos"]} == {"keep", "reject", "unsure"}
    assert set(found["training"]) == {"steps", "seconds_per_step", "lora", "bytes",
                                        "parameters_share"}
    assert found["training"]["steps"] == 3
    assert len(found["images"]) == PICTURES
    for image in found["images"]:
        assert set(image) == {"file", "score", "verdict", "judges"}
    named = [found["training"]["lora"], found["report"],
             *(image["file"] for image in found["images"])]
    assert all(Path(file).is_absolute() and Path(file).is_file() for file in named)


def test_queue_brings_the_files_of_a_run(host, photos, tmp_path, capfd):
    settings = [word for name, value in {**SMALL, "subject.name": "queued"}.items()
                for word in ("--set", f"{name}={value}")]
    out = tmp_path / "out"

    code = main(["queue", str(prompts.WORKFLOW), *settings, "--server", host.client.url,
                 "--photos", str(photos), "--out", str(out)])

    said, complained = capfd.readouterr()
    assert (code, complained) == (0, "")
    assert "Not fetched" not in said
    fetched = {file.relative_to(out).as_posix(): file for file in out.rglob("*") if file.is_file()}
    assert all(str(file) in said for file in fetched.values())
    headshots = [name for name in fetched if name.startswith("likeness/queued/headshot")]
    assert len(headshots) == PICTURES
    assert any(name.startswith("loras/") and name.endswith(".safetensors") for name in fetched)
    assert any(name.endswith(".json") and "scores" in name for name in fetched)
    for name, file in fetched.items():
        assert file.read_bytes() == (host.output / name).read_bytes()


@pytest.mark.parametrize("architecture, side, sampling", [
    ("sd15", 512, (6.0, "dpmpp_2m", "karras")), ("sdxl", 1024, (6.0, "dpmpp_2m", "karras")),
    ("sd3", 1024, (4.5, "euler", "sgm_uniform")), ("flux", 1024, (1.0, "euler", "simple")),
])
def test_the_demo_sizes_and_samples_a_checkpoint_as_its_family_wants(
        host, photos, object_info, architecture, side, sampling):
    request = command.DemoRequest(f"tiny_{architecture}.safetensors", photos, None)
    prompt = command.make_prompt(
        request, Host(host.base, Path(sys.executable), embedded=False), host.client)
    names = ("cfg", "sampler_name", "scheduler")
    inputs = prompt["sample"]["inputs"]
    assert tuple(inputs[name] for name in names) == sampling
    known = object_info["KSampler"]["input"]["required"]
    assert all(inputs[name] in known[name][0] for name in names[1:])
    assert prompt["prepare"]["inputs"]["resolution"] == prompt["canvas"]["inputs"]["width"] == side


def test_a_checkpoint_that_the_host_lacks_is_one_sentence(photos, capfd):
    assert main(["demo", "--comfyui", str(COMFYUI), "--python", sys.executable, "--photos",
                 str(photos), "--checkpoint", "absent.safetensors"]) == 1
    complained = capfd.readouterr().err
    assert complained.startswith("There is no checkpoint `absent.safetensors`; the host has ")
    assert complained.count("\n") == 1


def test_photos_of_three_people_end_the_demo_in_one_sentence(assets, tmp_path, capfd):
    for name in ("astronaut", "biden", "obama"):
        (tmp_path / f"{name}.jpg").write_bytes((assets / f"{name}.jpg").read_bytes())
    assert main(["demo", "--comfyui", str(COMFYUI), "--python", sys.executable, "--photos",
                 str(tmp_path)]) == 4
    complained = capfd.readouterr().err.strip()
    assert complained.startswith("`Subject` failed: The photos show 3 different people")
    assert "Traceback" not in complained and complained.count("\n") == 0
