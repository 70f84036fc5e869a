"""Who is in the photos: groups, the subject's face among several, sentences, many photos."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from likeness.nodes.dataset.curate import curate as curation
from likeness.nodes.dataset.curate.curate import curate
from likeness.nodes.dataset.curate.duplicates import find_duplicates
from likeness.nodes.dataset.curate.identity_clusters import group, pairwise, pick_faces
from likeness.nodes.dataset.curate.people import stranger_reasons
from likeness.nodes.dataset.curate.report import report, shown
from likeness.nodes.dataset.curate.sheet import curation_sheet
from likeness.nodes.quality import look as looking
from likeness.nodes.quality.look import Seen
from likeness.nodes.quality.rules import Rules
from likeness.nodes.sockets import Face, HeadPose, Photo, PhotoSet
from PIL import Image

GOOD = {"faces": 1.0, "face_rank": 1.0, "second_face": 0.0, "face_width": 300.0,
        "eyes_apart": 134.0, "photo_side": 1000.0, "sharpness": 300.0, "highlights": 200.0,
        "clipped_bright": 0.0, "strokes": 0.0, "even": 0.0,
        "lines": 6.0, "outside": 0.0, "eyes_closed": 0.1, "occlusion": 0.0,
        "covered_eyes": 0.0, "covered_mouth": 0.0, "covered_hand": 0.0, "compression": 1.0,
        "enlargement": 1.1}


def people(counts, seed=0):
    """Embeddings (N, 128) as the recogniser spreads them: so many photos of each person."""
    random = np.random.default_rng(seed)
    rows = []
    for count in counts:
        centre = random.normal(0, 0.6 / np.sqrt(128), 128)
        rows += [centre + random.normal(0, 0.25 / np.sqrt(128), 128) for _ in range(count)]
    return np.float32(rows)


def synthetic(rows, seed=1):
    """Seen records of good photos with these embeddings, each of another moment."""
    random = np.random.default_rng(seed)
    face = Face((0, 0, 300, 300), np.zeros((478, 3), np.float32), np.zeros((478, 3), np.float32),
                HeadPose(0.0, 0.0, 0.0))
    return [Seen(face, MappingProxyType(GOOD), row, random.random(64) < 0.5,
                 mirrored=random.random(64) < 0.5) for row in rows]


@pytest.mark.parametrize("counts", [(5, 3), (7, 1), (6, 1, 1), (5, 1, 1, 1), (20, 19)])
def test_the_largest_group_is_the_person_and_the_rest_are_not(counts):
    seen = synthetic(people(counts))
    picks, stands_out = pick_faces(seen, lambda face: True, Rules())
    assert stands_out
    assert [pick.person == 1 for pick in picks] == [True] * counts[0] + [False] * sum(counts[1:])
    assert all((pick.distance > Rules().stranger[1]) == (pick.person != 1) for pick in picks)


@pytest.mark.parametrize("counts", [(1, 1), (4, 4), (1,) * 8, (2,) + (1,) * 38])
def test_without_a_larger_group_nobody_stands_out(counts):
    _, stands_out = pick_faces(synthetic(people(counts)), lambda face: True, Rules())
    assert not stands_out


def test_groups_beyond_a_sample_are_the_same_people():
    counts = (1500, 900, 300, 50)
    labels = group(people(counts), 0.55)
    edges = np.cumsum((0, *counts))
    for start, end in zip(edges, edges[1:], strict=False):
        assert len(set(labels[start:end].tolist())) == 1
    assert len(set(labels.tolist())) == len(counts)


def test_pairwise_distances_are_those_of_the_rows():
    a, b = people((3,)), people((4,), seed=3)
    expected = np.linalg.norm(a[:, None] - b[None], axis=2)
    assert np.allclose(pairwise(a, b), expected, atol=1e-5)


def lying(distances, closed):
    """Seen records of one person's ten photos and of others so far away from their centre."""
    own = people((10,))
    centre = own.mean(0)
    random = np.random.default_rng(5)
    aside = random.normal(0, 1, (len(distances), 128))
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    others = np.float32(centre + aside * np.array(distances)[:, None])
    seen = synthetic(np.concatenate([own, others]))
    return [*seen[:10], *(Seen(one.face, {**GOOD, "eyes_closed": closed}, one.embedding,
                               one.pattern, mirrored=one.mirrored) for one in seen[10:])]


@pytest.mark.parametrize(("distance", "opened", "shut"), [
    (0.40, None, None), (0.55, "unsure", None), (0.61, "reject", "unsure"),
    (0.66, "reject", "reject"), (0.9, "reject", "reject")])
def test_shut_eyes_are_allowed_a_little_more_and_strangers_stay_out(distance, opened, shut):
    for closed, verdict in ((0.1, opened), (0.6, shut)):
        picks, stands_out = pick_faces(lying([distance], closed), lambda face: True, Rules())
        reason = stranger_reasons(picks, stands_out, Rules())[-1]
        assert (reason and reason.verdict.value) == verdict
        assert (picks[-1].person == 1) == (verdict != "reject")
        if verdict == "unsure":
            assert ("or the shut eyes make it look so" in reason.text) == (closed > 0.3)


def two_people(assets, folder):
    with Image.open(assets / "obama.jpg") as mine, Image.open(assets / "biden2.jpg") as other:
        both = Image.new("RGB", (1900, 1137), "grey")
        both.paste(mine.resize((520, 650)), (1300, 300))
        both.paste(other.resize((1000, 1000)), (50, 50))
    both.save(folder / "both.jpg", quality=95)


def test_the_face_chosen_is_the_subjects_and_not_the_largest(folder, judge, assets):
    two_people(assets, folder)
    photo = judge(several_faces="subject", duplicate_bits=-1)["both.jpg"]
    assert photo.face.box[0] > 1300 and photo.measures["face_rank"] == 2
    assert photo.verdict == "keep" and photo.measures["person"] == 1
    largest = judge(several_faces="largest", duplicate_bits=-1)["both.jpg"]
    assert largest.face.box[0] < 1000
    assert [reason.rule for reason in largest.reasons] == ["somebody_else"]


def test_the_report_says_which_face_was_judged(folder, load_folder, assets):
    two_people(assets, folder)
    rules = Rules(several_faces="subject", duplicate_bits=-1)
    data = report(curate(load_folder(folder), rules, lambda done: None), rules)
    entries = {entry["name"]: entry["face"] for entry in data["photos"]}
    assert entries["both.jpg"] == "number 2 of 2 by size, the one most like the other photos"
    assert entries["good_obama.jpg"] == "the only one"


def copied(assets, folder, names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}.jpg").write_bytes((assets / f"{name}.jpg").read_bytes())
    return folder


def test_photos_of_different_people_are_named_by_person(assets, tmp_path, load_folder):
    place = copied(assets, tmp_path / "mixed", ("obama", "obama3", "biden", "biden2"))
    data = report(curate(load_folder(place), Rules(), lambda done: None), Rules())
    assert sorted(data["people"]) == [["biden.jpg", "biden2.jpg"], ["obama.jpg", "obama3.jpg"]]
    assert data["kept"] == 0
    assert data["summary"].startswith("The photos show 2 different people, none in a majority: ")
    assert "obama.jpg, obama3.jpg" in data["summary"]


def test_strangers_are_named_in_the_summary(folder, load_folder, assets):
    (folder / "guest.jpg").write_bytes((assets / "biden2.jpg").read_bytes())
    data = report(curate(load_folder(folder), Rules(), lambda done: None), Rules())
    assert data["summary"] == "3 photos show one person, 1 other person is on: guest.jpg."


def test_one_photo_works_and_says_what_cannot_be_known(assets, tmp_path, load_folder):
    place = copied(assets, tmp_path / "one", ("obama",))
    judged = curate(load_folder(place), Rules(), lambda done: None)
    assert judged.photos[0].verdict == "keep"
    assert "Only one photo shows a usable face" in report(judged, Rules())["summary"]


def test_no_face_anywhere_is_said_and_every_photo_is_listed(tmp_path, load_folder):
    for number in range(3):
        Image.new("RGB", (300, 300), (number * 60, 90, 120)).save(tmp_path / f"{number}.png")
    judged = curate(load_folder(tmp_path), Rules(), lambda done: None)
    data = report(judged, Rules())
    assert data["summary"].startswith("No face can be found in any of the 3 photos;")
    assert data["rejected"] == len(data["photos"]) == 3
    assert curation_sheet(judged, data["summary"]).ndim == 3


def test_a_file_that_changed_since_loading_is_not_judged_as_the_old_one(load_folder, folder,
                                                                       assets):
    photos = load_folder(folder)
    (folder / "good_obama.jpg").write_bytes((assets / "astronaut.jpg").read_bytes())
    looking.forget_photos()
    judged = {photo.name: photo for photo in curate(photos, Rules(), lambda done: None).photos}
    (reason,) = judged["good_obama.jpg"].reasons
    assert reason.rule == "unreadable" and "changed since it was loaded" in reason.text


@pytest.mark.parametrize("distance", [0.2, 0.3])
def test_an_equal_pattern_is_a_duplicate_only_with_a_like_face(distance):
    first, second = synthetic(np.zeros((2, 128), np.float32))
    other = np.zeros(128, np.float32)
    other[0] = distance
    second = Seen(second.face, GOOD, other, first.pattern, mirrored=second.mirrored)
    found = find_duplicates([first, second], [0, 1], Rules())
    assert found == ({1: (0, False)} if distance == 0.2 else {})


def test_an_equal_pattern_in_another_pose_is_another_shot():
    first, second = synthetic(np.zeros((2, 128), np.float32))
    turned = Face(second.face.box, second.face.landmarks, second.face.mesh, HeadPose(25, 0, 0))
    second = Seen(turned, GOOD, second.embedding, first.pattern, mirrored=second.mirrored)
    assert find_duplicates([first, second], [0, 1], Rules()) == {}


def test_a_mirror_image_is_a_duplicate_and_says_so(folder, judge, portrait):
    from PIL import ImageOps

    ImageOps.mirror(portrait).save(folder / "mirrored.jpg", quality=88)
    (reason,) = judge()["mirrored.jpg"].reasons
    assert reason.rule == "duplicate" and reason.text.startswith("The mirror image of good_obama")


def test_five_thousand_photos_take_seconds_and_little_memory(monkeypatch, tmp_path):
    seen = synthetic(people((4000, 600, 300, 100)))
    photos = [Photo(tmp_path / f"{place}.jpg", f"{place}.jpg", str(place), 900, 900)
              for place in range(len(seen))]
    monkeypatch.setattr(curation, "look", lambda file, sha256: seen[int(sha256)])
    done = []
    tracemalloc.start()
    start = time.process_time()
    judged = curate(PhotoSet(tuple(photos)), Rules(), done.append)
    took, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert done == list(range(1, 5001))
    assert len(judged.kept) == 4000
    assert took < 60 and peak < 200e6, (took, peak)
    data = shown(report(judged, Rules()))
    assert len(data["photos"]) == 200 and "file" in data["notes"][-1]
    assert data["photos"][0]["verdict"] == "reject"


def test_the_sheet_of_very_many_photos_is_bounded(tmp_path):
    photos = PhotoSet(tuple(Photo(Path(f"{n}.jpg"), f"{n}.jpg") for n in range(5000)))
    assert curation_sheet(photos).nbytes < 80e6
