"""One node puts the files of a run on a MODEL and a CLIP, whatever folder they lie in."""

from __future__ import annotations

import json

import folder_paths
import pytest
import text_models
import torch
import training_models
from likeness.nodes.errors import LikenessError
from likeness.nodes.tensors import write_tensors
from likeness.nodes.training.apply.nodes import ApplyTrainedNode
from likeness.nodes.training.export import embedding, text_lora
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.recipes.base import TokenSettings
from likeness.nodes.training.text.encoders import TextEncoders

SAID = {"likeness.trigger": "ohwx", "likeness.class": "man", "likeness.run": "run 1",
        "likeness.recipe": json.dumps({"tokens": {"vectors": 2}})}
LAYER = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The host's folders, empty: (models, output)."""
    for kind in ("loras", "embeddings"):
        (tmp_path / "models" / kind).mkdir(parents=True)
        (tmp_path / "output" / kind).mkdir(parents=True)
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind,
                            ([str(tmp_path / "models" / kind)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    folder_paths.filename_list_cache.clear()
    yield tmp_path / "models", tmp_path / "output"
    folder_paths.filename_list_cache.clear()


def _loaded(folders, name="sd15"):
    return (training_models.make_model(name),
            text_models.make_clip(name, folders[0] / "embeddings"))


def _trained(clip):
    recipe = LoRARecipe(rank=4, text_encoder=True, tokens=TokenSettings())
    generator = torch.Generator().manual_seed(0)
    text = TextEncoders(clip, recipe, "ohwx", "man", generator=generator)
    with torch.inference_mode(False), torch.no_grad():
        for parameter in text.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return text


def _save(folder, text, model, name="ann-1", said=SAID):
    """Both files of a pivotal run below a folder."""
    side = model.model.diffusion_model.get_submodule(LAYER.split(".", 1)[1]).weight.shape[0]
    network = {f"{LAYER}.lora_up.weight": torch.randn(side, 2),
               f"{LAYER}.lora_down.weight": torch.randn(2, side)}
    write_tensors(folder / "loras" / f"{name}.safetensors",
                  {**network, **text_lora.text_lora_tensors(text, torch.float32)}, said)
    embedding.save_embedding(folder / "embeddings" / f"{name}.safetensors", text, said)


def _apply(model, clip, lora="none", **fields):
    given = {"strength_model": 1.0, "strength_clip": 1.0, **fields}
    patched, words, trigger, text = ApplyTrainedNode.execute(model, clip, lora, **given).args
    return patched, words, trigger, json.loads(text)


@pytest.mark.parametrize("place", [0, 1], ids=["models", "output"])
def test_both_files_of_a_run_are_found_by_the_lora_alone(place, folders):
    with torch.inference_mode():
        model, clip = _loaded(folders)
        text = _trained(clip)
        _save(folders[place], text, model)
        lora = ("output/loras/" if place else "") + "ann-1.safetensors"
        assert lora in ApplyTrainedNode.GET_SCHEMA().inputs[2].options
        patched, found, trigger, report = _apply(model, clip, lora)
        assert trigger == "embedding:ann-1"
        assert report["prompt"] == "photo of embedding:ann-1 man"
        assert report["layers"] == 1 and report["text_layers"] == len(text.adapters.layers)
        assert f"{LAYER}.weight" in patched.patches and not model.patches
        live = embedding.live_encoding(text, "photo of ohwx man")
        torch.testing.assert_close(text_models.stock_encode(found, report["prompt"]), live,
                                   rtol=1e-3, atol=1e-3)
        assert not clip.patcher.patches
        assert clip.tokenizer.clip_l.embedding_directory == [str(folders[0] / "embeddings")]


def test_a_word_alone_needs_no_lora(folders):
    model, clip = _loaded(folders)
    _save(folders[1], _trained(clip), model)
    for given in ("ann-1", "embedding:ann-1", str(folders[1] / "embeddings/ann-1.safetensors")):
        patched, _, trigger, report = _apply(model, clip, embedding=given)
        assert patched is model and trigger == "embedding:ann-1"
        assert report["encoders"] == ["clip_l"] and report["vectors"] == 2


def test_a_lora_without_a_word_gives_the_trigger(folders):
    model, clip = _loaded(folders)
    _save(folders[1], _trained(clip), model, said={**SAID, "likeness.recipe": "{}"})
    (folders[1] / "embeddings/ann-1.safetensors").unlink()
    path = str(folders[1] / "loras/ann-1.safetensors")
    _, found, trigger, report = _apply(model, clip, lora_path=path)
    assert trigger == "ohwx" and report["embedding"] is None
    assert found.tokenizer is clip.tokenizer


def test_a_missing_word_of_a_run_is_named(folders):
    model, clip = _loaded(folders)
    text = _trained(clip)
    _save(folders[1], text, model)
    word = folders[1] / "embeddings/ann-1.safetensors"
    embedding.save_embedding(word, text, {**SAID, "likeness.run": "another run"})
    with pytest.raises(LikenessError, match="together with a new word, whose file"):
        _apply(model, clip, "output/loras/ann-1.safetensors")
    word.unlink()
    with pytest.raises(LikenessError, match="together with a new word, whose file"):
        _apply(model, clip, "output/loras/ann-1.safetensors")


def test_strengths_scale_each_side(folders):
    model, clip = _loaded(folders)
    _save(folders[1], _trained(clip), model)
    patched, found, _, _ = _apply(model, clip, "output/loras/ann-1.safetensors",
                                  strength_model=0.5, strength_clip=0.25)
    assert {entry[0] for entry in patched.patches[f"{LAYER}.weight"]} == {0.5}
    assert {entry[0] for rows in found.patcher.patches.values() for entry in rows} == {0.25}


def test_files_of_another_model_are_refused(folders):
    model, clip = _loaded(folders)
    write_tensors(folders[1] / "loras" / "other.safetensors",
                  {"lora_unet_nowhere.lora_up.weight": torch.randn(4, 2),
                   "lora_unet_nowhere.lora_down.weight": torch.randn(2, 4)})
    with pytest.raises(LikenessError, match="No layer of this model"):
        _apply(model, clip, "output/loras/other.safetensors")
    write_tensors(folders[1] / "embeddings" / "wide.safetensors",
                  {"emb_params": torch.randn(2, 768)})
    with pytest.raises(LikenessError, match="trained for another text encoder than clip_l"):
        _apply(model, clip, embedding="wide")


def test_bad_choices_are_refused_in_a_sentence(folders, tmp_path):
    model, clip = _loaded(folders)
    with pytest.raises(LikenessError, match="Nothing to apply"):
        _apply(model, clip)
    with pytest.raises(LikenessError, match="`ann.safetensors` was not found"):
        _apply(model, clip, embedding="ann")
    with pytest.raises(LikenessError, match="outside ComfyUI's folders"):
        _apply(model, clip, lora_path=str(tmp_path / "ann.safetensors"))
    with pytest.raises(LikenessError, match="lies outside"):
        _apply(model, clip, embedding="../loras/ann")
    (folders[1] / "loras" / "list.pt").write_bytes(b"no file of torch")
    with pytest.raises(LikenessError, match="list.pt cannot be read"):
        _apply(model, clip, lora_path="list.pt")
    (folders[1] / "loras" / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(LikenessError, match="torn.safetensors cannot be read"):
        _apply(model, clip, "output/loras/torn.safetensors")
    with pytest.raises(LikenessError, match="connect a CLIP loader"):
        _apply(model, None, embedding="ann")


def test_a_replaced_file_is_loaded_again(folders):
    model, clip = _loaded(folders)
    _save(folders[1], _trained(clip), model)
    given = {"lora": "output/loras/ann-1.safetensors", "lora_path": None, "embedding": ""}
    first = ApplyTrainedNode.fingerprint_inputs(**given)
    assert ApplyTrainedNode.fingerprint_inputs(**given) == first
    _save(folders[1], _trained(clip), model, said={**SAID, "likeness.class": "woman"})
    assert ApplyTrainedNode.fingerprint_inputs(**given) != first
    assert "not found" in ApplyTrainedNode.fingerprint_inputs(embedding="nobody")


def test_every_input_is_explained():
    schema = ApplyTrainedNode.GET_SCHEMA()
    for socket in [*schema.inputs, *schema.outputs]:
        assert len(socket.tooltip) > 15
