"""Banks of other people's faces."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import folder_paths
import numpy as np
import pytest
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces.recognise import backends
from likeness.nodes.scoring.bank import bank as banks
from likeness.nodes.scoring.bank import nodes as bank_nodes
from likeness.nodes.scoring.bank.bank import make_bank, read_bank, shipped, write_bank
from likeness.nodes.scoring.bank.nodes import LikenessImpostorBank
from likeness.nodes.scoring.score.score import yardstick
from PIL import Image
from safetensors import safe_open

SHIPPED = banks.BANKS / "dlib.safetensors"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch) -> Path:
    """Input, output and model folders of a host; the input holds three people and a wall."""
    for name in ("input", "output", "models"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    return tmp_path


@pytest.fixture
def strangers(folders: Path, assets: Path) -> Path:
    place = folders / "input" / "strangers"
    place.mkdir()
    for name in ("biden", "astronaut", "obama3"):
        shutil.copy(assets / f"{name}.jpg", place)
    shutil.copy(assets / "biden.jpg", place / "biden_again.jpg")
    Image.new("RGB", (200, 200), "grey").save(place / "wall.png")
    (place / "broken.jpg").write_bytes(b"no photo")
    return place


def make(folder: str, backend: str = "dlib"):
    bank, text = LikenessImpostorBank.execute(folder, backend).args
    return bank, json.loads(text)


def test_the_shipped_bank_holds_535_people_by_the_shipped_recogniser():
    bank = shipped("dlib")
    assert bank.embeddings.shape == (535, 128)
    assert bank.weights == backends.backend("dlib").sha256["face_embedder.safetensors"]
    assert "public domain" in bank.rights


@pytest.mark.parametrize("name", ["dlib", "mobilefacenet"])
def test_the_shipped_bank_holds_embeddings_and_nothing_that_names_anybody(name):
    with safe_open(banks.BANKS / f"{name}.safetensors", framework="np") as file:
        assert set(file.keys()) == {"embeddings", "group.women", "group.men"}
        told = json.loads(file.metadata()["impostors"])
    assert set(told) == {"format", "backend", "count", "weights", "source", "rights"}
    assert told["count"] == 535


def test_the_order_of_a_bank_comes_from_the_embeddings_alone():
    rows = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    turned = rows[::-1].copy()
    assert np.array_equal(rows[banks.shuffled(rows)], turned[banks.shuffled(turned)])
    assert banks.shuffled(rows) != list(range(20))


def test_half_precision_moves_no_similarity_by_more_than_stated(tmp_path):
    rows = shipped("dlib").embeddings[:40] * np.float32(1.0001)
    write_bank(tmp_path / "bank.safetensors",
               dataclasses.replace(shipped("dlib"), embeddings=rows, groups={}))
    stored = read_bank(tmp_path / "bank.safetensors")
    made = dataclasses.replace(stored, embeddings=rows)
    assert np.abs(stored.to(rows[0]) - made.to(rows[0])).max() < 4e-4


def test_people_of_the_bank_are_not_the_people_of_the_samples(pictures, obama):
    """The sample photos' people sat in no Congress of 2021: nobody in the bank is nearly them."""
    assert shipped("dlib").to(obama.embeddings["dlib"][0]).max() < 0.45


def test_photos_become_a_bank_and_those_left_out_are_named(strangers):
    bank, report = make("strangers")
    assert report["people"] == len(bank.embeddings) == 3
    reasons = {entry["name"]: entry["reason"] for entry in report["skipped"]}
    assert set(reasons) == {"biden_again.jpg", "wall.png", "broken.jpg"}
    assert "same photo" in reasons["biden_again.jpg"]
    assert "No face" in reasons["wall.png"]
    assert report["enough"] is False


def test_a_bank_is_made_once_for_the_same_photos(strangers, monkeypatch):
    first, report = make("strangers")

    def again(*args, **kwargs):
        raise AssertionError("made again")

    monkeypatch.setattr(bank_nodes, "make_bank", again)
    (strangers / "wall.png").rename(strangers / "renamed.png")
    second, _ = make("strangers")
    assert np.abs(first.embeddings - second.embeddings).max() < 1e-3
    assert Path(report["file"]).is_file()


def test_other_photos_make_another_bank(strangers):
    first = make("strangers")[1]["file"]
    (strangers / "obama3.jpg").unlink()
    assert make("strangers")[1]["file"] != first


def test_a_folder_below_the_models_folder_is_found(strangers, folders):
    shutil.move(strangers, folders / "models" / "likeness_faces" / "known")
    assert make("known")[1]["people"] == 3


def test_no_folder_gives_the_bank_that_comes_with_the_pack(folders):
    bank, report = make("")
    assert bank is shipped("dlib")
    assert (report["file"], report["enough"]) == (None, True)


@pytest.mark.parametrize("folder, backend, text", [
    ("", "buffalo_l", "No bank for buffalo_l"), ("nowhere", "dlib", "is not in"),
    ("../output", "dlib", "outside"), ("", "nobody", "not a face recogniser")])
def test_what_cannot_be_a_bank_is_refused(folders, folder, backend, text):
    with pytest.raises(LikenessError, match=text):
        make(folder, backend)


def test_a_folder_without_photos_is_refused(folders):
    (folders / "input" / "empty").mkdir()
    with pytest.raises(LikenessError, match="holds no photo"):
        make("empty")


def test_one_face_makes_no_bank(assets):
    with pytest.raises(LikenessError, match="1 of 1 photos"):
        make_bank([assets / "biden.jpg"], "dlib", "", "")


def test_a_damaged_bank_says_what_to_delete(tmp_path):
    path = tmp_path / "bank.safetensors"
    path.write_bytes(SHIPPED.read_bytes()[:5000])
    with pytest.raises(LikenessError, match="damaged.*delete it"):
        read_bank(path)


def test_a_bank_of_another_recogniser_is_refused(obama):
    other = dataclasses.replace(shipped("dlib"), backend="buffalo_l")
    with pytest.raises(LikenessError, match="bank holds faces for buffalo_l"):
        yardstick(obama, "dlib", other)


def test_cancelling_leaves_no_bank(strangers, folders, monkeypatch):
    def cancel(total):
        def stop(done):
            raise RuntimeError("cancelled")
        return stop

    monkeypatch.setattr(bank_nodes.runtime, "progress_callback", cancel)
    with pytest.raises(RuntimeError, match="cancelled"):
        make("strangers")
    assert not list((folders / "output").rglob("*.*"))


def test_a_bank_of_other_weights_is_refused(obama):
    other = dataclasses.replace(shipped("dlib"), weights="0" * 64)
    with pytest.raises(LikenessError, match="other weights of dlib"):
        yardstick(obama, "dlib", other)


def test_a_bank_of_another_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(banks, "FORMAT", 2)
    write_bank(tmp_path / "later.safetensors", shipped("dlib"))
    monkeypatch.undo()
    with pytest.raises(LikenessError, match="format 2, this pack reads 1"):
        read_bank(tmp_path / "later.safetensors")


def test_groups_follow_their_people_through_skipped_photos_and_the_order(strangers):
    files = sorted(strangers.iterdir())
    women = [file.stem == "astronaut" for file in files]
    bank, skipped = make_bank(files, "dlib", "", "", groups={"women": women})
    assert len(skipped) == 3 and bank.groups["women"].sum() == 1
    astronaut, _ = make_bank([strangers / "astronaut.jpg", strangers / "biden.jpg"], "dlib", "", "")
    mine = bank.embeddings[bank.groups["women"]][0]
    assert np.abs(astronaut.embeddings - mine).max(1).min() < 1e-6
    assert np.abs(bank.embeddings[~bank.groups["women"]] - mine).max(1).min() > 0.05


def test_groups_are_stored_and_those_of_other_people_refused(tmp_path):
    bank = dataclasses.replace(shipped("dlib"), groups={"tall": np.arange(535) % 2 == 0})
    write_bank(tmp_path / "bank.safetensors", bank)
    assert read_bank(tmp_path / "bank.safetensors").groups["tall"].tolist() == (
        bank.groups["tall"].tolist())
    write_bank(tmp_path / "bank.safetensors",
               dataclasses.replace(bank, groups={"tall": np.ones(3, bool)}))
    with pytest.raises(LikenessError, match="damaged"):
        read_bank(tmp_path / "bank.safetensors")


def test_a_bank_of_both_judges_is_the_banks_of_each(strangers):
    bank, _ = make("strangers", "both")
    assert bank.embeddings.shape == (3, 320)
    for part in ("dlib", "mobilefacenet"):
        alone, _ = make("strangers", part)
        own = bank.part(part)
        assert own.weights == alone.weights == banks.weights_key(part)
        found = {row.tobytes() for row in np.round(own.embeddings, 3)}
        assert len(found) == 3
        assert np.abs(own.embeddings[:, None] - alone.embeddings[None]).max(2).min(1).max() < 1e-3
