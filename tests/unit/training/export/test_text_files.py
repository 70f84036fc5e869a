"""Files of text encoders load through the stock CLIP as they were trained."""

from __future__ import annotations

import pytest
import text_models
import torch
from likeness.nodes.errors import LikenessError
from likeness.nodes.tensors import write_tensors
from likeness.nodes.training.export import embedding, text_lora
from likeness.nodes.training.export.keys import KeyStyle
from likeness.nodes.training.frozen.scope import Scope
from likeness.nodes.training.recipes.adapters import (
    DoRARecipe,
    LoHaRecipe,
    LoKrRecipe,
    LoRARecipe,
    OFTRecipe,
)
from likeness.nodes.training.recipes.base import TokenSettings
from likeness.nodes.training.recipes.fields import Target
from likeness.nodes.training.text.encoders import TextEncoders

EVERY = pytest.mark.parametrize("name", text_models.ENCODERS)
CAPTION = "photo of ohwx man, (smiling)"
FIELDS = {"likeness.trigger": "ohwx", "likeness.class": "man"}


def _trained(clip, tokens=True, adapters=False, vectors=2, size=0.3,
             kind=LoRARecipe):
    """Text encoders as they might be after a run."""
    recipe = kind(rank=4, text_encoder=adapters, target=Target.ALL_LINEAR,
                  tokens=TokenSettings(vectors=vectors) if tokens else None)
    generator = torch.Generator().manual_seed(0)
    text = TextEncoders(clip, recipe, "ohwx", "man", generator=generator)
    with torch.inference_mode(False), torch.no_grad():
        for parameter in text.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return text


@EVERY
@pytest.mark.parametrize("inside", [True, False], ids=["the host's folder", "another folder"])
def test_a_saved_word_encodes_through_the_host_as_it_was_trained(name, inside, tmp_path):
    with torch.inference_mode():
        clip = text_models.make_clip(name, tmp_path / "host")
        text = _trained(clip)
        path = tmp_path / ("host" if inside else "elsewhere") / "ann-1.safetensors"
        embedding.save_embedding(path, text, FIELDS)
        found, error = embedding.check_embedding(path, clip, text, CAPTION)
        assert error < 1e-5
        prompt = r"photo of embedding:ann-1 man, \(smiling\)"
        live = embedding.live_encoding(text, CAPTION)
        stock = clip if inside else found
        torch.testing.assert_close(text_models.stock_encode(stock, prompt), live)
        assert not torch.allclose(text_models.stock_encode(clip, CAPTION), live, atol=1e-3)


def test_files_have_the_names_that_others_expect(tmp_path):
    for name, keys in (("sd15", {"emb_params"}), ("sdxl", {"clip_l", "clip_g"}),
                       ("flux", {"clip_l", "t5xxl"})):
        text = _trained(text_models.make_clip(name, tmp_path), vectors=3)
        embedding.save_embedding(tmp_path / f"{name}.safetensors", text, FIELDS)
        tensors, said = embedding.read_embedding(tmp_path / f"{name}.safetensors")
        assert set(tensors) == keys
        assert all(rows.shape == (3, 64) and rows.dtype == torch.float32
                   for rows in tensors.values())
        assert said == {**FIELDS, "likeness.vectors": "3"}


def test_a_file_with_other_rows_is_not_passed(tmp_path):
    clip = text_models.make_clip("sdxl", tmp_path)
    text = _trained(clip)
    path = tmp_path / "ann.safetensors"
    rows = embedding.embedding_tensors(text.tokens)
    write_tensors(path, {**rows, "clip_l": rows["clip_l"] + 1e-3})
    with pytest.raises(LikenessError, match="gives clip_l other rows"):
        embedding.check_embedding(path, clip, text, CAPTION)


def test_a_name_that_two_files_have_is_refused_unless_they_are_copies(tmp_path):
    clip = text_models.make_clip("sd15", tmp_path / "host")
    text = _trained(clip)
    path = tmp_path / "output" / "ann.safetensors"
    embedding.save_embedding(path, text, FIELDS)
    copy = tmp_path / "host" / "people" / "ann.safetensors"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(path.read_bytes())
    embedding.check_embedding(path, clip, text, CAPTION)
    embedding.save_embedding(copy, _trained(clip, size=0.1), FIELDS)
    with pytest.raises(LikenessError, match="has the same name"):
        embedding.check_embedding(path, clip, text, CAPTION)


@pytest.mark.parametrize("name", ["ann lee", "ann,1", "ann(1)", ""])
def test_a_name_that_no_prompt_can_call_is_refused(name):
    with pytest.raises(LikenessError, match="cannot be called"):
        embedding.check_name(name)


def test_a_finished_words_file_gives_the_rows_back(tmp_path):
    clip = text_models.make_clip("sdxl", tmp_path)
    text, other = _trained(clip), _trained(clip, size=0)
    path = tmp_path / "ann.safetensors"
    embedding.save_embedding(path, text, FIELDS)
    embedding.take_over(path, other)
    for name, rows in text.tokens.rows.items():
        assert torch.equal(other.tokens.rows[name], rows)
    with pytest.raises(ValueError, match="shape"):
        embedding.take_over(path, _trained(clip, vectors=1))


@EVERY
@pytest.mark.parametrize("stored", [torch.float32, torch.float16], ids=["fp32", "fp16"])
def test_text_adapters_load_through_the_host_as_they_were_trained(name, stored, tmp_path):
    with torch.inference_mode():
        clip = text_models.make_clip(name, tmp_path, dtype=stored)
        text = _trained(clip, tokens=False, adapters=True, size=0.05)
        tensors = text_lora.text_lora_tensors(text, stored)
        patched, error = text_lora.check_text(tensors, clip, text, "ann.safetensors")
        assert error < (1e-4 if stored is torch.float32 else 1e-2)
        assert len(patched.patcher.patches) == len(text.adapters.layers)
        assert not clip.patcher.patches


@pytest.mark.parametrize("kind", [DoRARecipe, LoHaRecipe, LoKrRecipe, OFTRecipe])
def test_every_technique_loads_in_the_text_encoders(kind, tmp_path):
    clip = text_models.make_clip("sdxl", tmp_path)
    text = _trained(clip, tokens=False, adapters=True, size=0.02, kind=kind)
    tensors = text_lora.text_lora_tensors(text, torch.float32)
    assert text_lora.check_text(tensors, clip, text, "ann.safetensors")[1] < 1e-3


def test_text_adapters_have_kohyas_names(tmp_path):
    for name, starts in (("sd15", {"lora_te"}), ("sdxl", {"lora_te1", "lora_te2"}),
                         ("flux", {"lora_te1", "lora_te3"})):
        text = _trained(text_models.make_clip(name, tmp_path), tokens=False, adapters=True)
        tensors = text_lora.text_lora_tensors(text, torch.float16, KeyStyle.KOHYA)
        known = {key.split("_text_")[0].split("_encoder_")[0] for key in tensors
                 if "text_projection" not in key}
        assert known == starts


def test_a_file_without_a_layer_is_not_passed(tmp_path):
    clip = text_models.make_clip("sd15", tmp_path)
    text = _trained(clip, tokens=False, adapters=True, size=0.05)
    tensors = text_lora.text_lora_tensors(text, torch.float32)
    layer = next(iter(tensors)).split(".")[0]
    short = {name: value for name, value in tensors.items() if not name.startswith(layer)}
    with pytest.raises(LikenessError, match="is missing"):
        text_lora.check_text(short, clip, text, "ann.safetensors")
    wrong = {name: 2 * value for name, value in tensors.items()}
    with pytest.raises(LikenessError, match="otherwise than in training"):
        text_lora.check_text(wrong, clip, text, "ann.safetensors")


def test_word_and_adapters_of_one_run_load_together(tmp_path):
    with torch.inference_mode():
        clip = text_models.make_clip("sdxl", tmp_path / "host", dtype=torch.float16)
        text = _trained(clip, adapters=True, size=0.05)
        path = tmp_path / "ann.safetensors"
        embedding.save_embedding(path, text, FIELDS)
        tensors = text_lora.text_lora_tensors(text, torch.float16)
        patched, _ = text_lora.check_text(tensors, clip, text, path.name)
        found, error = embedding.check_embedding(path, patched, text, CAPTION)
        assert error < 5e-3
        with pytest.raises(LikenessError, match="otherwise than in training"):
            embedding.check_embedding(path, clip, text, CAPTION)
        assert found.patcher.patches


def test_encoding_inside_a_scope_sees_no_files(tmp_path):
    clip = text_models.make_clip("sd15", tmp_path)
    text = _trained(clip)
    with torch.no_grad(), Scope() as scope:
        text.attach(scope)
        text.encode(CAPTION)
        assert not list(tmp_path.iterdir())
