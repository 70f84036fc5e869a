"""Every technique through the queue of a real ComfyUI: trained, saved, loaded back and drawn."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from training_graphs import ARCHITECTURES, PHOTOS, Training, files, report

from launcher.makers import sample_photos

# Rates at which three steps show in a picture of random weights.
ADAPTERS = {
    "LoRA": {"learning_rate": 0.02}, "QLoRA": {"learning_rate": 0.02},
    "DoRA": {"learning_rate": 0.02}, "LoHa": {"learning_rate": 0.03},
    "LoKr": {"learning_rate": 0.05}, "OFT": {"learning_rate": 0.02},
}
CHANGED = {("sdxl", "LoKr"): {"text_encoder": True}, ("flux", "LoRA"): {"text_encoder": True},
           ("sdxl", "QLoRA"): {"base_weights": "fp8"}, ("sd3", "QLoRA"): {"base_weights": "fp8"}}
CASES = [(architecture, kind, CHANGED.get((architecture, kind), {}))
         for architecture in ARCHITECTURES for kind in ADAPTERS]


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


def differ(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two pictures differ by more than rounding."""
    return not torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize(("architecture", "kind", "changed"), CASES,
                         ids=[f"{name}-{kind}" for name, kind, _ in CASES])
def test_an_adapter_trains_and_every_way_to_its_file_draws_the_same(
        host, training, place, architecture, kind, changed):
    prompt = training(architecture)
    checkpoint = prompt.checkpoint
    recipe = prompt.recipe(kind, **{**ADAPTERS[kind], **changed})
    train = prompt.train(recipe, save_to="models/loras", name=f"{place}/{architecture}_{kind}")
    apply = prompt.add("LikenessApplyTrained", model=checkpoint(0), clip=checkpoint(1),
                       lora_path=train(3))
    prompt.draw("plain", checkpoint(0), checkpoint(1))
    prompt.draw("trained", train(0), train(5))
    prompt.draw("applied", apply(0), apply(1))
    run = host.run(prompt.graph.prompt)
    told = report(run, train)
    lora = files(told)["lora"]
    assert told["method"] == kind.lower() and lora.stat().st_size == told["bytes"]["lora"]
    assert (told["text_layers"] > 0) == changed.get("text_encoder", False)

    loaded = training(architecture)
    named = f"{place}/{lora.name}"
    loader = loaded.add("LoraLoader", model=loaded.checkpoint(0), clip=loaded.checkpoint(1),
                        lora_name=named)
    loaded.draw("loaded", loader(0), loader(1))
    core = loaded.latent(host, host.run(loaded.graph.prompt), "loaded")

    plain, trained, applied = (prompt.latent(host, run, what)
                               for what in ("plain", "trained", "applied"))
    assert differ(trained, plain)
    assert torch.equal(trained, applied) and torch.equal(trained, core)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dreambooths_checkpoint_is_loaded_by_cores_loader(host, training, place, architecture):
    prompt = training(architecture)
    recipe = prompt.recipe("DreamBooth", learning_rate=1e-3)
    train = prompt.train(recipe, save_to="models/loras", name=f"{place}/{architecture}_whole")
    prompt.draw("plain", prompt.checkpoint(0), prompt.checkpoint(1))
    prompt.draw("trained", train(0), train(5))
    run = host.run(prompt.graph.prompt)
    told = report(run, train)
    file = files(told)["checkpoint"]
    assert file.parent == host.base / "models" / "checkpoints" / place
    assert told["files"].keys() == {"checkpoint"}

    loaded = training(architecture)
    checkpoint = loaded.add("CheckpointLoaderSimple", ckpt_name=f"{place}/{file.name}")
    loaded.draw("loaded", checkpoint(0), checkpoint(1))
    core = loaded.latent(host, host.run(loaded.graph.prompt), "loaded")

    trained, plain = (prompt.latent(host, run, what) for what in ("trained", "plain"))
    assert differ(trained, plain)
    # The model before training is as far off as the whole change.
    assert (core - trained).norm() < 0.01 * (trained - plain).norm()


@pytest.mark.parametrize("architecture", ["sdxl", "flux"])
def test_dreambooth_and_a_word_that_learn_together_are_loaded_by_core(host, training, place,
                                                                      architecture):
    prompt = training(architecture)
    booth = prompt.recipe("DreamBooth", learning_rate=1e-3)
    recipe = prompt.add("LikenessPivotalRecipe", recipe=booth, token_learning_rate=0.3)
    train = prompt.train(recipe, save_to="models/loras", name=f"{place}/{architecture}_both")
    prompt.draw("plain", prompt.checkpoint(0), prompt.checkpoint(1))
    prompt.draw("trained", train(0), train(5), train(6))
    run = host.run(prompt.graph.prompt)
    made = files(report(run, train))
    assert made.keys() == {"checkpoint", "embedding"}

    loaded = training(architecture)
    checkpoint = loaded.add("CheckpointLoaderSimple",
                            ckpt_name=f"{place}/{made['checkpoint'].name}")
    word = f"embedding:{made['embedding'].stem}"
    loaded.draw("both", checkpoint(0), checkpoint(1), word)
    loaded.draw("no word", checkpoint(0), checkpoint(1), "person")
    again = host.run(loaded.graph.prompt)
    trained, plain = (prompt.latent(host, run, what) for what in ("trained", "plain"))
    both, no_word = (loaded.latent(host, again, what) for what in ("both", "no word"))
    whole = (trained - plain).norm()
    assert (both - trained).norm() < 0.01 * whole < (no_word - trained).norm()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_new_word_is_found_by_cores_prompts_and_by_apply_trained(host, training, place,
                                                                   architecture):
    prompt = training(architecture)
    checkpoint = prompt.checkpoint
    recipe = prompt.recipe("TextualInversion", learning_rate=0.3, initial_word="person")
    train = prompt.train(recipe, save_to="models/loras", name=f"{place}/{architecture}_word")
    apply = prompt.add("LikenessApplyTrained", model=checkpoint(0), clip=checkpoint(1),
                       embedding=train(3))
    prompt.draw("plain", checkpoint(0), checkpoint(1), "ohwx")
    prompt.draw("trained", train(0), train(5), train(6))
    prompt.draw("applied", apply(0), apply(1), apply(2))
    run = host.run(prompt.graph.prompt)
    told = report(run, train)
    word = files(told)["embedding"]
    assert told["files"].keys() == {"embedding"} and told["word_vectors"] == 2

    loaded = training(architecture)
    loaded.draw("loaded", loaded.checkpoint(0), loaded.checkpoint(1), f"embedding:{word.stem}")
    core = loaded.latent(host, host.run(loaded.graph.prompt), "loaded")

    trained = prompt.latent(host, run, "trained")
    assert differ(trained, prompt.latent(host, run, "plain"))
    assert torch.equal(trained, core)
    assert torch.equal(trained, prompt.latent(host, run, "applied"))


@pytest.mark.parametrize(("architecture", "kind"), [
    ("sd15", "LoRA"), ("sdxl", "LoHa"), ("sd3", "LoKr"), ("flux", "DoRA")])
def test_apply_trained_finds_both_files_of_a_pivotal_run(host, training, architecture, kind):
    prompt = training(architecture)
    checkpoint = prompt.checkpoint
    adapter = prompt.recipe(kind, learning_rate=0.05)
    recipe = prompt.add("LikenessPivotalRecipe", recipe=adapter, token_learning_rate=0.3)
    train = prompt.train(recipe, name="pivotal")
    both = prompt.add("LikenessApplyTrained", model=checkpoint(0), clip=checkpoint(1),
                      lora_path=train(3))
    prompt.draw("trained", train(0), train(5), train(6))
    prompt.draw("word", checkpoint(0), train(5), train(6))
    prompt.draw("applied", both(0), both(1), both(2))
    run = host.run(prompt.graph.prompt)
    made = files(report(run, train))
    assert made.keys() == {"lora", "embedding"} and made["lora"].stem == made["embedding"].stem
    found = report(run, both)
    assert {found["lora"], found["embedding"]} == {str(path) for path in made.values()}
    trained = prompt.latent(host, run, "trained")
    assert torch.equal(trained, prompt.latent(host, run, "applied"))
    assert differ(trained, prompt.latent(host, run, "word"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_class_photos_or_the_class_word_train_beside_the_person(host, training, architecture):
    prompt = training(architecture)
    others = prompt.add("LikenessClassPhotos", model=prompt.checkpoint(0), count=2,
                        clip=prompt.checkpoint(1), vae=prompt.checkpoint(2), width=128,
                        height=128, steps=1, subject=prompt.subject)
    recipe = prompt.recipe("LoRA", learning_rate=ADAPTERS["LoRA"]["learning_rate"])
    word = prompt.recipe("LoRA", learning_rate=ADAPTERS["LoRA"]["learning_rate"],
                         options=prompt.add("LikenessObjectiveOptions", class_word_weight=1.0))
    trains = [prompt.train(recipe, name="alone"),
              prompt.train(recipe, name="with class", class_photos=others),
              prompt.train(word, name="with class word")]
    run = host.run(prompt.graph.prompt)
    made = report(run, others)
    assert made["made"] + made["reused"] == 2 and made["class_noun"] == "person"
    assert len(run.files(others.id, "temp")) == 2
    alone, photos, kept = (report(run, train) for train in trains)
    assert [told["class_photos"] for told in (alone, photos, kept)] == [0, 2, 0]
    assert photos["first_loss"] > alone["first_loss"]
    # What has learned nothing yet has changed nothing of the class word.
    assert kept["first_loss"] == alone["first_loss"]
    assert kept["final_loss"] != alone["final_loss"]


@pytest.mark.parametrize(("architecture", "adapter"), [
    ("sd15", "tiny_faceid_sd15.safetensors"), ("sdxl", "tiny_faceid_sdxl.safetensors")])
def test_training_over_an_injected_face_learns_the_rest(host, training, architecture, adapter):
    prompt = training(architecture)
    checkpoint = prompt.checkpoint
    loader = prompt.add("LikenessLoadFaceAdapter", adapter=adapter)
    face = prompt.add("LikenessInjectFace", model=checkpoint(0), adapter=loader, weight=1.0,
                      subject=prompt.subject)
    recipe = prompt.recipe("LoRA", learning_rate=0.02)
    plain = prompt.train(recipe, name="plain")
    over = prompt.train(recipe, name="over the face", model=face)
    again = prompt.add("LikenessApplyTrained", model=face, clip=checkpoint(1), lora_path=over(3))
    prompt.draw("face", face(0), checkpoint(1))
    prompt.draw("over", over(0), checkpoint(1))
    prompt.draw("again", again(0), checkpoint(1))
    run = host.run(prompt.graph.prompt)
    assert report(run, over)["first_loss"] != report(run, plain)["first_loss"]
    pictures = {what: prompt.latent(host, run, what) for what in ("face", "over", "again")}
    assert differ(pictures["over"], pictures["face"])
    assert torch.equal(pictures["over"], pictures["again"])


@pytest.mark.parametrize(("architecture", "style", "mark"), [
    ("sd15", "diffusers", "unet."), ("sd3", "plain", "diffusion_model."),
    ("flux", "diffusers", "transformer."), ("sd15", "kohya", "lora_unet_")])
def test_a_lora_of_every_key_style_is_applied_by_core(host, training, place, architecture, style,
                                                      mark):
    prompt = training(architecture)
    recipe = prompt.recipe("LoRA", learning_rate=0.02)
    train = prompt.train(recipe, name=f"{place}/{style}", save_to="models/loras",
                         key_style=style, file_precision="fp32")
    prompt.draw("trained", train(0), train(5))
    run = host.run(prompt.graph.prompt)
    file = files(report(run, train))["lora"]
    assert all(key.startswith(mark) for key in load_file(file))
    loaded = training(architecture)
    loader = loaded.add("LoraLoaderModelOnly", model=loaded.checkpoint(0),
                        lora_name=f"{place}/{file.name}")
    loaded.draw("loaded", loader(0), loaded.checkpoint(1))
    core = loaded.latent(host, host.run(loaded.graph.prompt), "loaded")
    assert torch.equal(prompt.latent(host, run, "trained"), core)


def test_the_preset_for_eight_gigabytes_trains_over_fp8_weights(host, training, place):
    prompt = training("sdxl")
    preset = prompt.add("LikenessRecipePreset", model=prompt.checkpoint(0), preset="SDXL 8 GB",
                        steps=3, training_set=prompt.photos)
    train = prompt.train(preset, save_to="models/loras", name=f"{place}/small_card")
    prompt.draw("trained", train(0), train(5))
    run = host.run(prompt.graph.prompt)
    told = report(run, train)
    assert (told["method"], told["recipe"]["base_weights"], told["steps"]) == ("qlora", "fp8", 3)
    loaded = training("sdxl")
    loader = loaded.add("LoraLoaderModelOnly", model=loaded.checkpoint(0),
                        lora_name=f"{place}/{files(told)['lora'].name}")
    loaded.draw("loaded", loader(0), loaded.checkpoint(1))
    core = loaded.latent(host, host.run(loaded.graph.prompt), "loaded")
    assert torch.equal(prompt.latent(host, run, "trained"), core)
