"""Training sets in memory: latent scale, per-sample conditioning, groups, order of batches."""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import islice

import pytest
import torch
import training_models
from likeness.nodes.errors import LikenessError
from likeness.nodes.tensors import read_conditioning, write_conditioning, write_latent
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.samples import data, order

CPU = torch.device("cpu")


def _samples(name, folder, sizes=((16, 16), (16, 24), (16, 16)), recipe=None, **changes):
    base = training_models.make_model(name).model
    training_set = training_models.make_training_set(folder, name, sizes)
    training_set = dataclasses.replace(training_set, **changes)
    with torch.no_grad():
        return base, training_set, data.load_samples(base, training_set, recipe or LoRARecipe(),
                                                     CPU)


def _main_conds(sample):
    return sample.conds[sample.captions[0]]


@pytest.mark.parametrize("name", training_models.ARCHITECTURES)
def test_every_latent_of_a_mixed_size_set_is_at_the_models_scale(name, tmp_path):
    base, training_set, samples = _samples(name, tmp_path)
    for item, sample in zip(training_set.items, samples, strict=True):
        raw, mask = data.read_latent(item.latent_file)
        assert torch.equal(sample.latent, base.latent_format.process_in(raw[None])[0])
        assert not torch.equal(sample.latent, raw)
        assert torch.equal(sample.mask, mask)


def test_samples_of_one_shape_share_a_group(tmp_path):
    _, _, samples = _samples("sd15", tmp_path)
    assert order.group_samples(samples) == [[0, 2], [1]]


def test_sdxl_is_told_each_photos_own_size_and_crop(tmp_path):
    base, training_set, samples = _samples("sdxl", tmp_path)
    for item, sample in zip(training_set.items, samples, strict=True):
        numbers = (1500, 1000, 100, 50, item.bucket[1], item.bucket[0])
        expected = torch.cat([base.embedder(torch.tensor([float(value)])) for value in numbers])
        assert torch.equal(_main_conds(sample)["y"].cond[0, 64:], expected.flatten())
    first, second = (_main_conds(sample)["y"].cond[0, 64:] for sample in samples[:2])
    assert not torch.equal(first, second)


def test_photos_that_share_a_caption_keep_their_own_sizes(tmp_path):
    _, training_set, _ = _samples("sdxl", tmp_path)
    alike = tuple(dataclasses.replace(item, caption="one", conditioning_key="caption 0")
                  for item in training_set.items)
    base, _, samples = _samples("sdxl", tmp_path, items=alike)
    for caption in (samples[0].captions[0], data.EMPTY_CAPTION):
        first, second = (sample.conds[caption]["y"].cond for sample in samples[:2])
        assert torch.equal(first[0, :64], second[0, :64])  # the text
        for item, own in ((alike[0], first), (alike[1], second)):
            width, height = item.bucket
            told = torch.cat([base.embedder(torch.tensor([float(value)]))
                              for value in (height, width)])
            assert torch.equal(own[0, -told.numel():], told.flatten())


def test_flux_trains_at_guidance_one(tmp_path):
    _, _, samples = _samples("flux", tmp_path)
    assert all(_main_conds(sample)["guidance"].cond.tolist() == [1.0] for sample in samples)


def test_a_recipes_guidance_is_what_the_model_is_told(tmp_path):
    *_, samples = _samples("flux", tmp_path, recipe=LoRARecipe(guidance=3.5))
    assert all(found["guidance"].cond.tolist() == [3.5]
               for sample in samples for found in sample.conds.values())


def test_a_batch_has_one_row_of_its_own_caption_per_sample(tmp_path):
    _, training_set, samples = _samples("flux", tmp_path)
    chosen = [samples[2], samples[0]]
    batch = data.collate(chosen, data.main_captions(chosen), CPU)
    assert batch.photos == ("photo2.jpg", "photo0.jpg")
    assert batch.latents.shape[0] == batch.masks.shape[0] == 2
    for row, index in enumerate((2, 0)):
        (tokens, options), = data.read_conditioning(training_set.conditionings[f"caption {index}"])
        assert torch.equal(batch.conds["c_crossattn"][row], tokens[0])
        assert torch.equal(batch.conds["y"][row], options["pooled_output"][0])


def test_a_dropped_caption_is_the_empty_one(tmp_path):
    _, training_set, samples = _samples("sd15", tmp_path)
    batch = data.collate(samples[:1], [data.EMPTY_CAPTION], CPU)
    (tokens, _), = data.read_conditioning(training_set.conditionings[""])
    assert torch.equal(batch.conds["c_crossattn"], tokens)


def test_captions_of_different_length_go_into_one_batch_on_sd15(tmp_path):
    base, training_set, samples = _samples("sd15", tmp_path, ((16, 16), (16, 16)))
    longer = data.conds.model_conds(base, [[torch.randn(1, 24, 64), {}]], training_set.items[1],
                                    samples[1].latent[None], 1.0, CPU)
    assert data.conds.compatible(_main_conds(samples[0]), longer)
    joined = data.conds.batch([_main_conds(samples[0]), longer], CPU)
    assert joined["c_crossattn"].shape == (2, 24, 64)


def test_photos_train_equally_often_whatever_their_shapes():
    groups, size = [[0, 1, 2], [3], [4, 5]], 4
    seen = Counter()
    for batch in islice(order.batch_order(groups, size, seed=1), 60):
        assert len(batch) == size
        assert any(set(batch) <= set(group) for group in groups)
        seen.update(batch)
    assert max(seen.values()) - min(seen.values()) <= size


def test_an_epoch_shows_each_photo_once_in_an_order_from_the_seed():
    drawn = [batch[0] for batch in islice(order.batch_order([[0, 1, 2, 3]], 1, seed=9), 12)]
    assert all(sorted(drawn[start:start + 4]) == [0, 1, 2, 3] for start in (0, 4, 8))
    torch.manual_seed(123)
    again = [batch[0] for batch in islice(order.batch_order([[0, 1, 2, 3]], 1, seed=9), 12)]
    other = [batch[0] for batch in islice(order.batch_order([[0, 1, 2, 3]], 1, seed=10), 12)]
    assert drawn == again != other
    assert len({tuple(drawn[start:start + 4]) for start in (0, 4, 8)}) > 1


def test_latents_of_another_vae_are_refused(tmp_path):
    base = training_models.make_model("flux").model
    training_set = training_models.make_training_set(tmp_path, "sd15")
    with pytest.raises(LikenessError, match="has 4 channels, the model takes 16"):
        data.load_samples(base, training_set, LoRARecipe(), CPU)


def test_a_mask_of_another_size_than_its_latent_is_refused(tmp_path):
    base, training_set, _ = _samples("sd15", tmp_path)
    path = training_set.items[1].latent_file
    latent, mask = data.read_latent(path)
    write_latent(path, latent, mask[:8])
    with pytest.raises(LikenessError, match="mask of photo1.jpg does not fit its latent"):
        data.load_samples(base, training_set, LoRARecipe(), CPU)


def test_an_empty_set_is_refused(tmp_path):
    with pytest.raises(LikenessError, match="no photos"):
        _samples("sd15", tmp_path, items=())


def test_caption_dropout_without_an_empty_caption_is_refused(tmp_path):
    _, training_set, _ = _samples("sd15", tmp_path)
    captions = {key: path for key, path in training_set.conditionings.items() if key}
    with pytest.raises(LikenessError, match="caption_dropout"):
        _samples("sd15", tmp_path, conditionings=captions)
    *_, samples = _samples("sd15", tmp_path, conditionings=captions,
                           recipe=LoRARecipe(caption_dropout=0.0))
    assert len(samples) == 3


def test_a_set_whose_files_are_gone_says_so(tmp_path):
    base, training_set, _ = _samples("sd15", tmp_path)
    training_set.items[1].latent_file.unlink()
    with pytest.raises(LikenessError, match="incomplete .* queue the workflow again"):
        data.load_samples(base, training_set, LoRARecipe(), CPU)


@pytest.mark.parametrize("kind", ["latent", "text"])
def test_a_damaged_cached_file_is_one_sentence_that_names_it(kind, tmp_path):
    model = training_models.make_model("flux")
    training_set = training_models.make_training_set(tmp_path, "flux")
    item = training_set.items[1]
    path = (item.latent_file if kind == "latent"
            else training_set.conditionings[item.conditioning_key])
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(LikenessError, match=rf"{path.name} is damaged \(.*\); queue") as caught:
        data.load_samples(model.model, training_set, LoRARecipe(), training_models.CPU)
    assert "\n" not in str(caught.value)


def _posed(samples, yaws):
    return [dataclasses.replace(sample, item=dataclasses.replace(sample.item, yaw=yaw))
            for sample, yaw in zip(samples, yaws, strict=True)]


def test_rare_poses_come_as_often_as_common_ones_up_to_three_times(tmp_path):
    samples = _posed(_samples("sd15", tmp_path, ((16, 16),) * 6)[2], (0, 1, 2, -3, 30, 60))
    assert order.repeats(samples, balance=True) == [1, 1, 1, 1, 3, 3]
    assert order.repeats(samples, balance=False) == [1] * 6
    drawn = Counter(batch[0] for batch in islice(
        order.batch_order(order.group_samples(samples), 1, 1, order.repeats(samples, True)), 100))
    assert drawn == {0: 10, 1: 10, 2: 10, 3: 10, 4: 30, 5: 30}


def test_captions_are_drawn_among_a_photos_own_and_dropped_by_share(tmp_path):
    _, _, samples = _samples("sd15", tmp_path, ((16, 16),) * 2)
    first = dataclasses.replace(samples[0], captions=("caption 0", "other"),
                                conds={**samples[0].conds, "other": samples[0].conds["caption 0"]})
    recipe = LoRARecipe(caption_dropout=0.25)
    drawn = Counter(data.choose_captions([first], recipe, data.seeded(step))[0]
                    for step in range(400))
    assert set(drawn) == {"", "caption 0", "other"}
    assert 70 < drawn[""] < 130 and abs(drawn["caption 0"] - drawn["other"]) < 60


def test_a_model_whose_text_encoder_gives_no_pooled_text_trains(tmp_path):
    training_set = training_models.make_training_set(tmp_path, "chroma")
    for path in training_set.conditionings.values():
        (tokens, options), = read_conditioning(path)
        write_conditioning(path, [[tokens, {**options, "pooled_output": None}]])
    base = training_models.make_model("chroma").model
    with torch.no_grad():
        samples = data.load_samples(base, training_set, LoRARecipe(), CPU)
    assert "c_crossattn" in _main_conds(samples[0])


def test_captions_without_pooled_text_are_named_where_the_model_needs_it(tmp_path):
    training_set = training_models.make_training_set(tmp_path, "sdxl")
    for path in training_set.conditionings.values():
        (tokens, options), = read_conditioning(path)
        write_conditioning(path, [[tokens, {**options, "pooled_output": None}]])
    base = training_models.make_model("sdxl").model
    with pytest.raises(LikenessError, match="no pooled text.*its own CLIP"), torch.no_grad():
        data.load_samples(base, training_set, LoRARecipe(), CPU)


def test_the_class_word_needs_its_captions_of_the_person_alone(tmp_path):
    base, training_set, _ = _samples("sd15", tmp_path)
    recipe = LoRARecipe(class_word_weight=1.0)
    with torch.no_grad():
        assert len(data.load_samples(base, training_set, recipe, CPU, of_class=True)) == 3
        with pytest.raises(LikenessError, match="no captions with the class word.*class_word_wei"):
            data.load_samples(base, training_set, recipe, CPU)
