"""What Apply Trained makes of other trainers' files, and what it tells of what does not fit."""

from __future__ import annotations

import json

import folder_paths
import kohya_files
import pytest
import quantised_models
import text_models
import torch
import training_models
from likeness.nodes import runtime
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.apply.nodes import ApplyTrainedNode
from likeness.nodes.training.apply.trained import apply_trained
from safetensors.torch import save_file

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
QUERY = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
TEXT = "encoder.layers.1.self_attn.q_proj"


@pytest.fixture(autouse=True)
def temp(tmp_path, monkeypatch):
    """The host's folder of what lasts until it stops."""
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    return tmp_path / "temp"


@pytest.fixture
def loaded(tmp_path):
    """A tiny SD1.5."""
    return training_models.make_model("sd15"), text_models.make_clip("sd15", tmp_path / "words")


def _matrices(stem, outputs, inputs, rank=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {f"{stem}.lora_A.weight": torch.randn(rank, inputs, generator=generator),
            f"{stem}.lora_B.weight": torch.randn(outputs, rank, generator=generator)}


def _saved(folder, tensors, said=None, name="theirs.safetensors"):
    own = {key: value.contiguous().clone() for key, value in tensors.items()}
    save_file(own, str(folder / name), said)
    return folder / name


def _change(patcher, key):
    """What a loaded patcher adds to a weight, which is put back."""
    before = patcher.model.state_dict()[key].clone()
    runtime.load_models([patcher])
    after = patcher.model.state_dict()[key].clone()
    runtime.unload(patcher)
    return after - before


@pytest.mark.parametrize("stem", [
    f"text_encoder.{TEXT}", f"text_encoder.text_model.{TEXT}", f"base_model.model.{TEXT}",
    f"base_model.model.text_model.{TEXT}", f"text_encoder.base_model.model.text_model.{TEXT}",
    f"lora_te_{TEXT.replace('.', '_')}"])
def test_text_layers_are_found_under_every_spelling(stem, loaded, tmp_path):
    tensors = {**_matrices(stem, 64, 64), f"{stem}.alpha": torch.tensor(2.0)}
    applied = apply_trained(*loaded, _saved(tmp_path, tensors), None, 1.0, 1.0)
    report = applied.report
    assert (report["layers"], report["text_layers"], report["warnings"]) == (0, 1, [])
    found = _change(applied.clip.patcher, f"clip_l.transformer.text_model.{TEXT}.weight")
    wanted = tensors[f"{stem}.lora_B.weight"] @ tensors[f"{stem}.lora_A.weight"]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_the_second_encoder_of_sdxl_and_t5_of_flux_are_found(tmp_path):
    for name, path, sizes in (("sdxl", TEXT, None),
                              ("flux", "encoder.block.0.layer.0.SelfAttention.q", None)):
        model, clip = training_models.make_model(name), text_models.make_clip(name, tmp_path)
        key = next(key for key in clip.cond_stage_model.state_dict()
                   if key.endswith(f"{path}.weight") and not key.startswith("clip_l"))
        sizes = clip.cond_stage_model.state_dict()[key].shape
        file = _saved(tmp_path, _matrices(f"text_encoder_2.{path}", *sizes))
        applied = apply_trained(model, clip, file, None, 1.0, 1.0)
        assert set(applied.clip.patcher.patches) == {key}


def test_layers_that_are_missing_are_counted_and_told(loaded, tmp_path):
    tensors = {}
    for at in range(3):
        tensors |= _matrices(f"unet.{BLOCK.replace('.0', f'.{at}', 1)}.attn9.to_q", 32, 32)
    tensors |= _matrices(f"unet.{BLOCK}.attn1.to_q", 32, 32)
    tensors |= _matrices(f"unet.{BLOCK}.attn1.to_k", 32, 768)
    tensors |= _matrices("text_encoder.encoder.layers.77.self_attn.q_proj", 64, 64)
    applied = apply_trained(*loaded, _saved(tmp_path, tensors), None, 1.0, 1.0)
    report = applied.report
    assert (report["layers"], report["layers_left_out"]) == (1, 4)
    assert (report["text_layers"], report["text_layers_left_out"]) == (0, 1)
    assert set(applied.model.patches) == {QUERY}
    model, text = report["warnings"]
    assert "1 of 5 model layers" in model and "3 not in this model" in model
    assert "1 of another shape" in model and "32x768 in the file, 32x32 here" in model
    assert "0 of 1 text encoder layers" in text and "load all of the checkpoint's text" in text


@pytest.mark.parametrize(("stem", "sizes", "said", "found"), [
    ("transformer.single_transformer_blocks.0.attn.to_q", (64, 64), None,
     "diffusers' names.*trained for FLUX and this MODEL is SD1.5"),
    ("lora_unet_double_blocks_0_img_attn_qkv", (64, 64), None, "kohya's names.*trained for FLUX"),
    ("base_model.model.transformer_blocks.0.attn.add_q_proj", (64, 64), None,
     "PEFT's names.*trained for SD3"),
    (f"unet.{BLOCK}.attn2.to_k", (640, 2048), None, "trained for SDXL and this MODEL is SD1.5"),
    (f"unet.{BLOCK}.attn1.to_q", (320, 320), None,
     "320x320 in the file, 32x32 here.*sizes are another model's"),
    ("some.layer", (64, 64), {"ss_base_model_version": "sdxl_base_v1-0"}, "trained for SDXL"),
    ("some.layer", (64, 64), {"modelspec.architecture": "stable-diffusion-v1/lora"},
     "unknown names.*no such layers under any name")])
def test_a_file_that_does_not_fit_says_whose_it_is_and_for_what(stem, sizes, said, found, loaded,
                                                                tmp_path):
    file = _saved(tmp_path, _matrices(stem, *sizes), said)
    with pytest.raises(LikenessError, match=f"No layer of this model.*{found}"):
        apply_trained(*loaded, file, None, 1.0, 1.0)


def test_a_layer_with_a_part_that_nobody_knows_is_not_applied_as_something_else(loaded, tmp_path):
    stem = f"base_model.model.{BLOCK}.attn1"
    tensors = {**_matrices(f"{stem}.to_q", 32, 32), **_matrices(f"{stem}.to_v", 32, 32),
               f"{stem}.to_q.lora_E": torch.ones(2, 1),
               f"{stem}.to_k.oft_R.weight": torch.ones(2, 28)}
    applied = apply_trained(*loaded, _saved(tmp_path, tensors), None, 1.0, 1.0)
    assert applied.report["layers"] == 1 and QUERY not in applied.model.patches
    warning = applied.report["warnings"][0]
    assert "1 with `lora_E`, which is no part of a LoRA" in warning and "`oft_R`" in warning
    assert "1 of 3 model layers" in warning


def test_a_layer_that_is_changed_twice_keeps_both(loaded, tmp_path):
    stem = f"unet.{BLOCK}.attn1.to_q"
    diff = 0.1 * torch.randn(32, 32, generator=torch.Generator().manual_seed(3))
    kohya = f"lora_unet_{stem.removeprefix('unet.').replace('.', '_')}"
    tensors = {**_matrices(stem, 32, 32), f"{stem}.diff": diff}
    second = {key.replace(stem, kohya).replace("lora_A", "lora_down").replace("lora_B", "lora_up"):
              value for key, value in _matrices(stem, 32, 32, seed=1).items()}
    applied = apply_trained(*loaded, _saved(tmp_path, {**tensors, **second}), None, 1.0, 1.0)
    products = [up @ down for down, up in (list(tensors.values())[:2], second.values())]
    torch.testing.assert_close(_change(applied.model, QUERY), sum(products) + diff, rtol=1e-4,
                               atol=1e-4)


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("algorithm", ["lora", "loha", "lokr"])
def test_lengths_along_the_outputs_divide_by_those_of_the_changed_weight(algorithm, strength,
                                                                         loaded, tmp_path):
    model, clip = loaded
    layers = [layer for layer in kohya_files.network_layers("sd15", model)
              if layer.key == QUERY or ".proj_in." in layer.key]
    make = kohya_files.lora if algorithm == "lora" else kohya_files.ALGORITHMS[algorithm]
    layers = layers if algorithm != "lokr" else [one for one in layers if one.key == QUERY]
    tensors, changes = kohya_files.make(layers, make)
    weights = {layer.key: layer.weight for layer in layers}
    wanted = {}
    for layer in layers:
        turned = weights[layer.key] + changes[layer.key]
        own = weights[layer.key].flatten(1).norm(dim=1) * torch.linspace(0.8, 1.2, len(turned))
        sizes = (-1, *(1,) * (turned.ndim - 1))
        tensors[f"{layer.name}.dora_scale"] = own.reshape(sizes)
        factor = own / turned.flatten(1).norm(dim=1)
        wanted[layer.key] = strength * (turned * factor.reshape(sizes) - weights[layer.key])
    applied = apply_trained(model, clip, _saved(tmp_path, tensors), None, strength, 1.0)
    for key, change in wanted.items():
        torch.testing.assert_close(_change(applied.model, key), change, rtol=1e-3, atol=1e-5)


def test_bundled_words_are_found_by_prompts(loaded, temp, tmp_path):
    model, clip = loaded
    generator = torch.Generator().manual_seed(5)
    rows = 0.1 * torch.randn(2, 64, generator=generator)
    tensors = {**_matrices(f"unet.{BLOCK}.attn1.to_q", 32, 32),
               "bundle_emb.<ann>.emb_params": rows, "bundle_emb.<ann>.emb_params_out": rows,
               "bundle_emb.old.string_to_param.*": 2 * rows,
               "bundle_emb.wide.clip_g": torch.randn(2, 1280)}
    applied = apply_trained(model, clip, _saved(tmp_path, tensors), None, 1.0, 1.0)
    assert applied.report["words"] == {"<ann>": "embedding:ann", "old": "embedding:old"}
    assert applied.report["words_left_out"] == ["wide"]
    wide, outputs = applied.report["warnings"]
    assert "(wide)" in wide and "outputs of text encoders (<ann>)" in outputs
    assert applied.trigger in ("embedding:ann", "embedding:old")
    tokens = applied.clip.tokenize("photo of embedding:ann woman")["l"][0]
    read = torch.stack([token for token, _ in tokens if torch.is_tensor(token)])
    assert torch.equal(read, rows) and temp in next(temp.rglob("ann.safetensors")).parents


def test_a_bundled_word_yields_its_name_to_the_users_own(loaded, tmp_path):
    (tmp_path / "words").mkdir()
    save_file({"emb_params": torch.ones(1, 64)}, str(tmp_path / "words" / "ann.safetensors"))
    file = _saved(tmp_path, {"bundle_emb.ann.emb_params": torch.zeros(1, 64)})
    applied = apply_trained(*loaded, file, None, 1.0, 1.0)
    assert applied.trigger.startswith("embedding:ann-")
    tokens = applied.clip.tokenize(f"photo of {applied.trigger} woman")["l"][0]
    (read,) = [token for token, _ in tokens if torch.is_tensor(token)]
    assert not read.any()


@pytest.mark.parametrize("end", ["pt", "ckpt", "bin", "safetensors"])
def test_files_are_read_by_what_is_in_them(end, loaded, tmp_path):
    stem = f"unet.{BLOCK}.attn1.to_q"
    tensors = _matrices(stem, 32, 32)
    path = tmp_path / f"theirs.{end}"
    torch.save({"state_dict": tensors, "step": 3}, path)
    if end == "safetensors":
        with pytest.raises(LikenessError, match="rename it to theirs.pt"):
            apply_trained(*loaded, path, None, 1.0, 1.0)
        return
    applied = apply_trained(*loaded, path, None, 1.0, 1.0)
    assert set(applied.model.patches) == {QUERY}
    path = _saved(tmp_path, tensors, name=f"renamed.{end}")
    assert set(apply_trained(*loaded, path, None, 1.0, 1.0).model.patches) == {QUERY}


class _Call:
    def __reduce__(self):
        return print, ("executed",)


def test_a_file_that_would_execute_something_is_refused(loaded, tmp_path, capsys):
    torch.save({"weights": _Call()}, tmp_path / "bad.pt")
    with pytest.raises(LikenessError, match="cannot be read as plain weights"):
        apply_trained(*loaded, tmp_path / "bad.pt", None, 1.0, 1.0)
    assert "executed" not in capsys.readouterr().out
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(LikenessError, match="holds no weights by name"):
        apply_trained(*loaded, tmp_path / "list.pt", None, 1.0, 1.0)


def test_what_is_rounded_with_quantised_weights_is_told(tmp_path):
    model, clip = quantised_models.mixed_precision(), text_models.make_clip("flux", tmp_path)
    stem = "transformer.transformer_blocks.0.attn.to_q"
    tensors = {**_matrices(stem, 64, 64), f"{stem}.lora_magnitude_vector": torch.ones(64)}
    applied = apply_trained(model, clip, _saved(tmp_path, tensors), None, 1.0, 1.0)
    assert applied.report["layers"] == 1
    assert "added to 1 weights" in applied.report["warnings"][0]


def test_an_old_embedding_is_applied_as_a_word(loaded, tmp_path):
    rows = torch.randn(2, 64)
    torch.save({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": {"*": rows},
                "name": "ann"}, tmp_path / "ann.pt")
    applied = apply_trained(*loaded, None, tmp_path / "ann.pt", 1.0, 1.0)
    assert applied.trigger == "embedding:ann" and applied.report["vectors"] == 2
    tokens = applied.clip.tokenize("photo of embedding:ann woman")["l"][0]
    read = torch.stack([token for token, _ in tokens if torch.is_tensor(token)])
    assert torch.equal(read, rows)


def test_what_is_no_lora_is_called_what_it_is(loaded, tmp_path):
    torch.save({"string_to_param": {"*": torch.ones(2, 64)}, "name": "ann"}, tmp_path / "ann.pt")
    for path in (tmp_path / "ann.pt", _saved(tmp_path, {"emb_params": torch.ones(2, 64)})):
        with pytest.raises(LikenessError, match="is an embedding and no LoRA"):
            apply_trained(*loaded, path, None, 1.0, 1.0)
    whole = {"model.diffusion_model.input_blocks.0.0.weight": torch.ones(4, 4)}
    with pytest.raises(LikenessError, match="is a checkpoint and no LoRA"):
        apply_trained(*loaded, _saved(tmp_path, whole), None, 1.0, 1.0)
    with pytest.raises(LikenessError, match="holds no layers"):
        apply_trained(*loaded, _saved(tmp_path, {}), None, 1.0, 1.0)


def test_changed_settings_beside_a_file_are_read_again(monkeypatch, tmp_path):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras",
                        ([str(tmp_path)], {".safetensors"}))
    path = _saved(tmp_path, _matrices(f"base_model.model.{BLOCK}.attn1.to_q", 32, 32))
    given = {"lora": "none", "lora_path": str(path)}
    first = ApplyTrainedNode.fingerprint_inputs(**given)
    (tmp_path / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 4}')
    assert ApplyTrainedNode.fingerprint_inputs(**given) != first


def test_the_header_of_a_file_tells_how_strong_it_is(loaded, tmp_path):
    stem = f"unet.{BLOCK}.attn1.to_q"
    tensors = _matrices(stem, 32, 32, rank=4)
    said = {"lora_adapter_metadata": json.dumps({
        "unet.r": 4, "unet.lora_alpha": 8, "unet.use_rslora": True, "text_encoder.r": 2})}
    applied = apply_trained(*loaded, _saved(tmp_path, tensors, said), None, 1.0, 1.0)
    wanted = 4.0 * tensors[f"{stem}.lora_B.weight"] @ tensors[f"{stem}.lora_A.weight"]
    torch.testing.assert_close(_change(applied.model, QUERY), wanted, rtol=1e-4, atol=1e-4)
