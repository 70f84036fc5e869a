"""Copies of one shot: turned, tilted and cut ones are found, and the sound one stays."""

from __future__ import annotations

import numpy as np
import pytest
from likeness.nodes.dataset.curate.curate import curate
from likeness.nodes.dataset.curate.duplicates import _same_pose, _turn, find_duplicates
from likeness.nodes.faces.turned import turn_pose
from likeness.nodes.quality.look import Seen
from likeness.nodes.quality.rules import Rules
from likeness.nodes.sockets import Face, HeadPose
from PIL import Image


def posed(pose):
    face = Face((0, 0, 9, 9), np.zeros((478, 3), np.float32), np.zeros((478, 3), np.float32), pose)
    return Seen(face, {})


@pytest.mark.parametrize("turns", [0.25, 0.5, 1, 2, 3])
def test_turning_a_picture_turns_no_head(turns):
    pose = HeadPose(30.0, -12.0, 8.0)
    assert _turn(posed(turn_pose(pose, turns))) == pytest.approx(_turn(posed(pose)), abs=1e-6)


def test_an_upright_head_is_turned_as_its_pose_says():
    assert _turn(posed(HeadPose(30.0, 0.0, 0.0))) == pytest.approx((30, 0))
    assert _turn(posed(HeadPose(0.0, 20.0, 0.0))) == pytest.approx((0, 20))


def test_poses_beyond_the_limit_are_not_the_same():
    limit = Rules().duplicate_turn
    turns = np.array([(0, 0), (limit - 1, 0), (limit + 1, 0), (0, limit + 1)])
    assert _same_pose(turns, np.zeros(2), Rules()).tolist() == [True, True, False, False]


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_sideways_copy_is_the_same_shot(folder, judge, portrait, turn):
    portrait.rotate(turn, expand=True).save(folder / "sideways.jpg", quality=95)
    photo = judge()["sideways.jpg"]
    assert "duplicate" in [reason.rule for reason in photo.reasons]


def test_a_copy_tilted_into_black_corners_loses_to_the_original(folder, judge, portrait):
    portrait.rotate(30, Image.Resampling.BICUBIC).save(folder / "tilted.png")
    assert [reason.rule for reason in judge()["tilted.png"].reasons] == ["duplicate"]


def test_comparing_photos_can_be_cancelled(folder, load_folder):
    def cancel():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        curate(load_folder(folder), Rules(), lambda done: None, check=cancel)


def test_all_copies_name_the_first_of_their_own_shot():
    random = np.random.default_rng(0)
    shots = [(random.random(64) < 0.5, np.float32(random.normal(0, 1, 128))) for _ in range(3)]
    seen = [Seen(None, {}, row, pattern) for pattern, row in (shots[n] for n in (0, 1, 2, 1, 0, 2))]
    assert find_duplicates(seen, [5, 0, 1, 2, 3, 4], Rules()) == {
        2: (5, False), 3: (1, False), 4: (0, False)}
