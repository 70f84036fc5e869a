"""The two nodes as the host calls them, from file and photos to a patched MODEL and its report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.clip_vision
import folder_paths
import numpy as np
import pytest
import torch
from likeness.nodes.errors import LikenessError, MissingModelError
from likeness.nodes.faces.detect import find_face
from likeness.nodes.faces.recognise import backends
from likeness.nodes.identity.nodes import LikenessInjectFace, LikenessLoadFaceAdapter
from likeness.nodes.media.images import read_photo
from likeness.nodes.models import FACE_ADAPTERS
from likeness.nodes.sockets import HeadPose, Photo
from safetensors.torch import save_file

SETTINGS = {"weight": 0.8, "start": 0.0, "end": 1.0, "lora_strength": 0.6, "combine": "auto",
            "plus_strength": 1.0}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models/ipadapter, and no InsightFace packs anywhere."""
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FACE_ADAPTERS,
                        ([str(tmp_path)], {".safetensors", ".bin"}))
    monkeypatch.setattr(backends, "_roots", lambda registry: [tmp_path / registry])
    return tmp_path


def save(folder: Path, content: dict[str, dict], name: str = "face.safetensors",
         **metadata: str) -> str:
    save_file({f"{section}.{key}": value.contiguous() for section, part in content.items()
               for key, value in part.items()}, folder / name, metadata=metadata or None)
    return name


def load(name: str, **options: str) -> Any:
    return LikenessLoadFaceAdapter.execute(name, **options).result[0]


@pytest.fixture
def adapter(folder, sd15, tools) -> Any:
    """An adapter that reads the vendored recogniser's embeddings."""
    return load(save(folder, tools["adapter"](sd15, id_width=128)))


def apply(model: Any, adapter: Any, subject: Any, clip_vision: Any = None,
          **settings: Any) -> tuple[Any, dict]:
    output = LikenessInjectFace.execute(model, adapter, subject, **{**SETTINGS, **settings},
                                        clip_vision=clip_vision)
    return output.result[0], json.loads(output.result[1])


def embeddings(count: int) -> np.ndarray:
    return np.random.default_rng(4).normal(size=(count, 128)).astype(np.float32)


def test_the_report_tells_what_was_injected_from_whom_and_under_which_licence(
        sd15, tools, adapter):
    subject = tools["subject"](embeddings(3), "dlib", held_out=1)
    _, report = apply(sd15, adapter, subject)
    assert report["references"] == ["photo0.jpg", "photo1.jpg"]
    assert (report["layers_patched"], report["lora_weights_patched"]) == (16, 128)
    assert (report["settings"]["combine"], report["face_tokens"]) == ("mean", 4)
    assert report["adapter"]["kind"] == "FaceID"
    assert report["adapter"]["recogniser"]["id"] == "dlib"
    assert report["adapter"]["recogniser"]["licence"] and report["adapter"]["licence"]


def test_the_load_node_shows_what_the_file_is(folder, sdxl, tools):
    name = save(folder, tools["adapter"](sdxl, id_width=128, lora=False, tokens=16))
    output = LikenessLoadFaceAdapter.execute(name)
    shown = json.loads(output.ui.as_dict()["text"][0])
    assert (shown["kind"], shown["family"], shown["layers"]) == ("FaceID Portrait", "SDXL", 70)


def test_weight_zero_changes_no_bit_even_with_a_lora(sd15, tools, adapter):
    patched, report = apply(sd15, adapter, tools["subject"](embeddings(2), "dlib"), weight=0.0)
    assert torch.equal(tools["denoise"](patched), tools["denoise"](sd15))
    assert report["active"] is False and report["layers_patched"] == 0


def test_held_out_photos_have_no_influence(sd15, tools, adapter):
    rows = embeddings(3)
    other = np.concatenate([rows[:2], 9 * rows[2:]])
    pictures = [tools["denoise"](apply(sd15, adapter, tools["subject"](which, "dlib",
                                                                       held_out=1))[0])
                for which in (rows, other)]
    assert torch.equal(*pictures)


def test_another_persons_embedding_gives_another_picture(sd15, tools, adapter):
    rows = embeddings(2)
    pictures = [tools["denoise"](apply(sd15, adapter, tools["subject"](row[None], "dlib"))[0])
                for row in rows]
    assert not torch.allclose(*pictures)


def test_a_portrait_adapter_keeps_every_references_tokens(folder, sd15, tools):
    content = tools["adapter"](sd15, id_width=128, lora=False, tokens=16)
    adapter = load(save(folder, content))
    _, report = apply(sd15, adapter, tools["subject"](embeddings(3), "dlib"))
    assert (report["settings"]["combine"], report["face_tokens"]) == ("concat", 48)
    assert report["lora_weights_patched"] == 0


def test_an_absent_recogniser_is_named_when_the_file_is_loaded(folder, sd15, tools):
    name = save(folder, tools["adapter"](sd15, id_width=512))
    with pytest.raises(MissingModelError, match="buffalo_l.*w600k_r50.onnx.*non-commercial"):
        load(name)


def test_the_note_in_the_file_names_the_recogniser(folder, sd15, tools):
    name = save(folder, tools["adapter"](sd15, id_width=512), recogniser="antelopev2")
    with pytest.raises(MissingModelError, match="antelopev2.*glintr100.onnx"):
        load(name)


def test_a_file_that_is_not_listed_is_refused(folder):
    with pytest.raises(MissingModelError, match="is not in models/ipadapter"):
        load("../secret.safetensors")


@pytest.mark.parametrize("options,words", [
    ({"recogniser": "facenet"}, "facenet"), ({"embedding": "half"}, "`embedding` must be"),
    ({"plus_version": "v3"}, "`plus_version` must be")])
def test_combo_values_are_checked_where_the_host_does_not(folder, sd15, tools, options, words):
    name = save(folder, tools["adapter"](sd15, id_width=128))
    with pytest.raises(LikenessError, match=words):
        load(name, **options)


@pytest.mark.parametrize("settings,words", [
    ({"combine": "median"}, "`combine` must be one of"),
    ({"weighting": "age"}, "`weighting` must be one of"),
    ({"start": 0.6, "end": 0.5}, "`start`"),
    ({"weight": -1.0}, "`weight` must not be negative")])
def test_settings_out_of_range_are_refused(sd15, tools, adapter, settings, words):
    with pytest.raises(LikenessError, match=words):
        apply(sd15, adapter, tools["subject"](embeddings(1), "dlib"), **settings)


def test_a_subject_without_references_is_refused(sd15, tools, adapter):
    subject = tools["subject"](embeddings(2), "dlib", held_out=2)
    with pytest.raises(LikenessError, match="Ada has no reference photos"):
        apply(sd15, adapter, subject)


def test_a_plus_file_without_clip_vision_says_what_to_connect(folder, sd15, tools):
    content = tools["adapter"](sd15, id_width=128, plus=True)
    adapter = load(save(folder, content, "faceid-plusv2.safetensors"))
    with pytest.raises(LikenessError, match="connect the CLIP_VISION model"):
        apply(sd15, adapter, tools["subject"](embeddings(1), "dlib"))


def test_the_fingerprint_follows_the_file(folder, sd15, tools):
    name = save(folder, tools["adapter"](sd15, id_width=128))
    first = LikenessLoadFaceAdapter.fingerprint_inputs(adapter=name)
    assert LikenessLoadFaceAdapter.fingerprint_inputs(adapter=name) == first
    save(folder, tools["adapter"](sd15, id_width=128, tokens=8))
    assert LikenessLoadFaceAdapter.fingerprint_inputs(adapter=name) != first


@pytest.fixture(scope="module")
def clip_vision(tmp_path_factory: pytest.TempPathFactory) -> comfy.clip_vision.ClipVisionModel:
    """A CLIP vision encoder of ComfyUI's own with small random weights."""
    config = tmp_path_factory.mktemp("clip") / "config.json"
    config.write_text(json.dumps({
        "hidden_size": 96, "num_attention_heads": 4, "num_hidden_layers": 3, "image_size": 224,
        "intermediate_size": 128, "patch_size": 32, "num_channels": 3, "projection_dim": 64,
        "hidden_act": "gelu", "layer_norm_eps": 1e-5, "model_type": "clip_vision_model"}))
    encoder = comfy.clip_vision.ClipVisionModel(str(config))
    with torch.no_grad():
        for parameter in encoder.model.parameters():
            parameter.normal_(0, 0.1)
    return encoder


@pytest.fixture(scope="module")
def photos(assets: Path) -> tuple[Photo, ...]:
    """Two committed photos with their real faces."""
    found = []
    for name in ("obama.jpg", "obama3.jpg"):
        pixels = read_photo(assets / name)
        found.append(Photo(file=assets / name, name=name, face=find_face(pixels)))
    return tuple(found)


def test_plus_reads_embeddings_and_pictures_from_the_photo_files(
        folder, sd15, tools, clip_vision, photos):
    content = tools["adapter"](sd15, id_width=128, plus=True, clip_width=96)
    adapter = load(save(folder, content, "faceid-plusv2.safetensors"))
    gone = Photo(file=folder / "gone.jpg", name="gone.jpg")
    subject = replace(tools["subject"](embeddings(1), "dlib"), embeddings={}, references=photos,
                      held_out=(gone,))  # a held-out file that is gone proves it is not read
    with torch.inference_mode():
        patched, report = apply(sd15, adapter, subject, clip_vision)
        fewer, _ = apply(sd15, adapter, replace(subject, references=photos[:1]), clip_vision)
        pictures = [tools["denoise"](model) for model in (sd15, patched, fewer)]
    assert report["adapter"]["plus_version"] == 2
    assert report["references"] == ["obama.jpg", "obama3.jpg"]
    assert not torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[1], pictures[2])


def test_quality_weights_change_the_average_of_unlike_photos(sd15, tools, adapter, photos):
    turned = replace(photos[1], face=replace(photos[1].face, pose=HeadPose(60.0, 0.0, 0.0)))
    subject = replace(tools["subject"](embeddings(2), "dlib"), references=(photos[0], turned))
    equal, quality = (tools["denoise"](apply(sd15, adapter, subject, weighting=how)[0])
                      for how in ("equal", "quality"))
    assert not torch.equal(equal, quality)


def test_plus_with_another_encoder_names_both_widths(folder, sd15, tools, clip_vision, photos):
    content = tools["adapter"](sd15, id_width=128, plus=True, clip_width=1280)
    adapter = load(save(folder, content, "faceid-plusv2.safetensors"))
    subject = replace(tools["subject"](embeddings(2), "dlib"), references=photos)
    with pytest.raises(LikenessError, match="width 1280, the connected CLIP_VISION gives 96"):
        apply(sd15, adapter, subject, clip_vision)
