"""The coach's list: what adds most first, in the person's own left and right, with an end."""

from __future__ import annotations

import dataclasses
import json

import folder_paths
import numpy as np
import pytest
import torch
from likeness.nodes.dataset.coach import coach, coverage, shot_words
from likeness.nodes.dataset.coach.nodes import LikenessCoach, LikenessSelectPhotos
from likeness.nodes.dataset.coach.sheet import HEIGHT, WIDTH, coach_page
from likeness.nodes.media.images import read_photo, to_uint8
from likeness.nodes.sockets import PhotoSet, Reason, Verdict


def advise(photos):
    return coach.advise(PhotoSet(tuple(photos)))


def test_a_complete_and_varied_set_is_told_to_stop(different):
    advice = advise(different)
    assert advice.done and advice.shots == ()
    assert advice.headline.startswith("Enough: shoot nothing more.")


def test_a_missing_side_is_asked_for_in_the_persons_own_words(different):
    """A nose to the right of the picture is a head turned to the person's own left."""
    advice = advise([photo for photo in different if not 20 <= photo.face.pose.yaw < 50])
    assert not advice.done
    shot = advice.shots[0]
    assert shot.bins["yaw"] == "three_quarter_right"
    assert "turn your head half way to your own left" in shot.text
    assert "nose towards the right edge" in shot.text


def test_the_other_side_is_the_mirror_image_of_it(different):
    advice = advise([photo for photo in different if not -50 <= photo.face.pose.yaw < -20])
    assert advice.shots[0].bins["yaw"] == "three_quarter_left"
    assert "to your own right (nose towards the left edge" in advice.shots[0].text


def test_light_from_the_left_of_the_picture_comes_from_the_persons_right():
    bins = {"yaw": "frontal", "pitch": "level", "expression": "neutral", "light": "left",
            "distance": "close", "place": "same"}
    text = shot_words.describe_shot(bins, "shoulders")
    assert "window light from your own right" in text
    assert "one step closer: the face fills the picture" in text


def test_the_list_is_ordered_by_what_each_photo_would_add(posed):
    advice = advise([posed("a"), posed("b", yaw=4), posed("c", place=1)])
    gains = [shot.gain for shot in advice.shots]
    assert gains == sorted(gains, reverse=True) and gains[-1] > 5


def test_the_gain_of_a_shot_is_what_the_score_rises_by_when_it_is_taken(posed):
    photos = [posed("a"), posed("b", yaw=-30, place=1), posed("c", yaw=10, place=2)]
    advice = advise(photos)
    shot = next(shot for shot in advice.shots if shot.bins["place"] == "same")
    bins = shot.bins
    side, contrast, warmth, top = coach._LIGHTS[bins["light"]]
    smile, teeth, jaw, brows = coach._EXPRESSION[bins["expression"]]
    taken = posed("new", yaw=coach._YAW[bins["yaw"]], pitch=coach._PITCH[bins["pitch"]],
                  share=coach._DISTANCE[bins["distance"]], side=side, warmth=warmth,
                  mouthSmile=smile, mouthUpperUp=teeth, jawOpen=jaw, browDown=brows)
    taken = dataclasses.replace(taken, measures={**taken.measures, "light_contrast": contrast,
                                                 "light_top": top})
    after = coverage.measure([*photos, taken]).diversity
    assert after - advice.coverage.diversity == pytest.approx(shot.gain, abs=0.5)


def test_taking_the_shots_leaves_nothing_essential_missing(posed):
    """What an empty set is asked for supplies every need within two lists."""
    advice = advise([])
    assert advice.coverage.photos == 0 and len(advice.shots) == coach.SHOTS
    yaws = {shot.bins["yaw"] for shot in advice.shots}
    assert {"frontal", "three_quarter_left", "three_quarter_right"} <= yaws


def test_the_shots_of_an_empty_set_say_what_each_adds_to_those_before():
    advice = advise([])
    gains = [shot.gain for shot in advice.shots]
    assert gains[0] == 0 == advice.coverage.diversity
    assert all(gain > 5 for gain in gains[1:]) and sum(gains) <= 100
    assert "+0" not in advice.text and "in this order" in advice.headline
    assert f"these {len(advice.shots)} first" in advice.headline


def test_planned_shots_are_not_counted_as_taken(posed):
    """No reason claims a photo that does not exist, and the first place is nothing to change."""
    shots = advise([]).shots
    assert not any("only" in shot.why for shot in shots)
    assert "not used yet" not in shots[0].text and "not used yet" in shots[1].text
    one = advise([posed("a")])
    assert "only 1 of 2 so far; the view" in one.text


def test_the_list_follows_what_is_there(posed):
    near = advise([posed(f"{n}", share=0.5, place=n) for n in range(4)])
    far = advise([posed(f"{n}", share=0.14, place=n) for n in range(4)])
    assert any("further away" in shot.text for shot in near.shots)
    assert not any("closer" in shot.text for shot in near.shots)
    assert any("closer" in shot.text for shot in far.shots)


def test_one_place_alone_is_asked_to_change(posed):
    advice = advise([posed(f"{n}", yaw=8 * n) for n in range(4)])
    assert any("in a place not used yet" in shot.text for shot in advice.shots)


def test_too_few_photos_and_many_alike_ones_are_told_apart(posed):
    assert advise([posed("a"), posed("b")]).headline.startswith("Too few: 2 photos")
    many = advise([posed(f"{n}", yaw=n / 10) for n in range(30)])
    assert many.headline.startswith("Enough in number, too much alike: 30 photos")


def test_a_varied_set_that_lacks_one_view_is_not_called_alike(different, posed):
    lacking = [photo for photo in different if not 20 <= photo.face.pose.yaw < 50]
    for photos in (lacking, [dataclasses.replace(photo, name=f"{photo.name}.{copy}")
                             for copy in range(4) for photo in lacking]):
        headline = advise(photos).headline
        assert headline.startswith(f"Varied, but not complete: {len(photos)} photos")
        assert headline.endswith("one thing that is needed is missing. Take this one next.")


def test_one_is_one_and_not_a_number_of_things(posed):
    assert advise([posed("a")]).headline.startswith("Too few: 1 photo; at least 7")
    alike = advise([posed("a"), posed("b")]).headline
    assert "2 photos that amount to a single one" in alike and "1.0" not in alike


def test_refused_photos_are_counted_by_what_was_wrong(posed):
    def refused(name, *rules):
        reasons = tuple(Reason(rule, "x", verdict) for rule, verdict in rules)
        return dataclasses.replace(posed(name), verdict=Verdict.REJECT, reasons=reasons)

    reject, unsure = Verdict.REJECT, Verdict.UNSURE
    advice = advise([posed("a"), refused("b", ("dark", unsure), ("blurred", reject)),
                     refused("c", ("blurred", reject)), refused("d", ("dark", reject)),
                     refused("e", ("not_selected", reject))])
    assert [(again.rule, again.count) for again in advice.reshoot] == [("blurred", 2), ("dark", 1)]
    assert "2 blurred: hold still" in advice.text


def test_photos_without_light_measures_get_advice(posed):
    advice = advise([dataclasses.replace(posed(name), measures={}, scene=None)
                     for name in ("a", "b")])
    assert advice.shots and all(shot.bins["light"] == "even" for shot in advice.shots)


@pytest.mark.parametrize("count", [0, 1, 5, 40])
def test_the_page_is_whole_whatever_is_there(real, count):
    photos = [dataclasses.replace(list(real.values())[n % 5], name=f"{n}") for n in range(count)]
    advice = advise(photos)
    page = coach_page(advice, PhotoSet(tuple(photos), "a folder " * 30))
    assert page.shape == (HEIGHT, WIDTH, 3) and page.dtype == np.uint8
    edges = np.concatenate([page[:20].reshape(-1, 3), page[-20:].reshape(-1, 3),
                            page[:, :20].reshape(-1, 3), page[:, -20:].reshape(-1, 3)])
    assert (edges == 255).all(), "nothing is cut by the edge of the paper"


@pytest.mark.parametrize("after", [3, 35, 240])
def test_a_cancel_stops_the_coach_wherever_it_is(posed, after):
    """While backgrounds are grouped, while different photos are sought, while shots are planned."""
    photos = PhotoSet(tuple(posed(f"{n}", yaw=n / 10) for n in range(210)))
    calls = []

    def cancel():
        calls.append(1)
        if len(calls) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        coach.advise(photos, check=cancel)
    assert len(calls) == after


@pytest.fixture
def host(monkeypatch, tmp_path):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    with torch.inference_mode():
        yield tmp_path


def test_the_coach_node_shows_and_saves_its_page(host, real):
    photos = PhotoSet(tuple(real.values()), "people")
    result = LikenessCoach.execute(photos, False)
    page, advice, report, score = result.result
    data = json.loads(report)
    file, picture = sorted((host / "output" / "likeness").iterdir())
    assert data["report"] == str(file) and json.loads(file.read_text()) == data
    assert np.array_equal(read_photo(picture), to_uint8(page[0]))
    assert result.ui["text"][0] == advice and result.ui["images"]
    assert score == pytest.approx(data["score"], abs=0.06) and 0 <= score <= 100


def test_the_select_node_hands_on_the_picked_photos(host, real):
    photos = PhotoSet(tuple(real.values()), "people")
    selected, sheet, report = LikenessSelectPhotos.execute(photos, 2, 0.3, False).result
    assert len(selected.kept) == 2 == len(json.loads(report)["picked"])
    assert sheet.ndim == 4 and sheet.dtype == torch.float32
    assert json.loads(LikenessCoach.execute(selected, False).result[2])["take_again"] == []
