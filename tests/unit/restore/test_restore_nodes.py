"""The restore nodes as a graph runs them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import folder_paths
import pytest
import torch
from likeness.nodes import runtime
from likeness.nodes.errors import LikenessError, MissingModelError
from likeness.nodes.restore.nodes import LikenessLoadRestorer, LikenessRestoreFaces
from likeness.nodes.restore.registry import ARCHITECTURES, NONE, Restorer

GFPGAN = ARCHITECTURES[0]


@pytest.fixture(autouse=True)
def preview_folder(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path_factory.mktemp("previews")))


@pytest.fixture
def restorer_folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "facerestore_models",
                        ([str(tmp_path)], folder_paths.supported_pt_extensions | {".onnx"}))
    folder_paths.filename_list_cache.pop("facerestore_models", None)
    yield tmp_path
    folder_paths.filename_list_cache.pop("facerestore_models", None)


def restore(images, restorer, **changes) -> tuple[torch.Tensor, dict, dict]:
    inputs = {"strength": 0.8, "guard": True, "allowed_loss": 0.0, "faces": "all",
              "no_face": "keep the picture", "fidelity": 0.7, "judge": "dlib", **changes}
    with torch.inference_mode():
        output = LikenessRestoreFaces.execute(images, restorer, **inputs)
    return output.args[0], json.loads(output.args[1]), output.ui


def wrapped(module: torch.nn.Module) -> Restorer:
    return Restorer("small.pth", GFPGAN, runtime.wrap_module(module))


def test_with_no_restorer_the_very_same_pictures_come_out(portrait):
    restorer = LikenessLoadRestorer.execute("none").args[0]
    images, report, _ = restore(portrait, restorer)
    assert images is portrait
    assert report["status"] == "bypassed"


def test_the_report_and_a_preview_are_in_the_history(portrait, sharpen, obama):
    images, report, shown = restore(portrait, wrapped(sharpen), subject=obama, allowed_loss=0.02)
    assert report["restorer"] == {"file": "small.pth", "architecture": "GFPGAN",
                                  "licence": GFPGAN.licence}
    assert report["faces_restored"] == 1
    assert report["mean_likeness_before"] == report["images"][0]["faces"][0]["likeness_before"]
    assert len(shown["images"]) == 1
    assert json.loads(shown["text"][0]) == report
    assert report["text"] == "1 of 1 faces were restored."


def test_a_harmful_restorer_gives_the_same_pictures_and_says_so(portrait, somebody_else, obama):
    images, report, _ = restore(portrait, wrapped(somebody_else), subject=obama)
    assert torch.equal(images, portrait)
    assert (report["status"], report["faces_left"]) == ("unchanged", 1)


def test_the_face_of_the_subject_needs_a_subject(portrait, sharpen):
    with pytest.raises(LikenessError, match="no subject"):
        restore(portrait, wrapped(sharpen), faces="most like the subject")


def test_a_recogniser_that_is_not_there_is_named_before_any_work(portrait, sharpen):
    with pytest.raises(MissingModelError, match="buffalo_l"):
        restore(portrait, wrapped(sharpen), judge="buffalo_l")


def test_a_combo_value_that_nobody_offered_is_an_error(portrait):
    with pytest.raises(LikenessError, match="faces"):
        restore(portrait, NONE, faces="the tall one")


def test_the_loader_offers_weights_but_no_onnx_files(restorer_folder):
    (restorer_folder / "GFPGANv1.4.pth").touch()
    (restorer_folder / "gpen.onnx").touch()
    combo = LikenessLoadRestorer.define_schema().inputs[0]
    assert combo.options == ["none", "GFPGANv1.4.pth"]


@pytest.mark.parametrize("name", ["absent.pth", "../secret.pth"])
def test_a_file_that_is_not_in_the_folder_is_an_error(restorer_folder, name):
    with pytest.raises(MissingModelError, match="facerestore_models"):
        LikenessLoadRestorer.execute(name)


def test_a_replaced_file_is_loaded_again(restorer_folder):
    file = restorer_folder / "a.pth"
    file.write_bytes(b"1")
    before = LikenessLoadRestorer.fingerprint_inputs("a.pth")
    file.write_bytes(b"22")
    assert LikenessLoadRestorer.fingerprint_inputs("a.pth") != before


def test_a_damaged_file_is_an_error_that_names_it(restorer_folder):
    (restorer_folder / "half.pth").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(LikenessError, match="half.pth"):
        LikenessLoadRestorer.execute("half.pth")


def test_a_restorer_file_runs_through_the_nodes(restorer_folder, small_restoreformer, portrait):
    torch.save({"params_ema": small_restoreformer}, restorer_folder / "small.pth")
    restorer = LikenessLoadRestorer.execute("small.pth").args[0]
    images, report, _ = restore(portrait, restorer, guard=False, strength=1.0)
    assert report["restorer"]["architecture"] == "RestoreFormer"
    assert report["images"][0]["faces"][0]["mean_change"] > 0.05
    assert images.shape == portrait.shape


def test_a_whole_gfpgan_file_loads_and_runs_and_is_refused_when_random(
        restorer_folder, portrait, obama):
    from spandrel.architectures.GFPGAN import GFPGAN as Network

    torch.manual_seed(0)
    network = Network(out_size=512, num_style_feat=512, channel_multiplier=2,
                      decoder_load_path=None, fix_decoder=False, num_mlp=8, input_is_latent=True,
                      different_w=True, narrow=1, sft_half=True)
    file = restorer_folder / "GFPGANv1.4.pth"
    torch.save({"params_ema": network.state_dict()}, file)
    del network
    try:
        restorer = LikenessLoadRestorer.execute(file.name).args[0]
    finally:
        os.remove(file)  # 349 MB
    assert restorer.architecture.id == "GFPGAN"
    images, report, _ = restore(portrait, restorer, subject=obama)
    assert report["images"][0]["faces"][0]["tried"], "the network was not run"
    assert torch.equal(images, portrait)
