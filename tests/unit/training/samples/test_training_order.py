"""Which photos come how often, beside which others, and with which of their captions."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
import training_models
from likeness.nodes.sockets import TrainingItem
from likeness.nodes.tensors import read_conditioning, write_conditioning
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.samples import data, order


def _looking(yaw: float, pitch: float = 0.0) -> data.Sample:
    item = TrainingItem("photo.jpg", "0" * 64, "caption", (128, 128), (128, 128),
                        (0.0, 0.0, 128.0, 128.0), Path("photo"), "caption", yaw=yaw, pitch=pitch)
    return data.Sample(item, torch.zeros(4, 16, 16), torch.zeros(16, 16), ("caption",), {})


def test_each_way_of_turning_the_head_is_a_pose_of_its_own():
    directions = [(yaw, pitch) for yaw in (-60, -30, 0, 30, 60) for pitch in (-20, 0, 20)]
    bins = [order.pose_bin(_looking(yaw, pitch)) for yaw, pitch in directions]
    assert len(set(bins)) == len(directions)
    for yaw, pitch in directions:
        assert order.pose_bin(_looking(yaw + 5, pitch + 5)) == order.pose_bin(_looking(yaw, pitch))


def test_a_rare_pose_comes_the_nearest_whole_number_of_times():
    samples = [*map(_looking, (0, 1, 2, 3, 4)), *map(_looking, (30, 31, 32))]
    assert order.repeats(samples, balance=True) == [1] * 5 + [2] * 3  # 5 / 3 is nearer to 2


def test_repeats_belong_to_their_photos_whatever_group_these_are_in():
    drawn = Counter(batch[0] for batch in islice(
        order.batch_order([[0, 2], [1, 3]], 1, 1, [1, 3, 2, 1]), 70))
    assert drawn == {0: 10, 1: 30, 2: 20, 3: 10}


def test_photos_of_several_shapes_come_mixed_and_not_shape_by_shape():
    groups = [list(range(8)), list(range(8, 16))]
    drawn = [batch[0] < 8 for batch in islice(order.batch_order(groups, 1, seed=1), 16)]
    assert sum(one != other for one, other in zip(drawn, drawn[1:], strict=False)) > 3


@pytest.fixture
def uneven(tmp_path):
    """Photos for a model whose captions of different lengths cannot share a batch.

    The second of two photos with short captions has a long one too, the third photo no other.
    """
    made = training_models.make_training_set(tmp_path, "flux")
    path = made.conditionings["caption 2"]
    (tokens, options), = read_conditioning(path)
    write_conditioning(path, [[tokens.repeat(1, 2, 1), options]])
    with torch.no_grad():
        samples = data.load_samples(training_models.make_model("flux").model, made, LoRARecipe(),
                                    training_models.CPU)
    first, second, third = samples
    both = {**second.conds, "caption 2": third.conds["caption 2"]}
    return [first, data.Sample(second.item, second.latent, second.mask,
                               ("caption 1", "caption 2"), both), third]


def test_captions_that_cannot_share_a_batch_are_in_groups_of_their_own(uneven):
    assert order.group_samples(uneven) == [[0, 1], [2]]


def test_where_drawn_captions_cannot_share_a_batch_every_photo_takes_its_first(uneven):
    recipe = LoRARecipe(caption_dropout=0.3)
    drawn = Counter(data.choose_captions(uneven[:2], recipe, data.seeded(step))
                    for step in range(400))
    assert set(drawn) == {("caption 0", "caption 1"), ("", "caption 1"), ("caption 0", ""),
                          ("", "")}
    for captions in drawn:
        data.collate(uneven[:2], captions, training_models.CPU)
    # The first photo's own draw decides for both, so that the empty caption is not lost.
    assert 0.25 < sum(count for (one, _), count in drawn.items() if one == "") / 400 < 0.35
