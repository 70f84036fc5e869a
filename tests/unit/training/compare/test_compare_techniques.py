"""Techniques beside each other: what a row measures on real photos, and the table of several."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import picture_models
import pytest
import torch
import training_models
from likeness.nodes import runtime
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces.detect import find_face
from likeness.nodes.media.images import read_photo
from likeness.nodes.sockets import Photo, Subject
from likeness.nodes.training.compare import table
from likeness.nodes.training.compare.measure import Technique, cost_of, measure, technique
from likeness.nodes.training.compare.nodes import LikenessCompareTechniques
from likeness.nodes.training.pictures.sampling import Sampling
from likeness.nodes.training.watch.monitor import Monitor, judge_for, judged

GOLD = (224, 165, 38)
REPORT = json.dumps({"method": "lora", "steps": 40, "bytes": {"lora": 1_000_000, "embedding": 500},
                     "training_seconds": 12.5, "peak_bytes": None, "files": {}})


@pytest.fixture(scope="module")
def shown(assets):
    return {name: read_photo(assets / f"{name}.jpg")
            for name in ("obama", "obama3", "biden", "astronaut")}


def _photo(file: Path) -> Photo:
    pixels = read_photo(file)
    return Photo(file, file.name, "0" * 64, pixels.shape[1], pixels.shape[0],
                 face=find_face(pixels))


@pytest.fixture(scope="module")
def subject(assets):
    first, second = (_photo(assets / f"{name}.jpg") for name in ("obama", "obama3"))
    return Subject("Someone", "ohwx", "man", (first,), (second,), {}, {}, np.zeros((478, 3)))


def _row(subject, own, others, label="", report=REPORT):
    judge = judge_for(subject)
    seen, rest = (judged(pictures, ["x"] * len(pictures), range(len(pictures)), 0, judge)
                  for pictures in (own, others))
    return technique(label, seen, rest, judge, cost_of(report))


def test_the_person_is_told_from_others_of_the_class(shown, subject):
    row = _row(subject, [shown["obama"], shown["obama3"]], [shown["biden"], shown["astronaut"]])
    assert row.likeness > row.class_likeness + 0.4
    assert set(row.judges) == {"dlib", "mobilefacenet"}
    assert (row.label, row.faces, row.pictures) == ("lora", 2, 2)


def test_a_class_word_that_shows_the_person_is_seen(shown, subject):
    kept = _row(subject, [shown["obama"]], [shown["biden"]])
    drifted = _row(subject, [shown["obama"]], [shown["obama3"]])
    assert drifted.class_likeness > kept.class_likeness + 0.4


def test_pictures_as_different_as_real_photos_have_diversity_one(shown, subject):
    assert _row(subject, [shown["obama"], shown["obama3"]],
                [shown["biden"]]).diversity == pytest.approx(1.0, abs=1e-3)
    assert _row(subject, [shown["obama"]] * 3,
                [shown["biden"]]).diversity == pytest.approx(0.0, abs=1e-3)


def test_pictures_without_a_face_are_counted_and_have_no_number(subject):
    row = _row(subject, [np.zeros((96, 96, 3), np.uint8)] * 2, [np.zeros((96, 96, 3), np.uint8)])
    assert (row.faces, row.pictures) == (0, 2)
    assert row.likeness is row.diversity is row.class_likeness is row.copy is None


def test_the_cost_is_that_of_the_report(shown, subject):
    row = _row(subject, [shown["obama"]], [shown["biden"]], label=" mine ")
    assert (row.label, row.method, row.bytes, row.seconds, row.steps, row.peak_bytes) == (
        "mine", "lora", 1_000_500, 12.5, 40, None)
    untrained = _row(subject, [shown["obama"]], [shown["biden"]], report="")
    assert (untrained.label, untrained.bytes, untrained.seconds) == ("untrained", None, None)


@pytest.mark.parametrize("wrong", ["x", "[]", "{}", '{"method": "lora", "bytes": 3}'])
def test_another_text_is_no_report_of_train(wrong):
    with pytest.raises(LikenessError, match="`report` is not a report of Train; connect"):
        cost_of(wrong)


def test_person_and_class_word_are_drawn_from_the_same_seeds(subject):
    told = []
    with torch.inference_mode():
        model, clip, vae = (training_models.make_model("sd15"), picture_models.make_clip(),
                            picture_models.make_vae())
        monitor = Monitor(pictures=2, sampling=Sampling(steps=1, cfg=1.0), seed=3)
        row = measure("", model, clip, vae, subject, monitor, (64, 48),
                      on_picture=lambda done, pixels: told.append((done, pixels)))
    assert [done for done, _ in told] == [1, 2, 3, 4]
    assert [pixels.shape for pixels in row.shown] == [(48, 64, 3)] * 2
    assert not np.array_equal(told[0][1], told[2][1])  # another prompt
    assert np.abs(told[0][1].astype(int) - told[2][1]).mean() < np.abs(
        told[0][1].astype(int) - told[1][1]).mean()  # the same noise


def _made(label, likeness, seconds, method="lora", peak=None):
    return Technique(label, method, likeness, {"dlib": likeness}, 0.1, 0.9, 0.2, 2, 2, 14_000,
                     seconds, peak, 40, (np.full((64, 48, 3), 128, np.uint8),) * 2)


ROWS = (_made("untrained", 0.9, None, method=""), _made("LoRA", 0.5, 60.0), _made("a|b", 0.6, 900))


def test_the_table_has_a_line_for_each_technique_and_no_empty_column():
    lines = table.markdown(ROWS).splitlines()
    assert len(lines) == 2 + len(ROWS) and len({line.count("|") for line in lines}) == 1
    assert "peak memory" not in lines[0] and "dlib" in lines[0]
    assert lines[3].startswith("| LoRA | 0.50 | 0.50 |") and "14 KB | 60 s |" in lines[3]
    assert lines[4].startswith("| a/b |") and "15 min" in lines[4]
    with_peak = table.markdown([_made("LoRA", 0.5, 60.0, peak=3_200_000_000)])
    assert "3.20 GB" in with_peak


def test_the_best_of_those_that_were_trained_are_marked():
    picture = table.draw(ROWS)
    height = table._TILE + table._GAP
    marked = [int((np.abs(picture[table._HEAD + row * height:][:table._TILE].astype(int) - GOLD)
                   .max(-1) < 30).sum()) for row in range(3)]
    assert marked[0] == 0 and marked[1] > 0 and marked[2] > 0  # time of one, likeness of the other
    place = table._NAME + table._CELL * 2  # copy-paste, diversity, class word
    risks = picture[:, place:place + 3 * table._CELL].astype(int)
    assert not (np.abs(risks - GOLD).max(-1) < 30).any()
    # Likeness, the first column, is best in the last row: the model before training does not count.
    likeness = picture[:, table._NAME:table._NAME + table._CELL].astype(int)
    gold = [(np.abs(likeness[table._HEAD + row * height:][:table._TILE] - GOLD).max(-1) < 30).any()
            for row in range(3)]
    assert gold == [False, False, True]
    assert (picture[table._HEAD + height // 2, -table._TILE // 2] == 128).all()


def test_nothing_to_show_is_an_error():
    with pytest.raises(ValueError, match="no technique"):
        table.draw(())


def test_the_node_saves_the_table_with_every_figure(subject, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "output_directory", lambda: tmp_path)
    for number in (1, 2):
        _, written, text = LikenessCompareTechniques.execute(ROWS, subject).result
        told = json.loads(text)
        assert Path(told["sheet"]).name == f"techniques_{number:05}.png"
        assert json.loads(Path(told["report"]).read_text()) == told
    assert [row["label"] for row in told["techniques"]] == ["untrained", "LoRA", "a|b"]
    assert written == table.markdown(ROWS) and Path(told["sheet"]).is_file()
