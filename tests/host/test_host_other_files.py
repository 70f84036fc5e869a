"""What others have made, through the queue: a LoRA of sd-scripts, and a model loaded in 8 bits."""

from __future__ import annotations

import os

import pytest
import torch
from likeness.nodes.training.frozen.beside import can_run_beside
from safetensors.torch import load_file, save_file
from training_graphs import PHOTOS, Training, files, report

from launcher.makers import sample_photos

RANK, ALPHA = 4, 2.0
# sd-scripts' prefixes, by the beginning of the same layer's key in a FLUX.1 checkpoint.
PREFIXES = {"model.diffusion_model.": "lora_unet_",
            "text_encoders.clip_l.transformer.": "lora_te1_"}
PARTS = ("double_blocks.", "single_blocks.", ".self_attn.", ".mlp.")


@pytest.fixture(scope="module", autouse=True)
def photos(host):
    """Three photos of one person in the server's input folder."""
    made = sample_photos.write(host.input / "all_samples")
    return host.copy_photos([made[name] for name in PHOTOS], "training")


@pytest.fixture
def training(graph, object_info):
    """Begins a prompt for the tiny FLUX."""
    return lambda: Training(graph, object_info, "flux")


def _theirs(checkpoint):
    """A LoRA of sd-scripts (networks.lora_flux, text encoder too) for a checkpoint's layers."""
    generator, tensors = torch.Generator().manual_seed(4), {}
    for key, weight in load_file(checkpoint).items():
        start = next((start for start in PREFIXES if key.startswith(start)), None)
        if start is None or weight.ndim != 2 or not any(part in key for part in PARTS):
            continue
        name = PREFIXES[start] + key.removeprefix(start).removesuffix(".weight").replace(".", "_")
        down = 0.2 * torch.randn(RANK, weight.shape[1], generator=generator)
        up = 0.2 * torch.randn(weight.shape[0], RANK, generator=generator)
        tensors |= {f"{name}.lora_down.weight": down.half(), f"{name}.lora_up.weight": up.half(),
                    f"{name}.alpha": torch.tensor(ALPHA).half()}
    return tensors


def test_a_lora_of_sd_scripts_is_applied_and_scored_as_core_loads_it(host, training, place):
    tensors = _theirs(host.models["tiny_flux"])
    folder = host.base / "models" / "loras" / place
    folder.mkdir(parents=True)
    save_file(tensors, str(folder / "theirs.safetensors"), {
        "ss_network_module": "networks.lora_flux", "ss_base_model_version": "flux1"})
    prompt = training()
    checkpoint, name = prompt.checkpoint, f"{place}/theirs.safetensors"
    apply = prompt.add("LikenessApplyTrained", model=checkpoint(0), clip=checkpoint(1),
                       lora_path=name)
    core = prompt.graph.add("LoraLoader", model=checkpoint(0), clip=checkpoint(1), lora_name=name,
                            strength_model=1.0, strength_clip=1.0)
    prompt.draw("plain", checkpoint(0), checkpoint(1))
    scores = {}
    for what, loader in (("applied", apply), ("core", core)):
        prompt.draw(what, loader(0), loader(1))
        sampled = prompt.graph.prompt[prompt.drawn[what]]["inputs"]["samples"]
        pictures = prompt.graph.add("VAEDecode", samples=sampled, vae=checkpoint(2))
        scores[what] = prompt.add("LikenessScore", images=pictures, subject=prompt.subject)
    run = host.run(prompt.graph.prompt)
    told = report(run, apply)
    assert told["layers"] + told["text_layers"] == len(tensors) / 3
    assert told["layers"] > 10 and told["text_layers"] == 18  # six layers in each of three blocks
    applied, loaded, plain = (prompt.latent(host, run, what) for what in ("applied", "core",
                                                                          "plain"))
    assert torch.equal(applied, loaded) and not torch.allclose(applied, plain, atol=1e-3)
    ours, theirs = ([{**image, "file": ""} for image in report(run, scores[what])["images"]]
                    for what in ("applied", "core"))
    assert ours == theirs and len(ours) == 1


def test_a_lora_over_a_model_that_core_loads_in_8_bits_is_saved_whole_and_says_its_rounding(
        host, training, place):
    folder = host.base / "models" / "diffusion_models" / place
    folder.mkdir(parents=True)
    os.link(host.models["tiny_flux"], folder / "flux.safetensors")
    prompt = training()
    loader = prompt.add("UNETLoader", unet_name=f"{place}/flux.safetensors",
                        weight_dtype="fp8_e4m3fn")
    little, much = (prompt.train(prompt.recipe("LoRA", learning_rate=rate), model=loader, name=name)
                    for name, rate in (("little", 1e-4), ("much", 0.02)))
    prompt.draw("plain", loader, prompt.checkpoint(1))
    prompt.draw("trained", much(0), much(5))
    run = host.run(prompt.graph.prompt)
    told = report(run, much)
    assert told["reload_error"] < 0.1 and told["warnings"] == []
    if can_run_beside():  # nothing is added to the weights, so nothing is rounded
        assert report(run, little)["reload_error"] < 0.1 and not report(run, little)["warnings"]
    else:
        said, = report(run, little)["warnings"]
        assert report(run, little)["reload_error"] > 0.1
        assert "8 bits or fewer" in said and "16-bit weights" in said
    trained, plain = (prompt.latent(host, run, what) for what in ("trained", "plain"))
    assert not torch.allclose(trained, plain, atol=1e-3)
    assert files(told)["lora"].stat().st_size == told["bytes"]["lora"]
