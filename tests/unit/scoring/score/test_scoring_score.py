"""Scores of real photos against a real subject."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from likeness.nodes.errors import FaceNotFoundError, LikenessError, MissingModelError
from likeness.nodes.faces.detect import find_face
from likeness.nodes.faces.recognise import embed
from likeness.nodes.faces.recognise.centre import robust_centre
from likeness.nodes.scoring.score.score import Score, rank, score_pictures, yardstick
from likeness.nodes.sockets import Verdict


@pytest.fixture(scope="module")
def measure(obama):
    return yardstick(obama, "dlib")


@pytest.fixture(scope="module")
def scores(pictures, measure) -> dict[str, Score]:
    names = list(pictures)
    found = score_pictures([pictures[name] for name in names], measure)
    return dict(zip(names, found, strict=True))


def test_another_photo_of_the_person_is_not_rejected(scores):
    assert scores["obama3"].verdict in (Verdict.KEEP, Verdict.UNSURE)


def test_the_persons_own_photo_is_kept(scores):
    assert scores["obama"].verdict is Verdict.KEEP


@pytest.mark.parametrize("name", ["biden", "biden2", "astronaut"])
def test_other_people_are_rejected(scores, name):
    assert scores[name].verdict is Verdict.REJECT
    assert scores[name].score < scores["obama3"].score - 0.2


def test_the_score_is_the_similarity_to_the_robust_centre_of_all_photos(scores, pictures, obama):
    own = embed.embed(pictures["obama3"], find_face(pictures["obama3"]))
    expected = embed.similarity(own, robust_centre(obama.embeddings["dlib"]))
    assert scores["obama3"].score == pytest.approx(expected, abs=1e-5)


def test_held_out_photos_are_scored_separately(scores, pictures, obama):
    own = embed.embed(pictures["obama3"], find_face(pictures["obama3"]))
    expected = embed.similarity(own, obama.embeddings["dlib"][3])
    assert scores["obama3"].held_out == pytest.approx(expected, abs=1e-5)


def test_without_held_out_photos_there_is_no_such_number(pictures, obama):
    everything = dataclasses.replace(obama, references=obama.photos, held_out=())
    score, = score_pictures([pictures["obama3"]], yardstick(everything, "dlib"))
    assert score.held_out is None
    assert score.score is not None


def test_a_picture_without_a_face_has_a_status_and_no_number(scores):
    nobody = scores["nobody"]
    assert (nobody.status, nobody.verdict) == ("no_face", Verdict.REJECT)
    assert (nobody.score, nobody.held_out, nobody.percentile, nobody.face) == (None,) * 4


def test_a_head_turned_too_far_has_no_number(pictures, measure):
    score, = score_pictures([pictures["obama3"]], measure, max_yaw=5.0)
    assert (score.status, score.verdict) == ("not_scoreable", Verdict.UNSURE)
    assert (score.score, score.percentile) == (None, None)
    assert abs(score.face.pose.yaw) > 5


def test_the_largest_of_several_faces_counts_unless_asked_otherwise(pictures, measure):
    largest, = score_pictures([pictures["two"]], measure)
    alike, = score_pictures([pictures["two"]], measure, "most like the subject")
    assert (largest.faces, alike.faces) == (2, 2)
    assert largest.verdict is Verdict.REJECT
    assert alike.score > largest.score + 0.2


def test_several_faces_can_be_left_unscored(pictures, measure):
    score, = score_pictures([pictures["two"]], measure, "leave unscored")
    assert (score.status, score.verdict, score.score) == ("several_faces", Verdict.UNSURE, None)


def test_several_faces_can_be_an_error_that_names_the_picture(pictures, measure):
    with pytest.raises(LikenessError, match="image 2"):
        score_pictures([pictures["obama"], pictures["two"]], measure, "error")


def test_a_policy_that_nobody_offered_is_an_error(pictures, measure):
    with pytest.raises(LikenessError, match="several_faces"):
        score_pictures([pictures["obama"]], measure, "the tall one")


def test_the_ranking_is_by_score_with_unscored_pictures_last(scores):
    ranked = rank(list(scores.values()))
    numbers = [score.score for score in ranked if score.status == "scored"]
    assert numbers == sorted(numbers, reverse=True)
    assert [score.status for score in ranked] == ["scored"] * (len(ranked) - 1) + ["no_face"]
    assert ranked[0] is scores["obama"]


def test_pictures_without_a_score_keep_the_order_of_the_batch():
    unscored = [Score(index, status, Verdict.UNSURE, "") for index, status in
                enumerate(("no_face", "several_faces", "no_face", "not_scoreable"))]
    assert [score.index for score in rank(unscored)] == [3, 1, 0, 2]


def test_the_own_spread_is_measured_against_the_same_centre_as_pictures_are(obama):
    rows = obama.embeddings["dlib"]
    expected = [embed.similarity(rows[i], robust_centre(np.delete(rows, i, 0))) for i in range(4)]
    measured = yardstick(dataclasses.replace(obama, spread={}), "dlib").calibration.spread
    assert measured.similarities == pytest.approx(expected)


def test_a_subject_of_one_photo_gets_no_keep(pictures, obama):
    one = dataclasses.replace(obama, references=obama.references[:1], held_out=(), spread={},
                              embeddings={"dlib": obama.embeddings["dlib"][:1]})
    score, = score_pictures([pictures["obama"]], yardstick(one, "dlib"))
    assert (score.verdict, score.percentile) == (Verdict.UNSURE, None)


def test_a_subject_without_photos_is_an_error(obama):
    none = dataclasses.replace(obama, references=(), held_out=(), spread={},
                               embeddings={"dlib": np.zeros((0, 128), np.float32)})
    with pytest.raises(LikenessError, match="no photos"):
        yardstick(none, "dlib")


def test_a_recogniser_that_is_not_there_is_named(obama):
    with pytest.raises(MissingModelError, match="buffalo_l"):
        yardstick(obama, "buffalo_l")


def test_a_face_that_the_recogniser_does_not_see_has_no_number(pictures, measure, monkeypatch):
    def blind(pixels, face, backend):
        raise FaceNotFoundError("not seen")

    monkeypatch.setattr(embed, "embed", blind)
    score, = score_pictures([pictures["two"]], measure, "most like the subject")
    assert (score.status, score.verdict, score.score) == ("not_scoreable", Verdict.UNSURE, None)
