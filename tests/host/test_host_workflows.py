"""The workflows of single techniques, through the queue of a real ComfyUI on tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from training_graphs import SMALL

from launcher.client.refusals import FailedPrompt
from launcher.client.workflows import load_workflow, with_settings
from launcher.makers import sample_photos

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows" / "api"


@pytest.fixture(scope="module")
def run(host):
    """Runs a workflow small, with a tiny checkpoint and further settings."""
    sample_photos.write(host.input / "samples")

    def _run(name, architecture, **settings):
        prompt = load_workflow(WORKFLOWS / f"{name}.json")
        named = {key.replace("__", "."): value for key, value in settings.items()}
        wanted = {"checkpoint.ckpt_name": f"tiny_{architecture}.safetensors", **SMALL, **named}
        own = {key: value for key, value in wanted.items() if key.split(".")[0] in prompt}
        return host.run(with_settings(prompt, own))

    return _run


def trained(done):
    """The report of Train, whose files are there and whose pictures were judged."""
    report = json.loads(done.text("train"))
    assert report["steps"] == 4
    assert all(Path(file).is_file() for file in report["files"].values())
    assert len(json.loads(done.text("score"))["images"]) == 2
    return report


def test_a_watched_lora_is_trained_with_class_photos_and_looked_at(run):
    report = trained(run("train_lora_monitored", "sdxl"))
    assert report["method"] == "lora" and report["class_photos"] == 2
    assert [look["step"] for look in report["likeness"]] == [2, 4]


@pytest.mark.parametrize("architecture", ["sd15", "sd3", "flux"])
def test_the_same_graph_trains_other_architectures_with_their_own_preset(run, architecture):
    done = run("train_lora_monitored", architecture, class_photos__cfg=1.0, monitor__every=4)
    trained(done)
    assert json.loads(done.text("preset"))["preset"] == f"{architecture}_portrait"


def test_pivotal_tuning_saves_a_lora_and_a_word_of_one_run(run):
    report = trained(run("pivotal_tuning", "sdxl"))
    assert report["files"].keys() == {"lora", "embedding"}
    assert report["word_vectors"] == 2 and report["layers"] > 0


def test_dreambooth_saves_a_whole_checkpoint(run):
    report = trained(run("dreambooth", "sd15"))
    assert report["method"] == "dreambooth" and report["class_photos"] == 2
    assert report["files"].keys() == {"checkpoint"}


def test_textual_inversion_saves_a_word_and_leaves_the_model(run):
    report = trained(run("textual_inversion", "sd15"))
    assert report["files"].keys() == {"embedding"}
    assert report["layers"] == 0 and report["bytes"]["embedding"] < 100_000


def test_the_low_memory_graph_trains_over_four_bit_weights(run):
    report = trained(run("flux_low_memory", "flux"))
    assert report["recipe"]["base_weights"] == "nf4"
    assert report["recipe"]["optimizer"] == "adamw 8-bit"


def test_the_export_holds_photos_captions_and_the_command(run):
    report = json.loads(run("export_to_kohya", "sdxl").text("export"))
    folder = Path(report["folder"])
    assert report["script"] == "sdxl_train_network.py"
    assert list(folder.rglob("*.toml")) and list(folder.rglob("*.txt"))


def test_a_preset_of_another_architecture_is_one_sentence(run):
    with pytest.raises(FailedPrompt, match="^`Preset` failed: The preset `SDXL pivotal` is for "
                                           "SDXL, and the connected MODEL is SD1.5; choose auto"):
        run("pivotal_tuning", "sd15")


def test_ten_techniques_stand_in_one_table(run, host):
    prompt = load_workflow(WORKFLOWS / "techniques_side_by_side.json")
    few = {f"{key}__steps": 2 for key in prompt if key.endswith("_recipe")
           and "steps" in prompt[key]["inputs"]}
    done = run("techniques_side_by_side", "sd15", subject__held_out=1, monitor__every=0,
               lora_64_recipe__rank=32, **few)
    told = json.loads(done.text("compare"))
    rows = told["techniques"]
    assert [row["label"] for row in rows] == [
        "untrained", "LoRA 4", "LoRA 16", "LoRA 64", "DoRA 16", "LoHa 16", "LoKr", "OFT",
        "Pivotal", "Textual inversion", "DreamBooth"]
    assert rows[0]["method"] == "" and rows[0]["bytes"] is None
    assert all(row["steps"] == 2 and row["seconds"] > 0 and row["pictures"] == 2
               for row in rows[1:])
    sizes = {row["label"]: row["bytes"] for row in rows[1:]}
    assert (sizes["Textual inversion"] < sizes["LoRA 4"] < sizes["LoRA 16"] < sizes["LoRA 64"]
            < sizes["DreamBooth"])
    assert Path(told["sheet"]).is_file() and Path(told["report"]).is_file()
    again = json.loads(run("techniques_side_by_side", "sd15", subject__held_out=1, monitor__every=0,
                           monitor__seed=5, lora_64_recipe__rank=32, **few).text("compare"))
    assert [row["seconds"] for row in again["techniques"]] == [row["seconds"] for row in rows]
