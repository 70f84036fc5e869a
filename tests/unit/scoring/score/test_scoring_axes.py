"""What stands beside likeness: copies, diversity, face quality, a second judge."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces.recognise.backends import backend
from likeness.nodes.faces.recognise.copying import copy_paste
from likeness.nodes.faces.recognise.embed import similarity
from likeness.nodes.media.images import resize
from likeness.nodes.scoring.calibration.calibration import calibrate
from likeness.nodes.scoring.calibration.references import nearness, own_spread
from likeness.nodes.scoring.score import copying as copies
from likeness.nodes.scoring.score import judges
from likeness.nodes.scoring.score.axes import measure_axes
from likeness.nodes.scoring.score.diversity import chance_margin, correlations, vendi
from likeness.nodes.scoring.score.score import Score, score_pictures, yardstick
from likeness.nodes.sockets import Verdict
from PIL import Image, ImageFilter


@pytest.fixture(scope="module")
def measure(obama):
    return yardstick(obama, "dlib")


def measured(pictures, measure):
    scores = score_pictures(pictures, measure)
    return scores, measure_axes(pictures, scores, measure)


@pytest.fixture(scope="module")
def batch(pictures, measure):
    """The portrait that is a reference, another photo of the person, a wall."""
    return measured([pictures[name] for name in ("obama", "obama3", "nobody")], measure)


def test_a_reference_photo_itself_is_a_copy(batch):
    copy = batch[1].copies[0]
    assert copy.same_picture and copy.copied
    assert copy.pixel_bits <= copies.SAME_PICTURE
    assert copy.text == f"Shows the pixels of `{copy.pixel_photo}`."


def test_another_photo_of_the_person_is_no_copy(batch):
    copy = batch[1].copies[1]
    assert not copy.copied and copy.text == ""
    assert copy.pixel_bits > copies.SAME_PICTURE
    assert batch[1].copied == 1


def test_a_picture_without_a_face_has_no_such_numbers(batch):
    assert (batch[1].copies[2], batch[1].quality[2]) == (None, None)


def test_a_face_nearer_to_a_reference_than_real_photos_are_is_a_copy(measure, pictures, obama):
    """Embeddings of a person whose photos differ; the picture has one of them, almost."""
    random = np.random.default_rng(0)
    rows = (obama.embeddings["dlib"][:1] + 0.04 * random.normal(size=(4, 128))).astype(np.float32)
    spread = dataclasses.replace(measure, photos=rows)
    score, = score_pictures([pictures["obama3"]], measure)
    known = copies.originals(spread)
    near = dataclasses.replace(score, embedding=rows[1] + np.float32(1e-3))
    middle = dataclasses.replace(score, embedding=rows.mean(0))
    found = copies.copying(pictures["obama3"], near, known)
    assert found.closer_than_real and found.nearest == obama.references[1].name
    assert "closer to" in found.text
    far = dataclasses.replace(score, embedding=rows[1] + 0.5)
    assert not copies.copying(pictures["obama3"], far, known).closer_than_real
    assert copies.copying(pictures["obama3"], middle, known).copy_paste < found.copy_paste


@pytest.mark.parametrize("count", [3, 6, 20])
def test_another_real_photo_is_hardly_ever_taken_for_a_copy(measure, count):
    """People whose photos scatter at random; the next photo of each is no copy."""
    random = np.random.default_rng(count)
    found = []
    for _ in range(40):
        rows = np.zeros((count + 10, 128), np.float32)
        rows[:, :24] = 0.06 * random.normal(size=(count + 10, 24))
        own = rows[:count]
        person = dataclasses.replace(measure, photos=own, calibration=calibrate(
            own_spread(own), 0.4))
        pairs = [similarity(own[i], own[j]) for i in range(count) for j in range(i)]
        limit = copies.closest_limit(pairs, person)
        found += [nearness(row, own).best > limit for row in rows[count:]]
    assert np.mean(found) <= 0.02


def test_what_two_real_photos_reach_is_never_called_a_copy(measure):
    assert copies.closest_limit([0.30, 0.31, 0.32, 0.33, 0.34, 0.995], measure) == 0.995


def test_the_more_references_the_nearer_one_must_be(measure):
    many = dataclasses.replace(measure, photos=np.zeros((600, 128), np.float32))
    pairs = [0.5, 0.55, 0.6, 0.65, 0.7]
    z = copies.closest_limit(pairs, many)
    spread = 1.4826 * 1.053 * 0.05
    assert z > 0.6 + 3.9 * spread  # 1 in 60 000 of a normal, not 1 in 100


def test_the_gap_is_to_the_nearest_of_several_held_out_photos(measure, pictures, obama):
    split = dataclasses.replace(obama, references=obama.photos[:2], held_out=obama.photos[2:])
    known = copies.originals(dataclasses.replace(measure, subject=split))
    score, = score_pictures([pictures["obama3"]], measure)
    found = copies.copying(pictures["obama3"], score, known)
    alike = [similarity(score.embedding, row) for row in measure.photos]
    assert len(set(alike[2:])) > 1
    assert found.gap == pytest.approx(max(alike[:2]) - max(alike[2:]))


def test_measuring_says_how_far_it_is_and_can_be_cancelled(pictures, measure):
    scores = score_pictures([pictures["nobody"]] * 2, measure)
    done = []
    measure_axes([pictures["nobody"]] * 2, scores, measure, on_item=done.append)
    assert done == [1, 2]


def test_the_copy_paste_formula_is_that_of_multi_id_bench():
    def at(degrees):
        return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], np.float32)

    reference, target = at(0), at(40)
    assert copy_paste(at(0), target[None], reference) == pytest.approx(1.0, abs=1e-3)
    assert copy_paste(at(40), target[None], reference) == pytest.approx(-1.0, abs=1e-3)
    assert copy_paste(at(20), target[None], reference) == pytest.approx(0.0, abs=1e-3)
    assert copy_paste(at(10) * 7, target[None], reference) == pytest.approx(0.5, abs=1e-3)
    assert copy_paste(at(10), reference[None], reference) == 0.0


def test_without_held_out_photos_copy_paste_is_unknown(obama, pictures):
    everything = dataclasses.replace(obama, references=obama.photos, held_out=())
    _, axes = measured([pictures["obama3"]], yardstick(everything, "dlib"))
    assert (axes.copies[0].copy_paste, axes.copies[0].gap) == (None, None)
    assert axes.copies[0].pixel_bits is not None


def test_a_reference_that_is_gone_is_named_and_the_rest_compared(obama, pictures, tmp_path):
    gone = dataclasses.replace(obama.references[0], file=tmp_path / "gone.png")
    subject = dataclasses.replace(obama, references=(gone, *obama.references[1:]))
    _, axes = measured([pictures["obama"]], yardstick(subject, "dlib"))
    assert axes.originals.unread == (gone.name,)
    assert axes.copies[0].same_picture


def test_one_picture_four_times_counts_as_one():
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    assert vendi(correlations([picture] * 4)) == pytest.approx(1.0, abs=1e-3)


def test_unrelated_pictures_count_each():
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 255, (32, 32, 3)).astype(np.uint8) for _ in range(4)]
    assert vendi(correlations(pictures)) == pytest.approx(4.0, abs=0.05)


def test_pictures_of_one_colour_do_not_break_the_count():
    plain = [np.full((40, 40, 3), level, np.uint8) for level in (0, 120, 255)]
    assert np.isfinite(vendi(correlations(plain)))


def test_real_photos_are_more_diverse_than_one_photo_again(measure, pictures):
    same = measured([pictures["obama3"]] * 4, measure)[1].diversity
    other = measured([pictures["obama3"], pictures["biden2"]], measure)[1].diversity
    assert same.pictures == pytest.approx(0.0, abs=1e-6)
    assert other.pictures > 0.1
    assert other.effective > same.effective == pytest.approx(1.0, abs=1e-3)
    assert same.narrower_than_real and not other.narrower_than_real


def test_pictures_as_different_as_the_real_photos_are_hardly_ever_called_narrower():
    random = np.random.default_rng(0)
    called = []
    for _ in range(200):
        rows = (0.06 * random.normal(size=(12, 24))).astype(np.float32)
        real, made = (np.mean([similarity(part[i], part[j]) for i in range(6) for j in range(i)])
                      for part in (rows[:6], rows[6:]))
        called.append(made > real + chance_margin(rows[:6], 6, "dlib"))
    assert np.mean(called) <= 0.12


def test_two_real_photos_cannot_say_what_is_narrower():
    assert chance_margin(np.eye(2, 128, dtype=np.float32), 4, "dlib") is None


def test_one_picture_alone_has_no_diversity(measure, pictures):
    spread = measured([pictures["obama3"]], measure)[1].diversity
    assert (spread.pictures, spread.effective, spread.faces) == (None, None, None)


def test_a_blurred_face_is_named_and_a_sharp_one_is_not(measure, pictures):
    blurred = np.asarray(Image.fromarray(pictures["obama"]).filter(ImageFilter.GaussianBlur(6)))
    sharp, soft = measured([pictures["obama"], blurred], measure)[1].quality
    assert "blurred" in {reason.rule for reason in soft.reasons}
    assert "blurred" not in {reason.rule for reason in sharp.reasons}
    assert soft.measures["sharpness"] < sharp.measures["sharpness"]


def test_a_small_face_is_named(measure, pictures):
    small = np.full((600, 600, 3), 120, np.uint8)
    small[:150, :150] = resize(pictures["obama"], 150, 150)
    quality, = measured([small], measure)[1].quality
    assert "too_small" in {reason.rule for reason in quality.reasons}


@pytest.fixture
def second(measure):
    """Another judge over the same embeddings, who keeps nobody."""
    calibration = dataclasses.replace(measure.calibration, keep_from=None, reject_below=None)
    return dataclasses.replace(measure, backend="other", calibration=calibration)


@pytest.fixture
def other_backend(monkeypatch):
    known = dataclasses.replace(backend("dlib"), id="other", title="Other")
    from likeness.nodes.faces.recognise import backends
    monkeypatch.setitem(backends._BY_ID, "other", known)


def test_judges_who_differ_are_shown_to_differ(measure, second, pictures, other_backend):
    batch = [pictures[name] for name in ("obama", "biden", "obama3", "nobody")]
    scores = score_pictures(batch, measure)
    opinion = judges.second_opinion(batch, scores, "dlib", second)
    assert [opinion.differs(score) for score in scores] == [
        score.status == "scored" and score.verdict is not Verdict.UNSURE for score in scores]
    assert opinion.agreement == pytest.approx(1.0)
    assert opinion.scores[3].status == "no_face"


def test_the_second_judge_judges_the_same_face(measure, second, pictures, other_backend):
    batch = [pictures["two"]]
    scores = score_pictures(batch, measure, "most like the subject")
    opinion = judges.second_opinion(batch, scores, "dlib", second)
    assert opinion.scores[0].score == pytest.approx(scores[0].score, abs=1e-5)


def test_one_judge_twice_is_refused(measure):
    with pytest.raises(LikenessError, match="Both judges are dlib"):
        judges.second_opinion([], [], "dlib", measure)


@pytest.mark.parametrize("pairs, rho", [
    ([(1, 10), (2, 20), (3, 30)], 1.0), ([(1, 3), (2, 2), (3, 1)], -1.0),
    ([(1, 1), (2, 2)], None), ([(1, 5), (2, 5), (3, 5)], None),
    ([(1, 1), (2, 3), (2, 2), (3, 4)], 0.9486832980505138)])
def test_rank_correlation_is_spearmans(pairs, rho):
    found = judges.rank_correlation(pairs)
    assert found is None if rho is None else found == pytest.approx(rho)


def test_scores_stay_comparable_though_they_hold_arrays():
    one, other = (Score(0, "scored", Verdict.KEEP, "", 0.5, embedding=np.ones(3))
                  for _ in range(2))
    assert one == other
