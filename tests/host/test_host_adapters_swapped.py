"""Adapters take turns on one loaded model: its file is read once and its weights come back."""

from __future__ import annotations

import pytest
import torch
from training_graphs import PHOTOS, Training, files, report

from launcher.makers import sample_photos

# Core's loader prints this whenever it reads a checkpoint.
READ = "model weight dtype"


@pytest.fixture(scope="module")
def learned(host, new_graph, object_info, place):
    """Files of two adapters and what each draws from the run that trained it, in one prompt."""
    made = sample_photos.write(host.input / "all_samples")
    host.copy_photos([made[name] for name in PHOTOS], "training")
    prompt = Training(new_graph(), object_info, "sd15")
    trains = {}
    for kind, rate in (("LoRA", 0.02), ("LoKr", 0.05)):
        recipe = prompt.recipe(kind, learning_rate=rate)
        trains[kind] = prompt.train(recipe, save_to="models/loras", name=f"{place}/{kind}")
        prompt.draw(kind, trains[kind](0), prompt.checkpoint(1))
    run = host.run(prompt.graph.prompt)
    return {kind: (files(report(run, train))["lora"], prompt.latent(host, run, kind))
            for kind, train in trains.items()}


@pytest.fixture
def draw(host, new_graph, object_info, place):
    """Draws with the loaded base, or with a file on it; also says whether the base was read.

    Every call is a prompt of its own that samples again, though a picture may be the same.
    """
    file = host.base / "models" / "checkpoints" / place / "base.safetensors"
    file.parent.mkdir(parents=True)
    file.symlink_to(host.models["tiny_sd15"])  # a name that no other prompt has loaded
    drawn = 0

    def _draw(lora=None, node="LoraLoaderModelOnly"):
        nonlocal drawn
        drawn += 1
        prompt = Training(new_graph(), object_info, "sd15")
        prompt.graph.prompt.clear()
        base = prompt.add("CheckpointLoaderSimple", ckpt_name=f"{place}/{file.name}")
        model = base(0)
        if lora is not None:
            chosen = ({"lora_path": str(lora), "clip": base(1)} if node == "LikenessApplyTrained"
                      else {"lora_name": f"{place}/{lora.name}"})
            model = prompt.add(node, model=model, **chosen)(0)
        size = prompt.add("EmptyLatentImage", width=64, height=64, batch_size=1)
        # Zeros times anything are zeros, but another node to the host, which samples again.
        latent = prompt.add("LatentMultiply", samples=size, multiplier=float(drawn))
        prompt.draw("picture", model, base(1))
        sampler = next(entry for entry in prompt.graph.prompt.values()
                       if entry["class_type"] == "KSampler")
        sampler["inputs"]["latent_image"] = latent()
        run = host.run(prompt.graph.prompt)
        return prompt.latent(host, run, "picture"), base.id in run.executed

    return _draw


def test_two_adapters_take_turns_on_a_base_that_is_read_once(host, learned, draw):
    (lora, with_lora), (lokr, with_lokr) = learned.values()
    before_reading = host.log.count(READ)
    plain, read = draw()
    assert read and host.log.count(READ) == before_reading + 1
    for file, wanted, node in ((lora, with_lora, "LoraLoaderModelOnly"),
                               (lokr, with_lokr, "LikenessApplyTrained"),
                               (lora, with_lora, "LikenessApplyTrained"),
                               (lokr, with_lokr, "LoraLoaderModelOnly")):
        found, read = draw(file, node)
        assert torch.equal(found, wanted) and not read
    after, read = draw()
    assert torch.equal(after, plain) and not read
    assert host.log.count(READ) == before_reading + 1
    pictures = (plain, with_lora, with_lokr)
    assert all((one - other).abs().max() > 1e-3
               for place, one in enumerate(pictures) for other in pictures[:place])
