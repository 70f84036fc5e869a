"""Exported folders trained by the real sd-scripts on SD1.5's shapes, and their files back here."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import comfy.ldm.models.autoencoder
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import numpy as np
import pytest
import torch
import training_models
from likeness.nodes import runtime
from likeness.nodes.sockets import Photo, Subject
from likeness.nodes.training.adapters.targets import target_layers
from likeness.nodes.training.apply.trained import apply_trained
from likeness.nodes.training.export.lora import read_lora
from likeness.nodes.training.kohya.nodes import ExportKohyaNode
from likeness.nodes.training.recipes.adapters import (
    DoRARecipe,
    LoHaRecipe,
    LoKrRecipe,
    LoRARecipe,
    OFTRecipe,
)
from PIL import Image

from launcher.tiny.checkpoints import unet_config
from launcher.tiny.random_weights import fill, write_sparse

# Of the latents, rows and columns: a UNet of four levels takes no less, and of one place alone
# self-attention learns nothing.
SIZES = ((8, 16), (16, 8))
STEPS = 3
TRIGGER = "ohwx"
_TOKENIZER = "openai_clip-vit-large-patch14"  # a folder's name in sd-scripts' tokenizer cache
_WIDTHS = {"model_channels": 320, "num_heads": 8, "num_head_channels": -1, "context_dim": 768}
_VAE = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3,
        "ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [],
        "dropout": 0.0}
# What each technique leaves at zero until it has learned.
_ZERO_AT_FIRST = {"lora": (".lora_up.weight",), "dora": (".lora_up.weight",),
                  "lokr": (".lokr_w2_b", ".lokr_w2"),  # the latter where the rank reaches it
                  "loha": (".hada_w2_a",), "oft": (".oft_blocks",)}


def _config() -> comfy.supported_models.SD15:
    known = {**unet_config("sd15"), **_WIDTHS, "use_linear_in_transformer": False,
             "use_temporal_attention": False, "adm_in_channels": None}
    config = comfy.supported_models.SD15(known)
    config.set_inference_dtype(torch.float32, None)
    return config


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """SD1.5 in its real shapes with random weights."""
    config = _config()
    parts = {"unet": config.get_model({}, "", device="meta").diffusion_model,
             "clip": comfy.sd1_clip.SD1ClipModel(device="meta", dtype=torch.float32)}
    with torch.device("meta"):
        parts["vae"] = comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=_VAE, embed_dim=4)
    values = {name: fill(part.state_dict(), torch.float16, f"{name}.")
              for name, part in parts.items()}
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    write_sparse(path, {**config.process_unet_state_dict_for_saving(values["unet"]),
                        **config.process_vae_state_dict_for_saving(values["vae"]),
                        **config.process_clip_state_dict_for_saving(values["clip"])}, {})
    return path


@pytest.fixture(scope="module")
def host(checkpoint):
    """The same checkpoint as the host loads it."""
    model, clip, *_ = comfy.sd.load_checkpoint_guess_config(str(checkpoint), output_vae=False)
    return model, clip


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory) -> Path:
    """sd-scripts' tokenizer cache, filled with the host's own copy."""
    folder = tmp_path_factory.mktemp("tokenizers")
    own = Path(comfy.sd1_clip.__file__).parent / "sd1_tokenizer"
    shutil.copytree(own, folder / _TOKENIZER)
    settings = folder / _TOKENIZER / "tokenizer_config.json"
    # The host splits prompts by itself and has no limit there; CLIP's own copy says this.
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "model_max_length": 77}))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A training set, its subject, and a folder of class pictures."""
    folder = tmp_path_factory.mktemp("photos")
    made = training_models.make_training_set(folder, "sd15", SIZES)
    random = np.random.default_rng(0)
    references = []
    for item in made.items:
        file = folder / item.photo.replace(".jpg", ".png")
        pixels = random.integers(0, 255, (150, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((1000, 1500)).save(file, compress_level=1)
        references.append(Photo(file, item.photo, item.photo_sha256, 1000, 1500))
    others = folder / "others"
    others.mkdir()
    Image.new("RGB", (160, 130), (90, 120, 200)).save(others / "a.png")
    (others / "a.caption").write_text("a painting of a woman\n")
    subject = Subject("Ann", TRIGGER, "woman", tuple(references), (), {}, {}, np.zeros((478, 3)))
    return made, subject, others


CASES = [LoRARecipe(), LoRARecipe(text_encoder=True, optimizer="prodigy", learning_rate=1.0,
                                  text_rate=1.0),
         LoKrRecipe(text_encoder=True), LoKrRecipe(target="all linear and convolutions"),
         DoRARecipe(precision="float32"), LoHaRecipe(target="attention"), OFTRecipe()]


@pytest.mark.parametrize("recipe", CASES, ids=lambda recipe: "-".join(
    [recipe.method, recipe.optimizer.value, recipe.target.value]).replace(" ", "_"))
def test_an_exported_folder_trains_and_its_file_comes_back(recipe, checkpoint, tokenizers, photos,
                                                           host, tmp_path, monkeypatch, caplog):
    recipe = type(recipe)(**{**vars(recipe), "steps": STEPS})
    report = _exported(recipe, checkpoint, photos, tmp_path, monkeypatch)
    path = _trained(report, tokenizers)
    tensors, said = read_lora(path)
    assert said["modelspec.trigger_phrase"] == TRIGGER
    assert said["modelspec.resolution"] == "128x128"  # the square that the largest bucket fits in
    assert json.loads(said["ss_datasets"])[0]["resolution"] == [128, 128]
    _assert_moved(tensors, recipe.method)
    model, clip = host
    applied = apply_trained(model, clip, path, None, 1.0, 1.0)
    assert not [row for row in caplog.records if "not loaded" in row.getMessage()]
    learned = {name.partition(".")[0] for name in tensors}
    words = dict(applied.clip.patcher.patches)
    assert len(learned) == len(applied.model.patches) + len(words)
    wanted = {f"diffusion_model.{layer}.weight" for layer in
              target_layers(model.model.diffusion_model, recipe.target)}
    assert wanted <= set(applied.model.patches)
    if recipe.method != "lora":  # LyCORIS is told exactly the layers that learn here
        assert set(applied.model.patches) == wanted
    wanted = target_layers(clip.cond_stage_model, recipe.target) if recipe.text_encoder else ()
    assert set(words) == {f"{layer}.weight" for layer in wanted}


def _exported(recipe, checkpoint: Path, photos, tmp_path: Path, monkeypatch) -> Mapping:
    training_set, subject, others = photos
    monkeypatch.setattr(runtime, "output_directory", lambda: tmp_path)
    monkeypatch.setattr(runtime, "input_directory", lambda: others.parent)
    _, report = ExportKohyaNode.execute(training_set, subject, recipe, "sd15", str(checkpoint), "",
                                        3, class_folder=others.name).result
    return json.loads(report)


def _trained(report: Mapping, tokenizers: Path) -> Path:
    """Run the command that an export gives, and return the file that comes out."""
    python = os.environ["LIKENESS_SD_SCRIPTS_PYTHON"]
    _, launch, *command = shlex.split(report["command"])
    assert launch == "launch"
    outcome = subprocess.run(
        [python, "-m", "accelerate.commands.launch", "--num_cpu_threads_per_process=1", *command,
         "--tokenizer_cache_dir", str(tokenizers)],
        cwd=os.environ["LIKENESS_SD_SCRIPTS"], capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"})
    assert outcome.returncode == 0, outcome.stdout[-3000:] + outcome.stderr[-6000:]
    (path,) = Path(report["output_dir"]).glob("*.safetensors")
    return path


def _assert_moved(tensors: Mapping[str, torch.Tensor], method: str) -> None:
    first = {name: value for name, value in tensors.items()
             if name.endswith(_ZERO_AT_FIRST[method])}
    assert len(first) == len({name.partition(".")[0] for name in tensors})
    still = [name for name, value in first.items() if not value.any()]
    assert not still, f"{len(still)} of {len(first)}: {still[:5]}"
    assert all(value.isfinite().all() for value in tensors.values())
