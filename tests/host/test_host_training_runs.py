"""How a run goes through the queue: looks, events, cancel, options, export, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open
from training_graphs import PHOTOS, Training, files, heard, report

from launcher.client.refusals import FailedPrompt, InterruptedPrompt, RejectedPrompt
from launcher.makers import sample_photos

LOOK = {"every": 2, "pictures": 2, "width": 64, "height": 64, "steps": 1, "cfg": 1.0}


@pytest.fixture(scope="module", autouse=True)
def photos(host):
    """Three photos of one person in the server's input folder."""
    made = sample_photos.write(host.input / "all_samples")
    return host.copy_photos([made[name] for name in PHOTOS], "training")


@pytest.fixture
def training(graph, object_info):
    """Begins a prompt for one of the tiny checkpoints."""
    return lambda architecture="sd15", **fields: Training(graph, object_info, architecture,
                                                          **fields)


@pytest.fixture(scope="module")
def looked(host, new_graph, object_info):
    """A run with two looks, the prompt that made it and the events that a panel heard."""
    prompt = Training(new_graph(), object_info, "sd15", "looked")
    monitor = prompt.add("LikenessTrainingMonitor", prompts="photo of {subject}", **LOOK)
    train = prompt.train(prompt.recipe("LoRA", steps=4), monitor=monitor, name="seen")
    sheet = prompt.add("SaveImage", images=train(7), filename_prefix="training/sheet")
    with heard(host, "likeness.train") as events:
        run = host.run(prompt.graph.prompt)
    return run, train, sheet, events


def test_looks_are_files_and_stand_in_the_report(host, looked):
    run, train, sheet, _ = looked
    told = report(run, train)
    assert [look["step"] for look in told["likeness"]] == [2, 4]
    assert all(look["pictures"] == 2 and look["held_out"] for look in told["likeness"])
    folder, = (host.output / "likeness" / "looked" / "training" / "looks").glob("seen-*")
    names = [path.name for path in sorted(folder.iterdir())]
    assert names == [f"step_{step:06d}_{index}.png" for step in (2, 4) for index in (0, 1)]
    with Image.open(folder / names[0]) as picture:
        assert picture.size == (64, 64)
    assert len(run.files(sheet.id)) == 1


def test_the_files_metadata_tells_the_likeness_of_each_look(looked):
    run, train, *_ = looked
    with safe_open(files(report(run, train))["lora"], framework="pt") as file:
        text = " ".join(file.metadata().values())
    assert '"step": 2' in text and '"held_out": true' in text


def test_the_history_holds_the_curve_and_the_report(looked):
    run, train, *_ = looked
    assert len(run.files(train.id, "temp")) == 1
    assert report(run, train)["steps"] == 4


def test_a_panel_hears_every_step_and_every_look(looked):
    events = looked[-1]
    steps = [event for event in events if "step" in event]
    assert [event["step"] for event in steps] == [1, 2, 3, 4]
    assert all(event["name"] == "seen" and event["steps"] == 4 for event in events)
    assert all(event["loss"] > 0 and event["learning_rate"] > 0 for event in steps)
    looks = [event["look"] for event in events if "look" in event]
    assert [look["step"] for look in looks] == [2, 4]
    assert [len(look["shots"]) for look in looks] == [2, 2]


def test_a_panel_hears_what_a_run_will_take_before_its_first_step(looked):
    run, train, _, events = looked
    plan, *others = [event for event in events if "plan" in event or "step" in event]
    assert plan["plan"]["bytes"] == report(run, train)["memory_plan"]
    assert plan["plan"]["text"].startswith("Training takes about ") and plan["plan"]["free"] > 0
    assert len(others) == 4 and all("step" in event for event in others)


def test_a_time_limit_ends_a_run_and_keeps_what_it_learned(host, training):
    prompt = training()
    monitor = prompt.add("LikenessTrainingMonitor", **{**LOOK, "every": 0, "minutes": 0.02})
    train = prompt.train(prompt.recipe("LoRA", steps=5000), monitor=monitor, name="short")
    told = report(host.run(prompt.graph.prompt), train)
    assert 0 < told["steps"] < 5000 and told["kept_step"] == told["steps"]
    assert told["ended"] == "the time limit of 0.02 minutes is over."
    assert files(told)["lora"].is_file()


@pytest.mark.parametrize(("kind", "changed"), [
    ("LoRA", {}), ("TextualInversion", {}), ("DreamBooth", {"optimizer": "adafactor"})])
def test_a_cancelled_run_goes_on_when_it_is_queued_again(host, training, kind, changed):
    prompt = training("sd15", subject_name=f"cancelled_{kind}")
    train = prompt.train(prompt.recipe(kind, steps=60, **changed))
    with pytest.raises(InterruptedPrompt):
        host.run(prompt.graph.prompt, host.cancel_at(4, train.id))
    told = report(host.run(prompt.graph.prompt), train)
    assert 4 <= told["resumed_at"] < 60 and told["steps"] == 60


def test_a_finished_run_is_loaded_and_a_new_seed_trains(host, training):
    prompt = training("sd15", subject_name="twice")
    train = prompt.train(prompt.recipe("LoRA"), strength=1.0)
    first = report(host.run(prompt.graph.prompt), train)
    prompt.graph.prompt[train.id]["inputs"]["strength"] = 0.5
    again = report(host.run(prompt.graph.prompt), train)
    prompt.graph.prompt[train.id]["inputs"]["seed"] = 5
    other = report(host.run(prompt.graph.prompt), train)
    assert [told["reused"] for told in (first, again, other)] == [False, True, False]
    assert first["files"] == again["files"] != other["files"]


@pytest.mark.parametrize("architecture", ["sd15", "flux"])
def test_options_of_all_three_nodes_reach_the_run(host, training, architecture):
    prompt = training(architecture)
    options = prompt.add("LikenessObjectiveOptions", loss="huber", outside_weight=0.5,
                         class_word_weight=1.0, noise_offset=0.05)
    options = prompt.add("LikenessIdentityLossOptions", identity_from=0.0, identity_snr=0.0,
                         options=options)
    options = prompt.add("LikenessStepOptions", accumulate=2, ema=0.5, base_weights="fp8",
                         options=options)
    train = prompt.train(prompt.recipe("LoRA", options=options), name="options")
    told = report(host.run(prompt.graph.prompt), train)
    wanted = {"loss": "huber", "outside_weight": 0.5, "class_word_weight": 1.0,
              "identity_snr": 0.0, "accumulate": 2, "ema": 0.5, "base_weights": "fp8"}
    assert {name: told["recipe"][name] for name in wanted} == wanted
    history = json.loads(Path(told["history"]).read_text())
    assert history["plan"] == told["memory_plan"] and len(history["steps"]) == 3
    for step in history["steps"]:
        assert {"photo", "outside", "class word", "identity"} <= step["terms"].keys()
    # At the second step what was learned has begun to change background and class.
    assert all(history["steps"][1]["terms"][name] > 0
               for name in ("outside", "class word", "identity"))
    assert told["seconds_with_identity"] > 0 and told["seconds_without_identity"] is None


@pytest.mark.parametrize(("architecture", "kind"), [("sd15", "LoRA"), ("flux", "LoRA"),
                                                    ("sdxl", "DreamBooth")])
def test_a_set_is_written_for_sd_scripts(host, training, architecture, kind):
    prompt = training(architecture)
    others = prompt.add("LikenessClassPhotos", model=prompt.checkpoint(0), count=1,
                        clip=prompt.checkpoint(1), vae=prompt.checkpoint(2), width=128,
                        height=128, steps=1)
    export = prompt.add("LikenessExportKohya", training_set=prompt.photos,
                        subject=prompt.subject, recipe=prompt.recipe(kind),
                        model=prompt.checkpoint(0), class_set=others,
                        checkpoint=f"tiny_{architecture}.safetensors")
    told = report(host.run(prompt.graph.prompt), export)
    folder = Path(told["folder"])
    assert folder.parent == host.output / "likeness" / "trained" / "kohya"
    assert told["architecture"] == architecture and told["class_pictures"] == 1
    assert {"photos", "class", "dataset.toml", "train.toml", "README.txt"} <= {
        path.name for path in folder.iterdir()}
    assert len(list((folder / "photos").glob("*.png"))) == len(told["photos"]) == 2
    assert f"tiny_{architecture}.safetensors" in (folder / "train.toml").read_text()


REFUSED = {  # what is wrong -> recipe, its inputs, Train's inputs, what is said
    "a second word": ("TextualInversion", {}, {"pivotal": True}, "teaches a word alone; connect"),
    "a word without CLIP": ("TextualInversion", {}, {"clip": None}, "This run needs `clip`"),
    "a checkpoint without VAE": ("DreamBooth", {}, {"vae": None}, "This run needs `vae`"),
    "a text encoder without CLIP": ("LoRA", {"text_encoder": True}, {"clip": None}, "needs `clip`"),
    "a warm-up over the whole run": ("LoRA", {"warmup": 3}, {}, "`warmup` must be"),
    "ranks that cannot be read": ("LoRA", {"block_ranks": "all: 4"}, {}, "`block_ranks` has the"),
    "a name outside the folder": ("LoRA", {}, {"name": "../out"}, "`../out.* lies outside"),
    "a word's name with a comma": ("TextualInversion", {}, {"name": "a,b"}, "cannot be called"),
    "the keys of another technique": ("LoHa", {}, {"key_style": "diffusers"}, "is loha; set"),
    "the strength of a checkpoint": ("DreamBooth", {}, {"strength": 0.5}, "`strength` changes"),
    "cross-attention in a model that has none": ("LoRA", {"target": "cross-attention"}, {
        "architecture": "flux"}, "This model has no layers of the preset `cross-attention`"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_cannot_train_is_one_sentence_of_the_node(host, training, case):
    kind, changed, inputs, said = REFUSED[case]
    inputs = dict(inputs)
    prompt = training(inputs.pop("architecture", "sd15"))
    recipe = prompt.recipe(kind, **{**changed, "steps": inputs.pop("steps", 3)})
    if inputs.pop("pivotal", False):
        recipe = prompt.add("LikenessPivotalRecipe", recipe=recipe)
    train = prompt.train(recipe, **{"name": case.replace(" ", "-"), **inputs})
    given = prompt.graph.prompt[train.id]["inputs"]
    for name in [name for name, value in given.items() if value is None]:
        del given[name]
    with pytest.raises(FailedPrompt, match=said) as caught:
        host.run(prompt.graph.prompt)
    assert caught.value.exception_type.endswith("LikenessError")
    assert "\n" not in str(caught.value).strip() and "Traceback" not in str(caught.value)
    notes = (host.output / "likeness" / "trained" / "training").glob("*.json")
    # What can be known before a run is said before it, not after an hour.
    assert all(json.loads(note.read_text())["name"] != case.replace(" ", "-") for note in notes)


def test_a_rate_at_which_everything_bursts_stops_and_keeps_the_last_good_state(host, training):
    prompt = training("sd15", subject_name="burst")
    recipe = prompt.recipe("LoRA", learning_rate=1.0, alpha=1024.0, steps=200)
    prompt.train(recipe)
    with pytest.raises(FailedPrompt, match="`Train` failed: .*[Ll]ower the learning "
                                           "rate") as caught:
        host.run(prompt.graph.prompt)
    notes = [json.loads(note.read_text()) for note in
             (host.output / "likeness" / "burst" / "training").glob("*.json")]
    kept = re.search(r"learned up to step (\d+) is kept", str(caught.value))
    if kept is None:
        assert "nothing was worth keeping" in str(caught.value) and notes == []
    else:
        assert [note["step"] for note in notes] == [int(kept[1])]
    assert not list((host.output / "loras").glob("burst*"))


def test_another_persons_training_set_is_refused(host, training):
    prompt = training()
    other = prompt.add("LikenessSubject", name="other", held_out=1,
                       photos=prompt.graph.prompt[prompt.subject.id]["inputs"]["photos"])
    prompt.train(prompt.recipe("LoRA"), subject=other)
    with pytest.raises(FailedPrompt, match="The training set was made from `trained`.*connect one "
                                           "Subject"):
        host.run(prompt.graph.prompt)


def test_a_model_of_another_family_than_the_captions_is_refused(host, training):
    prompt = training("sd15")
    flux = prompt.add("CheckpointLoaderSimple", ckpt_name="tiny_flux.safetensors")
    prompt.train(prompt.recipe("LoRA"), model=flux(0), name="mixed")
    with pytest.raises(FailedPrompt, match="The latent of .* has 4 channels, the model takes "
                                           "16; prepare the training set") as caught:
        host.run(prompt.graph.prompt)
    assert caught.value.exception_type.endswith("LikenessError")


# The host checks ranges before it queues; hosts before 0.8 leave choices of V3 nodes to the node.
@pytest.mark.parametrize(("node", "name", "value", "said"), [
    ("LikenessLoRARecipe", "rank", 0, "The host refused `LikenessLoRARecipe`: .*min of 1"),
    ("LikenessLoRARecipe", "target", "everything", ".*cross-attention"),
    ("LikenessTrain", "save_to", "/", ".*output/loras"),
    ("LikenessTrain", "key_style", "mine", ".*kohya"),
    ("LikenessTrain", "unfinished", "forget", ".*continue"),
    ("LikenessTrain", "file_precision", "fp4", ".*fp16"),
])
def test_a_value_that_no_widget_offers_is_refused(host, training, node, name, value, said):
    if said.startswith(".*"):
        said = f"`{name}` (must be|is `{value}`, but there is){said}"
    prompt = training()
    prompt.train(prompt.recipe("LoRA"))
    (entry,) = [entry for entry in prompt.graph.prompt.values() if entry["class_type"] == node]
    entry["inputs"][name] = value
    with pytest.raises((RejectedPrompt, FailedPrompt), match=said):
        host.run(prompt.graph.prompt)


def test_an_unfinished_run_with_other_inputs_says_what_has_changed(host, training):
    prompt = training("sd15", subject_name="changed")
    recipe = prompt.recipe("LoRA", steps=2000)
    train = prompt.train(recipe)
    with pytest.raises(InterruptedPrompt):
        host.run(prompt.graph.prompt, host.cancel_at(3, train.id))
    inputs = prompt.graph.prompt[recipe.id]["inputs"]
    inputs |= {"steps": 3, "rank": 5}
    with pytest.raises(FailedPrompt, match="`steps` was 2000 and is 3; `rank` was 8 and is 5"):
        host.run(prompt.graph.prompt)
    prompt.graph.prompt[train.id]["inputs"]["unfinished"] = "start anew"
    assert report(host.run(prompt.graph.prompt), train)["resumed_at"] == 0
