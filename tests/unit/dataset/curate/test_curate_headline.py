"""The headline says of the people on the photos what their cards say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from likeness.nodes.dataset.curate.curate import count_rules
from likeness.nodes.dataset.curate.identity_clusters import Pick
from likeness.nodes.dataset.curate.people import STRANGER, stranger_reasons
from likeness.nodes.dataset.curate.report import report
from likeness.nodes.quality.rules import Rules
from likeness.nodes.sockets import Face, HeadPose, Photo, PhotoSet, Reason, Verdict

FACE = Face((0, 0, 9, 9), np.zeros((478, 3), np.float32), np.zeros((478, 3), np.float32),
            HeadPose(0, 0, 0))


def photo(name, reasons=(), face=FACE, overridden=False, **measures):
    worst = max((reason.verdict for reason in reasons), default=Verdict.KEEP,
                key=list(Verdict).index)
    return Photo(Path(name), name, "0", 900, 900, worst, tuple(reasons), face, measures,
                 overridden=overridden)


def judged(*distances, stands_out=True):
    """Photos whose faces lie at these distances from the others, with the reasons of the judge."""
    limit = Rules().stranger[1]
    picks = [Pick(0, 1 if distance <= limit else 2 + place, distance if stands_out else None)
             for place, distance in enumerate(distances)]
    reasons = stranger_reasons(picks, stands_out, Rules())
    return [photo(f"{place}.jpg", [reason] if reason else [], person=float(pick.person),
                  **({"distance": pick.distance} if stands_out else {}))
            for place, (pick, reason) in enumerate(zip(picks, reasons, strict=True))]


def said_of(photos):
    return report(PhotoSet(tuple(photos)), Rules())


def test_all_are_the_same_person_only_when_no_card_doubts_it():
    data = said_of(judged(0.3, 0.3, 0.4))
    assert data["summary"] == "All 3 photos whose face can be compared show the same person."
    data = said_of(judged(0.3, 0.3, 0.55))
    assert data["summary"] == "2 photos show one person, 1 may show somebody else: 2.jpg."
    assert data["people"] == [["0.jpg", "1.jpg"]] and data["doubtful"] == ["2.jpg"]


@pytest.mark.parametrize("distances", [
    (0.3, 0.3), (0.3, 0.3, 0.55), (0.3, 0.3, 0.55, 0.57, 0.6), (0.55, 0.55),
    (0.3, 0.3, 0.7, 0.8, 0.9), (0.2,) * 8 + (0.55,) * 6 + (0.9,) * 7])
def test_every_count_of_the_headline_is_that_of_the_cards(distances):
    photos = judged(*distances)
    cards = [next((reason.verdict.value for reason in one.reasons if reason.rule == STRANGER),
                  "own") for one in photos]
    data = said_of(photos)
    assert len(data["people"][0]) == cards.count("own")
    assert len(data["doubtful"]) == cards.count("unsure")
    assert sum(map(len, data["people"][1:])) == cards.count("reject")
    words = data["summary"]
    if cards.count("own"):
        assert f"{cards.count('own')} photos" in words
    for count, phrase in ((cards.count("unsure"), "may show"), (cards.count("reject"), "other p")):
        assert (f"{count} {phrase}" in words) == bool(count)


def test_two_photos_that_doubt_each_other_are_not_called_one_person():
    assert said_of(judged(0.55, 0.55))["summary"] == (
        "Of the photos 2 may show the same person or somebody else: 0.jpg, 1.jpg.")


def test_without_a_majority_every_photo_is_somebodys():
    data = said_of(judged(0.9, 0.9, stands_out=False))
    assert data["summary"].startswith("The photos show 2 different people, none in a majority")
    assert data["doubtful"] == [] and len(data["people"]) == 2


UNREADABLE = Reason("unreadable", "The file cannot be read.")
FACELESS = Reason("no_face", "No face can be found.")
BLURRED = Reason("blurred", "The face is blurred.")


@pytest.mark.parametrize(("photos", "start"), [
    ([photo("a", [UNREADABLE], None)], "The photo cannot be read;"),
    ([photo("a", [UNREADABLE], None)] * 3, "None of the 3 photos can be read;"),
    ([photo("a", [UNREADABLE], None), *[photo("b", [FACELESS], None)] * 2],
     "No face can be found in any of the 2 photos that can be read;"),
    ([photo("a", [FACELESS], None)], "No face can be found in the photo;"),
    ([photo("a")], "Only one photo shows a usable face"),
    ([photo("a", [BLURRED])], "No photo shows a face that is good enough"),
    ([photo("a", [BLURRED])] * 3, "No photo shows a face that is good enough"),
    ([photo("a"), photo("b", [BLURRED])], "Only one photo shows a usable face"),
], ids=range(8))
def test_what_cannot_be_told_is_said_as_the_cards_say_it(photos, start):
    assert said_of(photos)["summary"].startswith(start)


def test_a_photo_counts_once_for_a_rule_however_often_it_speaks():
    twice = [Reason("turned", "aside", Verdict.UNSURE), Reason("turned", "down", Verdict.UNSURE)]
    assert count_rules(PhotoSet((photo("a", twice), photo("b", twice[:1])))) == {"turned": 2}
