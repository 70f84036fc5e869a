"""The score node with its optional inputs: bank, second judge, both towers of CLIP."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import folder_paths
import numpy as np
import pytest
import torch
from likeness.nodes.errors import LikenessError, MissingModelError
from likeness.nodes.faces.recognise import backends, insight
from likeness.nodes.media.images import to_image
from likeness.nodes.scoring.bank.bank import shipped
from likeness.nodes.scoring.score import score as score_module
from likeness.nodes.scoring.score.nodes import LikenessScore

NAMES = ("nobody", "biden2", "obama3", "obama")


@pytest.fixture
def batch(pictures, tmp_path: Path, monkeypatch) -> torch.Tensor:
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    return to_image(np.stack([pictures[name] for name in NAMES]))


@pytest.fixture
def second(monkeypatch) -> str:
    """A second recogniser that can run: dlib's network behind the files of an InsightFace pack."""
    from likeness.nodes.faces.recognise import dlib_resnet

    def look(pixels, face, id):
        chip = dlib_resnet.chip(pixels, face.landmarks)
        return np.tile(dlib_resnet.embed_chip(chip[:, ::-1].copy()), 4)

    monkeypatch.setattr(backends, "find", lambda id: (Path("detector"), Path("recogniser")))
    monkeypatch.setattr(insight, "embed", look)
    return "auraface"


def score(images, subject, **changes):
    inputs = {"backend": "dlib", "several_faces": "largest", "max_yaw": 35.0, "save_prefix": "",
              **changes}
    with torch.inference_mode():
        output = LikenessScore.execute(images, subject, **inputs)
    return json.loads(output.args[3]), output.args[4]


def by_index(data):
    return {entry["index"]: entry for entry in data["images"]}


def test_every_limit_comes_with_both_error_rates(batch, obama):
    limits = score(batch, obama)[0]["thresholds"]
    for name in ("keep", "reject"):
        accepts, rejects = limits[name]["false_accepts"], limits[name]["false_rejects"]
        assert (accepts["of"], accepts["among"], rejects["of"]) == (394, "men", 4)
        assert 0 <= accepts["rate"] <= accepts["at_most"] <= 1
    assert limits["keep"]["false_accepts"]["rate"] <= 0.001
    assert limits["reject"]["false_accepts"]["rate"] > limits["keep"]["false_accepts"]["rate"]
    assert limits["reject"]["false_rejects"]["rate"] < limits["keep"]["false_rejects"]["rate"]


def test_likeness_never_stands_alone(batch, obama):
    data, _ = score(batch, obama)
    assert set(data["axes"]) == {"copy_paste", "diversity", "prompt", "face_quality"}
    assert data["axes"]["copy_paste"]["copies"] == 1
    assert 1 < data["axes"]["diversity"]["effective_pictures"] <= 4
    found = by_index(data)
    assert found[3]["copy_paste"]["same_picture"] and not found[2]["copy_paste"]["copied"]
    assert found[2]["face_quality"]["sharpness"] > 0
    assert found[0]["copy_paste"] is None and found[0]["false_accepts"] is None


def test_each_score_says_where_it_lies_among_strangers_and_single_photos(batch, obama):
    found = by_index(score(batch, obama)[0])
    assert found[3]["above_strangers"] == 100
    assert found[1]["above_strangers"] < 99
    assert found[1]["false_accepts"]["rate"] > found[3]["false_accepts"]["rate"]
    assert found[2]["score_mean"] < found[2]["score_best"]


def test_the_bank_is_named_with_whom_it_holds_for(batch, obama):
    bank = score(batch, obama)[0]["bank"]
    assert bank["people"] == 535
    assert "Congress" in bank["source"]
    assert bank["most_alike"] < 0.5
    assert bank["holds_for"]


def test_a_judge_without_a_bank_says_how_to_make_one(batch, obama, second):
    data = score(batch, obama, backend=second)[0]
    assert data["bank"]["people"] == 0
    assert "Likeness Impostor Bank" in data["bank"]["note"]
    assert data["thresholds"]["keep"]["false_accepts"] is None


def test_two_judges_stand_side_by_side(batch, obama, second):
    data, report = score(batch, obama, second_backend=second)
    assert data["second_judge"]["backend"]["id"] == second
    assert data["second_judge"]["differing_images"] == [
        entry["index"] for entry in data["images"] if entry["second_judge"]["differs"]]
    assert data["second_judge"]["verdicts_differ"] >= 1  # it states no cut, so rejects nobody
    assert by_index(data)[0]["second_judge"]["score"] is None
    assert report.second.measure.backend == second


def test_the_bank_goes_to_the_judge_it_was_made_for(batch, obama, second, monkeypatch):
    monkeypatch.setattr(score_module, "weights_key", lambda id: shipped("dlib").weights)
    own = dataclasses.replace(
        shipped("dlib"), backend=second, embeddings=np.tile(shipped("dlib").embeddings, 4))
    data = score(batch, obama, second_backend=second, bank=own)[0]
    assert data["second_judge"]["bank"]["people"] == data["bank"]["people"] == 535


def test_a_bank_of_neither_judge_is_refused(batch, obama):
    other = dataclasses.replace(shipped("dlib"), backend="buffalo_s")
    with pytest.raises(LikenessError, match="bank was made with buffalo_s"):
        score(batch, obama, bank=other)


def test_the_same_judge_twice_is_refused(batch, obama):
    with pytest.raises(LikenessError, match="Both judges are dlib"):
        score(batch, obama, second_backend="dlib")


def test_a_second_judge_that_is_not_there_is_named(batch, obama):
    with pytest.raises(MissingModelError, match="AuraFace"):
        score(batch, obama, second_backend="auraface")


@pytest.mark.parametrize("given, missing", [("clip", "clip_vision"), ("clip_vision", "clip")])
def test_half_a_clip_is_refused(batch, obama, given, missing):
    with pytest.raises(LikenessError, match=f"`{missing}` is not connected"):
        score(batch, obama, **{given: object()}, prompt="photo of ohwx man")


def test_without_clip_the_report_says_that_the_prompt_was_not_judged(batch, obama):
    data, _ = score(batch, obama, prompt="photo of ohwx man")
    assert data["axes"]["prompt"] is None
    assert {entry["prompt"] for entry in data["images"]} == {None}
