"""Other people among a person's photos, and several people in one: from files to verdicts."""

from __future__ import annotations

import numpy as np
import pytest
from likeness.nodes.dataset.curate.curate import curate
from likeness.nodes.quality.rules import Rules
from PIL import Image, ImageEnhance, ImageOps

SIZE = 8
# What one person's photos may differ by; the first of each person's photos is as it came.
VARIANTS = (
    lambda picture: picture,
    lambda picture: ImageEnhance.Brightness(picture).enhance(0.8),
    lambda picture: picture.rotate(7, Image.Resampling.BICUBIC),
    lambda picture: ImageOps.mirror(picture),
)
OWN = [(name, variant) for variant in range(4) for name in ("obama", "obama3")]
STRANGERS = {
    "three people": [("biden2", 0), ("astronaut", 0), ("biden", 0)],
    "one person": [("biden2", 0), ("biden", 0), ("biden2", 2)],
}


def write(folder, assets, chosen, prefix):
    """Write variants of the assets as JPEG files; return their names."""
    names = []
    for number, (name, variant) in enumerate(chosen):
        with Image.open(assets / f"{name}.jpg") as picture:
            made = VARIANTS[variant](picture.convert("RGB"))
        names.append(f"{prefix}_{number}.jpg")
        made.save(folder / names[-1], quality=92)
    return names


def curated(load_folder, folder, **rules):
    judged = curate(load_folder(folder), Rules(**rules), lambda done: None)
    return {photo.name: photo for photo in judged.photos}


def flagged(photos, verdict="reject"):
    return {name for name, photo in photos.items()
            if any(reason.rule == "somebody_else" and reason.verdict == verdict
                   for reason in photo.reasons)}


@pytest.mark.parametrize("kind", list(STRANGERS))
@pytest.mark.parametrize("count", [1, 2, 3])
def test_exactly_the_strangers_among_eight_photos_are_turned_down(
        assets, tmp_path, load_folder, count, kind):
    write(tmp_path, assets, OWN[:SIZE - count], "own")
    strangers = write(tmp_path, assets, STRANGERS[kind][:count], "stranger")
    photos = curated(load_folder, tmp_path, duplicate_bits=-1)
    assert len(photos) == SIZE
    assert flagged(photos) == set(strangers)
    assert not flagged(photos, "unsure")
    assert all(photos[name].verdict == "reject" for name in strangers)


def test_the_order_of_the_files_does_not_decide_who_the_person_is(assets, tmp_path, load_folder):
    strangers = write(tmp_path, assets, STRANGERS["one person"], "a_stranger")
    write(tmp_path, assets, OWN[:5], "own")
    assert flagged(curated(load_folder, tmp_path, duplicate_bits=-1)) == set(strangers)


def test_four_against_four_is_nobodys_majority(assets, tmp_path, load_folder):
    own = write(tmp_path, assets, OWN[:4], "own")
    others = write(tmp_path, assets, [*STRANGERS["one person"], ("biden", 2)], "other")
    photos = curated(load_folder, tmp_path, duplicate_bits=-1)
    assert flagged(photos, "unsure") == {*own, *others}
    assert not any(photo.verdict == "keep" for photo in photos.values())


@pytest.fixture
def beside_each_other(assets, tmp_path):
    """Four photos of one person, and one in which a larger somebody else stands beside them."""
    write(tmp_path, assets, OWN[:4], "own")
    with Image.open(assets / "biden2.jpg") as left, Image.open(assets / "obama3.jpg") as right:
        halves = [left.convert("RGB"), right.convert("RGB")]
    height = max(half.height for half in halves)
    both = Image.new("RGB", (sum(half.width for half in halves), height), "grey")
    both.paste(halves[0], (0, 0))
    both.paste(halves[1], (halves[0].width, 0))
    both.save(tmp_path / "two.jpg", quality=92)
    return halves[0].width


@pytest.mark.parametrize("policy", ["reject", "unsure"])
def test_a_photo_of_two_people_gets_the_verdict_that_was_asked_for(
        beside_each_other, tmp_path, load_folder, policy):
    photo = curated(load_folder, tmp_path, several_faces=policy, second_face=0.2)["two.jpg"]
    (reason,) = [one for one in photo.reasons if one.rule == "several_faces"]
    assert reason.verdict == policy


def test_beside_a_larger_stranger_the_persons_own_face_is_taken(
        beside_each_other, tmp_path, load_folder):
    photos = curated(load_folder, tmp_path, several_faces="subject", duplicate_bits=-1)
    photo = photos["two.jpg"]
    assert photo.face.box[0] > beside_each_other, "the face on the right is the person's"
    assert photo.verdict == "keep", photo.reasons
    centre = np.mean([photos[f"own_{number}.jpg"].embedding for number in range(4)], axis=0)
    assert np.linalg.norm(photo.embedding - centre) < 0.4


def test_the_largest_face_is_taken_when_asked_and_then_is_a_stranger(
        beside_each_other, tmp_path, load_folder):
    photos = curated(load_folder, tmp_path, several_faces="largest")
    assert photos["two.jpg"].face.box[0] < beside_each_other
    assert flagged(photos) == {"two.jpg"}
