"""The best photos of a set: varied, good, always the same, and explained."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from likeness.nodes.dataset.coach import select
from likeness.nodes.dataset.coach.variety import similarity, traits_of
from likeness.nodes.dataset.curate.curate import curate
from likeness.nodes.dataset.curate.overrides import Override, Overrides
from likeness.nodes.errors import LikenessError
from likeness.nodes.quality.rules import Rules
from likeness.nodes.sockets import PhotoSet, Reason, Verdict


def names(selection) -> list[str]:
    return [choice.photo.name for choice in selection.picked]


@pytest.fixture
def crowd(posed):
    """Eight alike frontal photos, the fourth the sharpest, and one from each side."""
    frontal = [posed(f"f{number}", yaw=number / 4, sharpness=200 if number == 3 else 80)
               for number in range(8)]
    return PhotoSet((*frontal, posed("side", yaw=-35), posed("other", yaw=35)))


def test_rare_views_and_the_sharpest_of_the_common_one_are_picked(crowd):
    assert set(names(select.select(crowd, 3))) == {"f3", "side", "other"}


def test_each_choice_says_why(crowd):
    selection = select.select(crowd, 3)
    said = {choice.photo.name: choice.text for choice in selection.choices}
    assert said["side"] == "The only one: 3/4 left of the picture."
    assert said["f3"] == "The sharpest of 8: frontal."
    assert said["f0"] == "Like f3, softer."


def test_the_choice_does_not_depend_on_the_order_of_files(different):
    ahead = select.select(PhotoSet(tuple(different)), 4)
    again = select.select(PhotoSet(tuple(different)), 4)
    back = select.select(PhotoSet(tuple(reversed(different))), 4)
    assert names(ahead) == names(again) and set(names(ahead)) == set(names(back))


def test_lazy_choices_are_those_of_the_plain_greedy_algorithm(different, posed):
    photos = (*different, *(posed(f"x{n}", yaw=4 * n, sharpness=60 + 20 * n) for n in range(8)))
    alike = similarity(traits_of(photos), traits_of(photos)).astype(float)
    weights = 1 / alike.sum(1)
    quality = 0.3 * np.array([select.quality_of(photo) for photo in photos])
    chosen, covered = [], np.zeros(len(photos))
    for _ in range(6):
        gains = weights @ np.maximum(alike - covered[:, None], 0) + quality
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        covered = np.maximum(covered, alike[chosen[-1]])
    expected = [photos[place].name for place in chosen]
    assert names(select.select(PhotoSet(photos), 6)) == expected


def test_quality_decides_more_the_more_it_weighs(posed):
    photos = PhotoSet((posed("soft", yaw=-35, sharpness=41, face_width=97),
                       posed("a", sharpness=400, face_width=500),
                       posed("b", sharpness=390, face_width=500, yaw=8)))
    assert "soft" in names(select.select(photos, 2, quality_weight=0.0))
    assert "soft" not in names(select.select(photos, 2, quality_weight=2.0))


def test_passed_photos_are_rejected_behind_the_reasons_they_had(posed):
    doubt = Reason("blurred", "The face is soft.", Verdict.UNSURE)
    photos = PhotoSet((posed("a"), dataclasses.replace(
        posed("b", sharpness=60), verdict=Verdict.UNSURE, reasons=(doubt,))))
    selection = select.select(photos, 1, include_unsure=True)
    passed = selection.photos.photos[1]
    assert passed.verdict is Verdict.REJECT and passed.reasons[0] == doubt
    assert passed.reasons[1].rule == "not_selected"
    assert photos.photos[1].verdict is Verdict.UNSURE, "the input stays as it was"
    entry, = select.report(selection, photos)["passed"]
    assert entry["curation"] == "unsure"


def test_refused_photos_stay_as_they_are(crowd, posed):
    bad = dataclasses.replace(posed("bad", yaw=60), verdict=Verdict.REJECT)
    photos = PhotoSet((*crowd.photos, bad))
    selection = select.select(photos, 20)
    assert selection.photos.photos[-1] is bad and len(selection.picked) == 10
    assert select.report(selection, photos)["not_usable"] == ["bad"]


def test_photos_that_the_user_kept_come_first(crowd):
    own = dataclasses.replace(crowd.photos[0], overridden=True)
    selection = select.select(PhotoSet((own, *crowd.photos[1:])), 2)
    assert names(selection)[0] == own.name
    assert selection.picked[0].text == "You kept it yourself."


def test_an_own_doubt_is_not_an_own_keep(crowd):
    doubted = dataclasses.replace(crowd.photos[0], overridden=True, verdict=Verdict.UNSURE)
    selection = select.select(PhotoSet((doubted, *crowd.photos[1:])), 3, include_unsure=True)
    assert doubted.name not in names(selection)
    assert all(choice.text != "You kept it yourself." for choice in selection.choices)


@pytest.mark.parametrize("why", ["", "my favourite"])
def test_a_passed_photo_is_the_users_keep_again_when_it_is_judged_anew(folder, load_folder, why):
    photos = load_folder(folder)
    own = Overrides({photo.name: Override(Verdict.KEEP, why) for photo in photos.photos})
    judged = curate(photos, Rules(), lambda done: None, own)
    selected = select.select(judged, 1).photos
    passed = [photo for photo in selected.photos if photo.verdict is Verdict.REJECT]
    assert len(passed) == 2 and not any(photo.overridden for photo in passed)
    again = curate(selected, Rules(), lambda done: None)
    assert [(photo.verdict, photo.overridden) for photo in again.photos] == [("keep", True)] * 3
    assert [photo.reasons for photo in again.photos] == [photo.reasons for photo in judged.photos]


def test_only_the_picked_photos_stay_in(posed):
    """Unsure ones, ones with shut eyes and ones without a face are turned down with a reason."""
    unsure = dataclasses.replace(posed("unsure"), verdict=Verdict.UNSURE)
    shut = dataclasses.replace(posed("shut"), verdict=Verdict.UNSURE,
                               measures={**unsure.measures, "eyes_closed": 0.9})
    photos = PhotoSet((posed("a", sharpness=300), posed("b"), unsure, shut,
                       dataclasses.replace(posed("faceless"), face=None)))
    selection = select.select(photos, 1)
    assert [photo.name for photo in selection.photos.photos
            if photo.verdict is not Verdict.REJECT] == ["a"]
    said = select.report(selection, photos)["left_out"]
    assert set(said) == {"unsure", "shut", "faceless"}
    assert said["shut"].startswith("The eyes are shut") and "include_unsure" in said["unsure"]
    marked = {photo.name: photo for photo in select.select(photos, 1, 0.3, True).photos.photos}
    assert marked["shut"].reasons[-1].text == said["shut"]


def test_shut_eyes_that_the_user_kept_are_picked(posed):
    shut = dataclasses.replace(posed("shut", yaw=30), overridden=True, measures={
        **posed("shut").measures, "eyes_closed": 0.9})
    selection = select.select(PhotoSet((posed("a"), shut)), 1)
    assert names(selection) == ["shut"] == [photo.name for photo in selection.photos.kept]


@pytest.mark.parametrize(("low", "high"), [
    ({"face_width": 96}, {"face_width": 150}), ({"face_width": 300}, {"face_width": 512}),
    ({"sharpness": 40}, {"sharpness": 80}), ({"sharpness": 200}, {"sharpness": 400})])
def test_quality_rises_with_size_and_sharpness(posed, low, high):
    assert select.quality_of(posed("a", **low)) < select.quality_of(posed("b", **high)) - 0.05


def test_quality_ends_where_more_shows_no_more(posed):
    best = select.quality_of(posed("a", sharpness=400, face_width=512))
    assert best == 1 == select.quality_of(posed("b", sharpness=900, face_width=2000))
    assert select.quality_of(posed("c", sharpness=40, face_width=96)) == 0


def test_no_count_is_one_sentence(posed):
    with pytest.raises(LikenessError, match="count"):
        select.select(PhotoSet((posed("a"),)), 0)


def test_two_thousand_photos_take_seconds(posed):
    rng = np.random.default_rng(0)
    photos = tuple(posed(f"{n}", yaw=rng.normal(0, 25), pitch=rng.normal(5, 8),
                         sharpness=rng.uniform(40, 400)) for n in range(2000))
    started = time.process_time()
    selection = select.select(PhotoSet(photos), 25)
    assert len(selection.picked) == 25 and time.process_time() - started < 5


def test_cancel_stops_the_comparison(crowd):
    def cancel(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        select.select(crowd, 3, on_photo=cancel)


def test_cancel_stops_the_picking_too(crowd):
    calls = []

    def cancel(done):
        calls.append(done)
        if len(calls) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        select.select(crowd, 10, on_photo=cancel)
    assert calls == [10] * 4, "one block of comparisons, then the picking"


def test_the_sheet_shows_picked_and_passed(real):
    selection = select.select(PhotoSet(tuple(real.values())), 2)
    sheet = select.selection_sheet(selection)
    assert sheet.dtype == np.uint8 and sheet.shape[0] > 400
