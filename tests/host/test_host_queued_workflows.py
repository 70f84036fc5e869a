"""Every workflow file as a newcomer runs it: `run.py queue` with a folder of photos."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from training_graphs import SMALL

from launcher.client.workflows import load_workflow
from launcher.command_line import main
from launcher.makers import sample_photos

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows" / "api"
QUEUED = {  # workflow -> tiny checkpoint, what is changed for speed, what has to come back
    "coach_photos": (None, {}, ["likeness/curation-*.json"]),
    "curate_and_caption": (None, {"crop.resolution": 128}, ["*.txt"]),
    "train_lora_monitored": ("sd3", {"monitor.every": 4, "class_photos.cfg": 1.0},
                             ["loras/*.safetensors"]),
    "pivotal_tuning": ("sdxl", {}, ["loras/*.safetensors", "embeddings/*.safetensors"]),
    "dreambooth": ("sd15", {}, ["checkpoints/*.safetensors"]),
    "textual_inversion": ("sd15", {}, ["embeddings/*.safetensors"]),
    "flux_low_memory": ("flux", {}, ["loras/*.safetensors"]),
    "export_to_kohya": ("sdxl", {}, ["dataset.toml", "photos/*.txt"]),
}
# They need controls, a face adapter or a trained file beside the checkpoint.
QUEUED_ELSEWHERE = {"techniques_side_by_side": "test_host_workflows.py",
                    "selfies_to_headshots": "test_host_commands.py",
                    "sweep_lora_strength": "test_host_pick_report.py",
                    "pick_and_report": "test_host_pick_report.py"}


def test_no_workflow_file_is_left_out():
    names = {path.stem for path in WORKFLOWS.glob("*.json")}
    assert names == QUEUED.keys() | QUEUED_ELSEWHERE.keys()
    for name, test in QUEUED_ELSEWHERE.items():
        text = (Path(__file__).parent / test).read_text()
        assert name in text or "prompts.WORKFLOW" in text


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """The sample photos in a folder of the user's."""
    folder = tmp_path_factory.mktemp("samples")
    sample_photos.write(folder)
    return folder


@pytest.mark.parametrize("name", QUEUED)
def test_a_workflow_file_runs_from_the_command_line(host, samples, tmp_path, capfd, name):
    architecture, changed, wanted = QUEUED[name]
    path = WORKFLOWS / f"{name}.json"
    prompt = load_workflow(path)
    settings = {**SMALL, **changed, "subject.name": f"queued {name}"}
    if architecture:
        settings["checkpoint.ckpt_name"] = f"tiny_{architecture}.safetensors"
    given = [word for key, value in settings.items()
             if key.split(".")[0] in prompt and key != "photos.folder"
             for word in ("--set", f"{key}={value}")]

    code = main(["queue", str(path), *given, "--server", host.client.url,
                 "--photos", str(samples), "--out", str(tmp_path)])

    said, complained = capfd.readouterr()
    assert (code, complained) == (0, "") and "Not fetched" not in said
    # What was made lies in the user's folder; an export stays in one that the command names.
    named = [Path(path) for path in re.findall("A folder that stays on the server: (.*)", said)]
    assert all(path.is_dir() for path in named)
    searched = named if name == "export_to_kohya" else [tmp_path]
    for pattern in wanted:
        assert any(list(folder.rglob(pattern)) for folder in searched), (pattern, said)
