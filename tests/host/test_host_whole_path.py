"""The whole path from photos to scored headshots through the queue of a real ComfyUI."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from launcher.client.refusals import FailedPrompt, InterruptedPrompt, RejectedPrompt
from launcher.client.workflows import load_workflow, with_settings
from launcher.makers import sample_photos

WORKFLOW = Path(__file__).resolve().parents[2] / "workflows/api/selfies_to_headshots.json"
# Small models and sizes; everything else is as in the file that users run.
SMALL = {
    "checkpoint.ckpt_name": "tiny_sd15.safetensors",
    "face_control.control_net_name": "tiny_sd15_face.safetensors",
    "pose_control.control_net_name": "tiny_sd15_pose.safetensors",
    "face_adapter.adapter": "tiny_faceid_sd15.safetensors",
    "photos.folder": "samples", "prepare.resolution": 128, "recipe.steps": 4,
    "face_map.width": 128, "face_map.height": 160, "pose_map.width": 128, "pose_map.height": 160,
    "face_map.smallest_face": 32, "canvas.width": 128, "canvas.height": 160,
    "canvas.batch_size": 2, "sample.steps": 2,
}
KEPT = {"01_portrait.jpg", "02_outdoors.jpg", "03_phone_on_its_side.jpg", "04_window_light.jpg",
        "05_evening_sun.jpg", "06_lamp_from_the_left.jpg"}


@pytest.fixture(scope="module")
def samples(host):
    """The sample photos in the server's input folder."""
    return sample_photos.write(host.input / "samples")


def prompt(**settings):
    """The workflow with small models and further {"node__input": value} settings."""
    named = {name.replace("__", "."): value for name, value in settings.items()}
    return with_settings(load_workflow(WORKFLOW), {**SMALL, **named})


def part(full, *ends):
    """Only what the nodes `ends` need, so that a test pays for nothing else."""
    needed, open_ends = {}, list(ends)
    while open_ends:
        node = open_ends.pop()
        if node not in needed:
            needed[node] = full[node]
            open_ends += [value[0] for value in full[node]["inputs"].values()
                          if isinstance(value, list)]
    return needed


def trained_file(run):
    """The LoRA that a run's Train node reports."""
    return Path(json.loads(run.text("train"))["files"]["lora"])


@pytest.fixture(scope="module")
def first_run(host, samples):
    """The whole workflow, run once."""
    return host.run(prompt())


def test_curation_keeps_the_good_photos_and_says_why_not_the_others(first_run):
    photos = json.loads(first_run.text("curate"))["photos"]
    verdicts = {Path(photo["file"]).name: photo["verdict"] for photo in photos}
    assert {name for name, verdict in verdicts.items() if verdict == "keep"} == KEPT
    rules = {Path(photo["file"]).name: {reason["rule"] for reason in photo["reasons"]}
             for photo in photos}
    assert rules["07_dim_room.jpg"] == {"dark"}
    assert rules["08_same_shot_out_of_focus.jpg"] == {"blurred", "duplicate"}
    assert rules["09_somebody_else.jpg"] == {"somebody_else"}
    assert rules["10_head_out_of_frame.jpg"] == {"no_face"}


def test_training_reports_a_file_that_is_there(first_run):
    report = json.loads(first_run.text("train"))
    assert report["steps"] == 4
    assert report["files"].keys() == report["bytes"].keys() == {"lora"}
    assert Path(report["files"]["lora"]).stat().st_size == report["bytes"]["lora"]
    assert 0 < report["parameters_share"] < 1


def test_score_saves_every_picture_and_a_report(first_run):
    report = json.loads(first_run.text("score"))
    assert len(report["images"]) == 2
    assert all(Path(image["file"]).is_file() for image in report["images"])
    assert json.loads(Path(report["report"]).read_text())["images"] == report["images"]


def test_a_second_run_repeats_nothing(host, first_run):
    assert host.run(prompt()).executed == set()


def test_another_picture_seed_does_not_train_again(host, first_run):
    executed = host.run(prompt(sample__seed=99)).executed
    assert "sample" in executed
    assert not executed & {"photos", "curate", "subject", "prepare", "train"}


def test_the_seed_alone_decides_the_lora(host, first_run):
    loras = []
    for name, seed in (("again", 0), ("other", 1)):
        run = host.run(part(prompt(train__name=name, train__seed=seed), "train"))
        loras.append(load_file(trained_file(run)))
    first = load_file(trained_file(first_run))
    assert all(first[key].equal(loras[0][key]) for key in first)
    assert any(not first[key].equal(loras[1][key]) for key in first)


def test_a_cancel_in_training_leaves_the_model_as_it_was(host, first_run, samples):
    def plain(seed):
        drawn = prompt(sample__model=["checkpoint", 0], sample__positive=["positive", 0],
                       sample__negative=["negative", 0], sample__seed=seed)
        drawn["save"] = {"class_type": "SaveImage", "inputs": {"images": ["decode", 0],
                                                               "filename_prefix": "cancel/x"}}
        (file,) = host.run(part(drawn, "save")).files("save")[:1]
        return (host.output / file.subfolder / file.filename).read_bytes()

    before = plain(5)
    with pytest.raises(InterruptedPrompt):
        host.run(part(prompt(recipe__steps=300, train__name="cancelled"), "train"),
                 host.cancel_at(3, "train"))
    plain(6)  # so that the next one is drawn, not taken from the cache
    assert pixels(plain(5)) == pixels(before)


def pixels(png):
    """The compressed pixels of a PNG file, without its metadata."""
    return png[png.index(b"IDAT"):]


def test_a_cancelled_training_goes_on_where_it_stopped(host, samples):
    begun = part(prompt(recipe__steps=60, train__seed=8), "train")
    with pytest.raises(InterruptedPrompt):
        host.run(begun, host.cancel_at(5, "train"))
    run = host.run(begun)
    assert json.loads(run.text("train"))["resumed_at"] >= 5


@pytest.mark.parametrize("architecture", ["sdxl", "sd3", "flux"])
def test_other_architectures_train_and_draw_with_their_lora(host, samples, architecture):
    drawn = prompt(checkpoint__ckpt_name=f"tiny_{architecture}.safetensors",
                   train__name=f"tiny_{architecture}", sample__model=["train", 0],
                   sample__positive=["positive", 0], sample__negative=["negative", 0])
    run = host.run(part(drawn, "score"))
    assert len(json.loads(run.text("score"))["images"]) == 2
    assert trained_file(run).is_file()


@pytest.mark.parametrize("architecture, net, kind", [
    ("sdxl", "tiny_sdxl_face", "face mesh"), ("sd3", "tiny_sd3_pose", "face mesh"),
    ("flux", "tiny_flux_union", "pose"),
])
def test_other_architectures_draw_under_two_controlnets(host, samples, architecture, net, kind):
    drawn = prompt(checkpoint__ckpt_name=f"tiny_{architecture}.safetensors",
                   face_control__control_net_name=f"{net}.safetensors", face_stack__kind=kind,
                   pose_control__control_net_name=f"{net}.safetensors",
                   sample__model=["checkpoint", 0])
    drawn["shown"] = {"class_type": "PreviewImage", "inputs": {"images": ["decode", 0]}}
    assert host.run(part(drawn, "shown")).files("shown", "temp")


def folder_of(host, name, files):
    target = host.input / name
    target.mkdir(exist_ok=True)
    for file in files:
        (target / file.name).write_bytes(file.read_bytes())
    return name


@pytest.mark.parametrize("case, sentence", [
    ("missing", "does not exist"), ("empty", "is empty"), ("text", "holds no photo"),
    ("outside", "`../outside` lies outside"),
])
def test_a_photo_folder_that_cannot_be_used_is_one_sentence(host, samples, tmp_path, case,
                                                            sentence):
    folder = "../outside" if case == "outside" else f"bad_{case}"
    if case != "missing":
        (host.input / folder).mkdir(exist_ok=True)
    if case == "outside":  # a photo is there, so that nothing else is wrong with the folder
        folder_of(host, folder, [samples["01_portrait.jpg"]])
    if case == "text":
        (host.input / folder / "notes.txt").write_text("no photo")
    with pytest.raises((FailedPrompt, RejectedPrompt), match=sentence):
        host.run(part(prompt(photos__folder=folder), "curate"))


def test_no_usable_photo_is_told_with_counts_and_advice(host, samples):
    folder = folder_of(host, "bad_all", [samples["10_head_out_of_frame.jpg"]])
    target = host.input / folder
    for number in (2, 3):
        # Other bytes and another height, so that these are no duplicates of the first.
        with Image.open(samples["10_head_out_of_frame.jpg"]) as picture:
            cut = picture.crop((0, 40 * number, picture.width, picture.height))
            cut.save(target / f"headless_{number}.png")
    with pytest.raises(FailedPrompt) as caught:
        host.run(part(prompt(photos__folder=folder), "train"))
    text = str(caught.value)
    assert text.startswith("`Subject` failed: None of 3 photos can be used and a subject needs at "
                           "least 2")
    assert "rules against photos: no_face 3" in text
    assert "no_face: use photos that show the face larger and upright" in text


def test_an_empty_trigger_is_refused(host, samples):
    with pytest.raises((FailedPrompt, RejectedPrompt), match="trigger"):
        host.run(part(prompt(subject__trigger=" "), "train"))


def test_one_photo_is_refused_because_nothing_would_be_left_to_compare_with(host, samples):
    folder = folder_of(host, "one", [samples["01_portrait.jpg"]])
    with pytest.raises(FailedPrompt, match="^`Subject` failed: Only 1 of 1 photos can be used and "
                                           "a subject needs at least 2"):
        host.run(part(prompt(photos__folder=folder, train__name="one"), "train"))
