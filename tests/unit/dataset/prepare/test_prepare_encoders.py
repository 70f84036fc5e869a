"""Which text encoder made a cached encoding: weights, patches, end layer and tokenizer options."""

from __future__ import annotations

import gc
import types
from pathlib import Path

import comfy.model_management
import comfy.sd
import folder_paths
import numpy as np
import pytest
import torch
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDClipModel
from comfy.weight_adapter.lora import LoRAAdapter
from likeness.nodes.brackets import literal_tokens
from likeness.nodes.cache_limit import files_of
from likeness.nodes.dataset.prepare.nodes import LikenessPrepareTraining, _encoders
from likeness.nodes.dataset.prepare.prepare import PrepareSettings, prepare
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces.detect import find_face
from likeness.nodes.media.images import read_photo
from likeness.nodes.sockets import Photo, Subject
from likeness.nodes.tensors import read_conditioning, read_latent, write_latent

SETTINGS = PrepareSettings(256, "head and shoulders", "photo of {subject}")
LAYER = "clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight"


class _TinyText(SD1ClipModel):
    """CLIP's text encoder with three layers of width 32."""

    def __init__(self, device="cpu", dtype=None, model_options=None):
        config = {"num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 2,
                  "intermediate_size": 64, "hidden_act": "quick_gelu", "vocab_size": 49408,
                  "max_position_embeddings": 77, "eos_token_id": 49407}
        super().__init__(device, dtype, model_options or {}, clip_model=SDClipModel,
                         textmodel_json_config=config)


@pytest.fixture(scope="module")
def clip():
    target = types.SimpleNamespace(params={}, clip=_TinyText, tokenizer=SD1Tokenizer)
    made = comfy.sd.CLIP(target)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in made.cond_stage_model.state_dict().items():
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            weight.copy_(centre + 0.2 * torch.randn(weight.shape, generator=generator))
    return made


@pytest.fixture(scope="module")
def vae():
    weights = torch.nn.AvgPool2d(8)
    return types.SimpleNamespace(encode=lambda image: weights(image.movedim(-1, 1)),
                                 first_stage_model=weights)


@pytest.fixture(scope="module")
def subject(assets: Path) -> Subject:
    pixels = read_photo(assets / "obama.jpg")
    photo = Photo(assets / "obama.jpg", "obama.jpg", "0" * 64, pixels.shape[1], pixels.shape[0],
                  face=find_face(pixels))
    return Subject("obama", "ohwx", "man", (photo,), (), {}, {}, np.zeros((478, 3)))


@pytest.fixture(autouse=True)
def _as_the_executor_runs_prompts():
    with torch.inference_mode():
        yield


def _prepare(subject, vae, clip, folder):
    training_set, _ = prepare(subject, SETTINGS, _encoders(vae, clip), folder, lambda done: None)
    text = read_conditioning(training_set.conditionings[training_set.items[0].conditioning_key])
    return training_set, text[0][0]


def _with_lora(clip, strength, value=0.1):
    patched = clip.clone()
    adapter = LoRAAdapter(set(), (torch.full((64, 2), value), torch.full((2, 32), 0.1), 2.0, None,
                                  None, None))
    assert patched.add_patches({LAYER: adapter}, strength)
    return patched


def test_an_encoder_with_another_end_layer_encodes_anew(subject, vae, clip, tmp_path):
    skipping = clip.clone()
    skipping.clip_layer(-2)
    first, last_layer = _prepare(subject, vae, clip, tmp_path)
    second, second_last = _prepare(subject, vae, skipping, tmp_path)
    assert first.key != second.key
    assert not torch.allclose(last_layer, second_last, atol=1e-2)
    truth = skipping.encode_from_tokens_scheduled(skipping.tokenize(second.items[0].caption))
    assert torch.equal(second_last, truth[0][0])


def test_an_equal_clone_is_served_from_the_cache(subject, vae, clip, tmp_path):
    first, _ = _prepare(subject, vae, clip, tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    second, _ = _prepare(subject, vae, clip.clone(), tmp_path)
    assert first.key == second.key
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written


def test_tokenizer_options_and_clip_schedule_are_part_of_the_key(vae, clip):
    padded, scheduled = clip.clone(), clip.clone()
    padded.set_tokenizer_option("clip_l_min_length", 96)
    scheduled.use_clip_schedule = True
    keys = {_encoders(vae, each).text_key for each in (clip, padded, scheduled)}
    assert len(keys) == 3


def test_a_text_lora_is_told_by_its_content_and_strength(vae, clip):
    same = {_encoders(vae, _with_lora(clip, 0.5)).text_key for _ in range(2)}
    others = {_encoders(vae, each).text_key
              for each in (clip, _with_lora(clip, 0.6), _with_lora(clip, 0.5, value=0.2))}
    assert len(same) == 1 and len(others) == 3 and not same & others


def _loaded(clip):
    return any(entry.model is not None and entry.model.is_clone(clip.patcher)
               for entry in comfy.model_management.current_loaded_models)


def test_the_text_encoder_leaves_the_device_once_the_captions_lie_on_disk(
        subject, vae, clip, tmp_path, monkeypatch):
    for kind in ("output", "temp"):
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path / kind))
        (tmp_path / kind).mkdir()
    patched = _with_lora(clip, 1.0)  # its layers are changed in place while it is loaded
    tokens = patched.tokenize("photo of ohwx man")
    before = patched.encode_from_tokens_scheduled(tokens)[0][0].clone()
    assert _loaded(clip)
    LikenessPrepareTraining.execute(subject, vae, patched, 256, "head and shoulders",
                                    "photo of {subject}")
    assert not _loaded(clip)
    again = patched.encode_from_tokens_scheduled(tokens)[0][0]
    assert torch.equal(again, before) and _loaded(clip)


def test_brackets_of_a_caption_are_words_and_an_older_encoding_of_weights_is_not_used(
        subject, vae, clip, tmp_path):
    caption = "photo of ohwx man (smiling), a cat (1.5)"
    settings = PrepareSettings(256, "head and shoulders", caption)
    made, _ = prepare(subject, settings, _encoders(vae, clip), tmp_path, lambda done: None)
    found = read_conditioning(made.conditionings[made.items[0].conditioning_key])[0][0]
    words = {key: [[(entry[0], 1.0) for entry in section] for section in sections] for key, sections
             in clip.tokenize(caption.replace("(", r"\(").replace(")", r"\)")).items()}
    assert torch.equal(found, clip.encode_from_tokens_scheduled(words)[0][0])
    weighed = clip.encode_from_tokens_scheduled(clip.tokenize(caption))[0][0]
    assert not torch.allclose(found, weighed, atol=1e-3)
    assert clip.tokenizer.clip_l.tokenizer.decode(
        [entry[0] for entry in literal_tokens(clip, caption)["l"][0]]).count("(") == 2


def test_a_vae_that_gives_nan_is_named_here_and_what_an_older_one_left_is_made_again(
        subject, vae, clip, tmp_path):
    weights = vae.first_stage_model
    broken = types.SimpleNamespace(encode=lambda image: vae.encode(image) * torch.nan,
                                   first_stage_model=weights)
    with pytest.raises(LikenessError, match="The VAE gives NaN .* obama.jpg"):
        _prepare(subject, broken, clip, tmp_path)
    assert not list(tmp_path.glob("*.latent.safetensors"))
    made, _ = _prepare(subject, vae, clip, tmp_path)
    latent, mask = read_latent(made.items[0].latent_file)
    write_latent(made.items[0].latent_file, latent * torch.nan, mask)
    again, _ = _prepare(subject, vae, clip, tmp_path)
    assert torch.equal(read_latent(again.items[0].latent_file)[0], latent)


def test_a_text_encoder_that_gives_nan_is_named_here(subject, vae, clip, tmp_path):
    broken = _with_lora(clip, 1.0, value=torch.nan)
    with pytest.raises(LikenessError, match="The text encoder gives NaN"):
        _prepare(subject, vae, broken, tmp_path)
    assert not list(tmp_path.glob("*.text.safetensors"))


def test_one_node_s_limit_leaves_the_files_of_a_set_that_another_still_holds(
        subject, vae, clip, tmp_path, monkeypatch):
    for kind in ("output", "temp"):
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path / kind))
        (tmp_path / kind).mkdir()

    def run(resolution):
        return LikenessPrepareTraining.execute(subject, vae, clip, resolution, "head and shoulders",
                                               "photo of {subject}", cache_limit_mb=0).args[0]

    held = run(256)
    files = files_of(held)
    run(320)
    assert all(path.is_file() for path in files)
    latent = held.items[0].latent_file
    del held
    gc.collect()
    run(320)
    assert not latent.exists()
