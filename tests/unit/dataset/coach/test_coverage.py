"""Bins of what a set shows, and the number of different photos that it amounts to."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from likeness.nodes.dataset.coach import coverage, variety
from likeness.nodes.errors import LikenessError
from likeness.nodes.faces.detect import find_face
from likeness.nodes.media.images import read_photo
from likeness.nodes.quality import scene
from likeness.nodes.sockets import PhotoSet, Verdict


def score(photos) -> float:
    return coverage.measure(photos).diversity


def test_one_photo_25_times_scores_nothing(posed):
    photos = [posed(f"{number}") for number in range(25)]
    assert score(photos) == pytest.approx(0, abs=0.01)


def test_ten_different_photos_score_near_the_top(different):
    assert score(different) > 90


def test_ten_photos_of_one_moment_score_far_below_ten_different_ones(posed, different):
    photos = [posed(f"{number}", yaw=number, pitch=5 + number % 3) for number in range(10)]
    assert score(photos) < 15 < 0.2 * score(different)


@pytest.mark.parametrize("place", [0, 3, 9])
def test_a_duplicate_does_not_raise_the_score(different, place):
    few = different[:5]
    twin = dataclasses.replace(different[place], name="twin")
    base = coverage.measure([*few, different[place]]).effective
    assert coverage.measure([*few, different[place], twin]).effective <= base + 1e-3


def test_a_further_photo_never_lowers_the_score(different):
    scores = [coverage.measure(different[:count]).effective for count in range(1, 11)]
    assert all(after >= before - 1e-3 for before, after in zip(scores, scores[1:], strict=False))


def test_the_number_of_equally_unlike_photos_is_that_of_the_formula():
    rows = {"pose": np.eye(4, dtype=np.float32) * 2}
    alike = float(variety.similarity(rows, rows)[0, 1])
    expected = 4 / (1 + 3 * alike)
    assert variety.effective_number(rows) == pytest.approx(expected, rel=1e-4)


def test_weights_leave_a_photo_between_two_others_out():
    rows = {"pose": np.array([[0.0], [0.4], [0.8]], np.float32)}
    weights, least = variety.balance(rows)
    alike = variety.similarity(rows, rows)
    trials = np.random.default_rng(0).dirichlet(np.ones(3), 2000)
    assert least <= np.einsum("ni,ij,nj->n", trials, alike, trials).min() + 1e-4
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()


def test_only_representatives_of_a_very_large_set_are_compared(different):
    rows = variety.traits_of([*different, *different * 40])
    places = variety.representatives(rows)
    assert len(places) == 200 and len({place % 10 for place in places[:10].tolist()}) == 10


@pytest.mark.parametrize(("yaw", "part"), [
    (-60, "profile_left"), (-35, "three_quarter_left"), (-19, "frontal"), (16, "frontal"),
    (20, "three_quarter_right"), (49, "three_quarter_right"), (55, "profile_right")])
def test_a_turned_head_falls_into_its_bin(posed, yaw, part):
    assert coverage.AXIS["yaw"].bin_of(posed("a", yaw=yaw)) == part


@pytest.mark.parametrize(("pitch", "part"), [(-20, "up"), (-1, "level"), (16, "level"),
                                             (24, "down")])
def test_level_portraits_read_as_level(posed, pitch, part):
    assert coverage.AXIS["pitch"].bin_of(posed("a", pitch=pitch)) == part


@pytest.mark.parametrize(("shape", "part"), [
    ({}, "neutral"), ({"browDown": 0.8}, "serious"), ({"mouthSmile": 0.6}, "smile"),
    ({"mouthSmile": 0.9, "mouthUpperUp": 0.6}, "laugh"), ({"jawOpen": 0.4}, "talking")])
def test_blendshapes_become_expressions(posed, shape, part):
    assert coverage.AXIS["expression"].bin_of(posed("a", **shape)) == part


def test_real_photos_fall_into_the_bins_that_one_sees(real):
    bins = coverage.measure(list(real.values())).places
    assert bins["obama.jpg"]["expression"] == "laugh" == bins["biden2.jpg"]["expression"]
    assert bins["biden.jpg"]["expression"] in ("neutral", "serious")
    assert {bins[name]["yaw"] for name in real} == {"frontal"}
    assert bins["biden2.jpg"]["distance"] == "close"
    assert bins["biden.jpg"]["distance"] == "upper_body"


def test_light_that_is_not_measured_is_no_axis_and_no_lack(posed):
    photo = dataclasses.replace(posed("a"), measures={})
    found = coverage.measure([photo])
    assert "light_side" not in found.counts
    assert all(lack.need.axis != "light_side" for lack in found.lacks)
    assert "light_side" in coverage.summary(found)["not_measured"]


def test_essential_lacks_come_first_and_end_when_supplied(posed, different):
    lacks = coverage.measure([posed("a")]).lacks
    essential = [lack.need.essential for lack in lacks]
    assert essential == sorted(essential, reverse=True) and essential[0]
    assert not coverage.measure(different).missing


def test_doubted_closed_eyes_and_refused_photos_do_not_count(posed):
    photos = [posed("a"), dataclasses.replace(posed("blink", eyeBlink=0.9),
                                              verdict=Verdict.UNSURE),
              dataclasses.replace(posed("no"), verdict=Verdict.REJECT),
              dataclasses.replace(posed("maybe"), verdict=Verdict.UNSURE)]
    names = [photo.name for photo in coverage.usable(PhotoSet(tuple(photos)))]
    assert names == ["a"]
    names = [photo.name for photo in coverage.usable(PhotoSet(tuple(photos)), include_unsure=True)]
    assert names == ["a", "maybe"]


@pytest.mark.parametrize("verdict", [Verdict.KEEP, Verdict.UNSURE])
def test_closed_eyes_count_where_the_user_says_so(posed, verdict):
    own = dataclasses.replace(posed("blink", eyeBlink=0.9), verdict=verdict, overridden=True)
    assert coverage.usable(PhotoSet((own,)), include_unsure=True) == (own,)


def test_photos_without_verdicts_are_refused(posed):
    with pytest.raises(LikenessError, match="Curate Photos"):
        coverage.usable(PhotoSet((dataclasses.replace(posed("a"), verdict=None),)))


def test_crops_share_a_scene_and_other_places_do_not(assets, real):
    pixels = read_photo(assets / "obama.jpg")
    height, width = pixels.shape[:2]
    crop = np.ascontiguousarray(pixels[int(0.05 * height):int(0.8 * height),
                                       int(0.1 * width):int(0.95 * width)])
    near = scene.describe(crop, find_face(crop))
    assert scene.distance(real["obama.jpg"].scene, near) < scene.SAME_SCENE
    for other in ("obama3.jpg", "biden2.jpg", "astronaut.jpg"):
        assert scene.distance(real["obama.jpg"].scene, real[other].scene) > scene.SAME_SCENE
    assert scene.distance(real["obama3.jpg"].scene, real["biden.jpg"].scene) < scene.SAME_SCENE


def test_a_face_that_fills_the_picture_shows_no_scene(assets, real):
    photo = real["obama.jpg"]
    x0, y0, x1, y1 = (round(edge) for edge in photo.face.box)
    inner = np.ascontiguousarray(read_photo(photo.file)[y0 + 40:y1 - 40, x0 + 40:x1 - 40])
    moved = dataclasses.replace(photo.face, landmarks=photo.face.landmarks - (x0 + 40, y0 + 40, 0),
                                box=(-40, -40, x1 - x0 - 40, y1 - y0 - 40))
    assert scene.describe(inner, moved) is None


def test_photos_of_one_place_are_grouped(real):
    groups = coverage.group_scenes(list(real.values()))
    assert sorted(groups[0]) == ["biden.jpg", "obama3.jpg"]
    assert len(groups) == len(real) - 1
