"""Looks at a run: the judge on real photos, fixed seeds, files, and the node."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import picture_models
import pytest
import torch
import training_models
from likeness.nodes.errors import LikenessError, MissingModelError
from likeness.nodes.faces.detect import find_face
from likeness.nodes.faces.recognise.backends import BOTH
from likeness.nodes.faces.recognise.embed import embed_photo, similarity
from likeness.nodes.media.images import read_photo
from likeness.nodes.scoring.score.copying import copying, originals
from likeness.nodes.scoring.score.score import score_pictures, yardstick
from likeness.nodes.sockets import Photo, Subject
from likeness.nodes.training.pictures import sampling as pictures
from likeness.nodes.training.watch import curve, monitor
from likeness.nodes.training.watch.monitor import Monitor, judge_for, judged
from likeness.nodes.training.watch.nodes import TrainingMonitorNode
from likeness.nodes.training.watch.stopping import HELD_OUT, StopRule, Why, decide

FAST = pictures.Sampling(steps=1, cfg=1.0)
ANN = Subject("Ann", "ohwx", "woman", (), (), {}, {}, np.zeros((478, 3)))


def _photo(file: Path) -> Photo:
    pixels = read_photo(file)
    return Photo(file, file.name, "0" * 64, pixels.shape[1], pixels.shape[0],
                 face=find_face(pixels))


@pytest.fixture(scope="module")
def photos(assets):
    return {name: _photo(assets / f"{name}.jpg") for name in ("obama", "obama3", "biden", "biden2")}


@pytest.fixture(scope="module")
def shown(assets):
    names = ("obama", "obama3", "biden", "biden2", "astronaut")
    return {name: read_photo(assets / f"{name}.jpg") for name in names}


def _subject(references, held_out):
    embeddings = np.stack([embed_photo(photo) for photo in (*references, *held_out)])
    return Subject("Someone", "ohwx", "man", tuple(references), tuple(held_out),
                   {"dlib": embeddings}, {}, np.zeros((478, 3)))


@pytest.fixture(scope="module")
def of_obama(photos):
    return judge_for(_subject([photos["obama"]], [photos["obama3"]]))


@pytest.fixture(scope="module")
def of_biden(photos):
    return judge_for(_subject([photos["biden2"]], [photos["biden"]]))


def _look(shown, judge, step=200):
    return judged(shown, ["a photo"] * len(shown), range(len(shown)), step, judge)


def test_pictures_of_the_person_are_alike_and_those_of_another_are_not(shown, of_obama, of_biden):
    seen = [shown["obama"], shown["obama3"]]
    same, other = _look(seen, of_obama), _look(seen, of_biden)
    assert same.scored == other.scored == 2
    assert same.likeness > 0.6 and other.likeness < 0.35  # dlib's same-person cut is 0.4
    assert _look([shown["biden"]], of_biden).likeness > 0.9


def test_likeness_is_to_the_held_out_photos_alone(shown, photos, of_obama):
    truth = similarity(*(embed_photo(photos[name], BOTH) for name in ("obama", "obama3")), BOTH)
    seen = _look([shown["obama"]], of_obama)
    assert seen.likeness == pytest.approx(truth, abs=1e-4)
    assert seen.held_out and of_obama.measured == HELD_OUT


def test_without_held_out_photos_likeness_is_to_all_and_says_so(shown, photos):
    judge = judge_for(_subject([photos["obama"], photos["obama3"]], []), "dlib")
    assert "none is held out" in judge.measured
    seen = _look([shown["obama"]], judge)
    assert not seen.held_out and not seen.summary()["held_out"]
    centre = (embed_photo(photos["obama"]) + embed_photo(photos["obama3"])) / 2
    assert seen.likeness == pytest.approx(similarity(embed_photo(photos["obama"]), centre),
                                          abs=1e-4)


def test_a_copy_of_a_training_photo_is_told_from_another_photo_of_the_person(shown, of_obama):
    copied, real = _look([shown["obama"]], of_obama), _look([shown["obama3"]], of_obama)
    assert copied.shots[0].nearest == 1.0 and copied.shots[0].nearest_photo == "obama.jpg"
    assert copied.copy == pytest.approx(1.0, abs=1e-3)
    assert real.copy == pytest.approx(-1.0, abs=1e-3)  # it is the held-out photo


def test_a_stranger_copies_nothing(shown, of_obama):
    seen = _look([shown["astronaut"], shown["biden"]], of_obama)
    assert abs(seen.copy) < 0.3 and seen.likeness < 0.35


def test_copying_is_measured_as_scores_measure_it(shown, photos):
    subject = _subject([photos["obama"], photos["biden"]], [photos["obama3"], photos["biden2"]])
    seen, = _look([shown["biden"][:, ::-1].copy()], judge_for(subject)).shots
    score, = score_pictures([shown["biden"][:, ::-1].copy()], yardstick(subject, BOTH))
    found = copying(shown["biden"][:, ::-1].copy(), score, originals(yardstick(subject, BOTH)))
    assert seen.nearest_photo == found.nearest == "biden.jpg"
    assert seen.copy == pytest.approx(found.copy_paste, abs=1e-4) and seen.copy > 0.5


def test_without_held_out_photos_a_copy_is_told_by_the_other_training_photos(shown, photos):
    judge = judge_for(_subject([photos["obama"], photos["obama3"]], []))
    copied, = _look([shown["obama"]], judge).shots
    assert copied.copy == pytest.approx(1.0, abs=1e-3)


def test_with_one_photo_in_all_copying_is_not_measured(shown, photos):
    judge = judge_for(_subject([photos["obama"]], []))
    seen = _look([shown["obama"]], judge)
    assert seen.copy is None and seen.likeness == 1.0


def test_a_picture_without_a_face_has_a_status_and_no_number(shown, of_obama):
    seen = _look([np.full((96, 96, 3), 90, np.uint8), shown["obama3"]], of_obama)
    assert [shot.status for shot in seen.shots] == ["no_face", "scored"]
    assert seen.shots[0].likeness is None and seen.shots[0].copy is None
    assert seen.likeness == seen.shots[1].likeness and seen.scored == 1
    assert _look([np.zeros((96, 96, 3), np.uint8)], of_obama).mark.likeness is None


def test_a_head_turned_far_aside_is_not_scored(shown, of_obama, monkeypatch):
    monkeypatch.setattr(monitor, "_MAX_YAW", 0.0)
    shot, = _look([shown["obama"]], of_obama).shots
    assert (shot.status, shot.likeness, shot.faces) == ("not_scoreable", None, 1)


def test_a_run_that_turns_into_copying_is_stopped_by_its_looks(shown, of_obama):
    other_photo = [shown["obama3"][:, ::-1].copy()]
    looks = [_look([shown["biden"]], of_obama, 100), _look(other_photo, of_obama, 200),
             *(_look([shown["obama"]], of_obama, step) for step in (300, 400))]
    decision = decide([look.mark for look in looks], StopRule(patience=2))
    assert (decision.stop, decision.best_step, decision.why) == (True, 200, Why.COPYING)


def test_a_subject_without_references_is_refused():
    with pytest.raises(LikenessError, match="no reference photos"):
        judge_for(ANN)


def test_a_recogniser_without_its_files_is_named():
    with pytest.raises(MissingModelError, match="AuraFace"):
        judge_for(ANN, "auraface")


def test_looks_survive_their_report_with_the_same_decision(shown, of_obama, tmp_path):
    seen = _look([shown["obama"], shown["obama3"], np.zeros((96, 96, 3), np.uint8)], of_obama)
    saved = seen.saved(tmp_path)
    names = [f"step_000200_{index}.png" for index in range(3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [shot.file for shot in saved.shots] == names
    again = monitor.Look.from_dict(json.loads(json.dumps(saved.as_dict())), tmp_path)
    assert again.mark == seen.mark and again.as_dict() == saved.as_dict()
    assert np.array_equal(again.shots[1].picture(), shown["obama3"])
    bare = monitor.Look.from_dict(saved.as_dict())
    assert bare.mark == seen.mark and bare.shots[0].picture() is None


def test_saved_looks_hold_no_pixels_and_show_the_same_sheet(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (96, 64, 3), np.uint8)
    seen = monitor.Look(5, "dlib", True, (monitor.Shot("a", 0, monitor.NO_FACE, pixels=pixels),))
    saved = seen.saved(tmp_path)
    again = monitor.Look.from_dict(json.loads(json.dumps(saved.as_dict())), tmp_path)
    for look in (saved, again):
        assert all(shot.pixels is None for shot in look.shots)
        assert np.array_equal(curve.sheet([look]), curve.sheet([seen]))
    (tmp_path / "step_000005_0.png").unlink()
    assert saved.shots[0].picture() is None
    assert not np.array_equal(curve.sheet([saved]), curve.sheet([seen]))


def test_the_summary_names_no_photo(shown, of_obama):
    assert "obama" not in json.dumps(_look([shown["obama"]], of_obama).summary())


def test_prompts_are_filled_and_used_in_turn():
    settings = Monitor(prompts=("{subject} outdoors", "{trigger}, a {class} {x}"), pictures=3)
    assert settings.texts(ANN) == ("ohwx woman outdoors", "ohwx, a woman {x}",
                                   "ohwx woman outdoors")


def test_looks_are_due_at_their_interval_and_at_the_end():
    settings = Monitor(every=200)
    assert [step for step in range(1, 501) if settings.due(step, 500)] == [200, 400, 500]
    assert not any(Monitor(every=0).due(step, 500) for step in range(1, 501))


@pytest.mark.parametrize(("wrong", "text"), [
    ({"prompts": ()}, "`prompts` must"), ({"pictures": 0}, "`pictures` must be 1"),
    ({"every": -1}, "`every` must"), ({"backend": "me"}, "not a face recogniser")])
def test_a_monitor_that_cannot_be_is_refused(wrong, text):
    with pytest.raises(LikenessError, match=text):
        Monitor(**wrong)


@pytest.fixture(scope="module")
def studio():
    with torch.inference_mode():
        return (training_models.make_model("sd15"), picture_models.make_clip(),
                picture_models.make_vae())


def test_a_look_at_a_model_repeats_its_pictures_and_follows_its_weights(studio, photos):
    model, clip, vae = studio
    subject = _subject([photos["obama"]], [photos["obama3"]])
    judge, settings = judge_for(subject), Monitor(pictures=2, sampling=FAST, seed=4)
    told = []
    with torch.inference_mode():
        first, again, other = (
            monitor.look(each, clip, vae, subject, settings, 100, judge, (64, 48),
                         on_picture=lambda done, pixels: told.append(done))
            for each in (model, model, training_models.make_model("sd15", seed=1)))
    assert told == [1, 2] * 3 and [shot.seed for shot in first.shots] == [4, 5]
    assert [shot.prompt for shot in first.shots] == list(settings.texts(subject))
    for one, two, three in zip(first.shots, again.shots, other.shots, strict=True):
        assert one.pixels.shape == (48, 64, 3)
        assert np.array_equal(one.pixels, two.pixels)
        assert not np.array_equal(one.pixels, three.pixels)
    assert not np.array_equal(first.shots[0].pixels, first.shots[1].pixels)
    assert first.step == 100 and first.mark.counts is False


def test_the_monitors_own_size_wins_over_the_photos(studio, of_obama):
    settings = Monitor(pictures=1, sampling=FAST, width=96, height=64)
    with torch.inference_mode():
        seen = monitor.look(*studio, ANN, settings, 1, of_obama, (512, 512))
    assert seen.shots[0].pixels.shape == (64, 96, 3)


def test_a_look_leaves_the_model_as_it_was(studio, of_obama):
    model = studio[0]
    with torch.inference_mode():
        before, held = training_models.tree(model), training_models.weights(model)
        monitor.look(*studio, ANN, Monitor(pictures=1, sampling=FAST), 1, of_obama, (64, 64))
        assert training_models.tree(model) == before
        training_models.assert_same_weights(model, held)


def _node_inputs(**given):
    schema = TrainingMonitorNode.GET_SCHEMA()
    return {**{entry.id: entry.default for entry in schema.inputs}, **given}


def test_the_nodes_defaults_are_the_monitors():
    made, = TrainingMonitorNode.execute(**_node_inputs()).result
    assert made == Monitor()


def test_the_node_passes_every_field_on():
    given = {"every": 50, "prompts": "a\n\nb", "negative": " n ", "pictures": 2, "seed": 9,
             "width": 64, "height": 72, "steps": 3, "cfg": 1.5, "sampler": "ddim",
             "scheduler": "karras", "guidance": 2.0, "patience": 1, "minimum_steps": 10,
             "copy_limit": 0.2, "minutes": 5.0, "margin": 0.03}
    made, = TrainingMonitorNode.execute(**_node_inputs(**given)).result
    assert made == Monitor(
        every=50, prompts=("a", "b"), negative="n", pictures=2, seed=9, width=64, height=72,
        sampling=pictures.Sampling(steps=3, cfg=1.5, sampler="ddim", scheduler="karras",
                                   guidance=2.0),
        rule=StopRule(patience=1, minimum_steps=10, copy_limit=0.2, minutes=5.0, margin=0.03))
    assert json.loads(json.dumps(made.as_dict()))["rule"]["patience"] == 1


def test_the_node_refuses_a_recogniser_that_is_not_there_before_training():
    with pytest.raises(MissingModelError):
        TrainingMonitorNode.execute(**_node_inputs(recogniser="auraface"))


def test_changing_the_rule_changes_the_monitors_plain_values():
    assert Monitor().as_dict() != dataclasses.replace(Monitor(), rule=StopRule(patience=1)
                                                      ).as_dict()


def test_each_of_two_judges_tells_its_own_likeness(shown, photos):
    subject = _subject([photos["obama"]], [photos["obama3"]])
    taken = _look([shown["obama"], shown["biden"]], judge_for(subject))
    assert set(taken.judges) == {"dlib", "mobilefacenet"} == set(taken.summary()["judges"])
    own, other = taken.shots
    for id in taken.judges:
        alone = _look([shown["obama"]], judge_for(subject, id))
        assert own.judges[id] == pytest.approx(alone.likeness, abs=1e-4)
        assert own.judges[id] > other.judges[id] + 0.2
    assert monitor.Look.from_dict(json.loads(json.dumps(taken.as_dict()))).judges == taken.judges
    assert _look([shown["obama"]], judge_for(subject, "dlib")).judges == {}
