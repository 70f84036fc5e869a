"""What one optimiser step is made of: its batches, their noise, gradients and class photos."""

from __future__ import annotations

import dataclasses
import types
from contextlib import closing

import pytest
import technique_jobs as jobs
import torch
import training_models
from likeness.nodes.training.objective.timesteps import draw_sigmas, resolution_shift
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.run import session
from likeness.nodes.training.samples.data import collate, main_captions, seeded
from likeness.nodes.training.steps.loop import Trainer


class _Recording(Trainer):
    """Notes what each batch of photos and of class photos was."""

    def terms(self, batch, sigmas, noise):
        vars(self).setdefault("photos", []).append((batch, sigmas, noise))
        return super().terms(batch, sigmas, noise)

    def _descend(self, terms, batches, sigmas, penalty):
        if "class" in terms:
            vars(self).setdefault("classes", []).append(batches[0])
        super()._descend(terms, batches, sigmas, penalty)


def _trainer(folder, name="flux", sizes=((16, 16),) * 4, class_set=None, **fields):
    recipe = LoRARecipe(**{"steps": 4, "rank": 2, "alpha": 2.0, "learning_rate": 1e-3,
                           "gradient_checkpointing": False, **fields})
    photos = training_models.make_training_set(folder, name, sizes)
    return _Recording(training_models.make_model(name), photos, recipe, seed=2,
                      class_set=class_set)


def _first_step(trainer):
    with closing(trainer.run(until=1)) as steps:
        return next(steps)


def _noise(trainer, rows=4):
    samples = trainer.samples[:rows]
    batch = collate(samples, main_captions(samples), trainer.device)
    return trainer._noise(batch, seeded(7))


def test_a_noise_offset_is_one_draw_of_its_size_for_each_channel_of_each_photo(tmp_path):
    plain_levels, plain = _noise(_trainer(tmp_path))
    levels, noise = _noise(_trainer(tmp_path, noise_offset=0.1))
    assert torch.equal(levels, plain_levels)
    offset = noise - plain
    torch.testing.assert_close(offset, offset[..., :1, :1].expand_as(offset), rtol=0, atol=1e-5)
    drawn = offset[..., 0, 0]
    assert drawn.flatten().unique().numel() == drawn.numel() == 4 * 16
    assert 0.08 < drawn.std() < 0.12 and drawn.mean().abs() < 0.05


def test_the_shift_by_resolution_is_that_of_the_batchs_own_size(tmp_path):
    trainer = _trainer(tmp_path, sizes=((16, 24),) * 4, shift_by_resolution=True)
    levels, _ = _noise(trainer)
    same = LoRARecipe(shift=resolution_shift(16 * 24 // 4))
    assert torch.equal(levels, draw_sigmas(trainer.sampling, same, 4, seeded(7)))


def test_gathered_gradients_are_the_mean_of_batches_with_noise_of_their_own(tmp_path):
    gathered = _trainer(tmp_path, accumulate=3)
    result = _first_step(gathered)
    photos, levels, noises = zip(*gathered.photos, strict=True)
    assert len({float(noise.sum()) for noise in noises}) == 3
    assert result.sigmas == tuple(float(level) for level in torch.cat(levels))
    assert result.photos == tuple(batch.photos[0] for batch in photos)
    again = _trainer(tmp_path)
    with again.attached(), torch.enable_grad():
        losses = torch.stack([again.loss(*part) for part in gathered.photos])
        losses.mean().backward()
    losses = losses.detach()
    norm = torch.cat([value.grad.flatten() for value in again.learner.parameters]).norm()
    assert result.gradient_norm == pytest.approx(float(norm), rel=1e-4)
    assert result.loss == pytest.approx(float(losses.mean()), rel=1e-5)
    assert sum(result.terms.values()) == result.loss
    assert result.sample_losses == pytest.approx(losses.tolist(), rel=1e-5)


def test_as_many_class_photos_of_one_shape_join_each_batch_and_every_one_comes(tmp_path):
    sizes = ((16, 16), (16, 24), (16, 24), (16, 16), (16, 24))
    (tmp_path / "class").mkdir()
    class_set = training_models.make_training_set(tmp_path / "class", "flux", sizes, seed=3)
    trainer = _trainer(tmp_path, class_set=class_set, batch_size=2, steps=16)
    with closing(trainer.run()) as steps:
        results = list(steps)
    assert [len(batch.photos) for batch in trainer.classes] == [2] * 16
    shapes = [{sample.latent.shape for sample in batch.samples} for batch in trainer.classes]
    assert all(len(kinds) == 1 for kinds in shapes)
    assert {photo for batch in trainer.classes for photo in batch.photos} == {
        item.photo for item in class_set.items}
    for result in results:
        assert result.terms.keys() == {"photo", "class"} and result.terms["class"] > 0


def test_class_photos_need_no_second_captions_where_the_class_word_is_kept(tmp_path):
    photos = training_models.make_training_set(tmp_path, "flux")
    named = dataclasses.replace(photos, items=tuple(
        dataclasses.replace(item, class_key="caption 0") for item in photos.items))
    trainer = Trainer(training_models.make_model("flux"), named,
                      LoRARecipe(rank=2, class_word_weight=1.0), seed=2, class_set=photos)
    assert len(trainer.class_samples) == 3


def test_each_step_leaves_out_ranks_of_its_own(tmp_path):
    trainer = _trainer(tmp_path, rank=16, rank_dropout=0.5)
    layer, kept = next(iter(trainer.adapters.layers.values())), []
    with closing(trainer.run()) as steps:
        for _ in steps:
            kept.append(tuple(layer._kept.tolist()))
    assert len(set(kept)) == 4


def test_kept_things_are_compared_with_what_the_text_encoders_gave_before(tmp_path):
    recipe = jobs.make_recipe("lora of text encoders", class_word_weight=1.0, outside_weight=1.0)
    trainer, given = session.make_trainer(jobs.make_job("sd15", tmp_path, recipe)), []
    with torch.no_grad():
        for value in trainer.text.encoders.parameters():
            value.add_(0.1)
    real, samples = trainer.objective, trainer.samples[:1]
    trainer.objective = types.SimpleNamespace(
        photo_terms=lambda *parts: given.append(parts) or real.photo_terms(*parts))
    with trainer.attached(), torch.enable_grad():
        batch = trainer.live_batch(samples, main_captions(samples))
        trainer.terms(batch, torch.tensor([1.0]), torch.randn(batch.latents.shape))
        live = trainer.live_batch(samples, [jobs.CLASS_CAPTION]).conds["c_crossattn"]
    (*_, plain, now, before), = given
    stored = samples[0].conds
    assert torch.equal(plain["c_crossattn"], stored[main_captions(samples)[0]]["c_crossattn"].cond)
    assert torch.equal(before["c_crossattn"], stored[jobs.CLASS_CAPTION]["c_crossattn"].cond)
    assert torch.equal(now["c_crossattn"], live) and now["c_crossattn"].requires_grad
    assert not torch.allclose(live, before["c_crossattn"])
    assert not torch.allclose(batch.conds["c_crossattn"], plain["c_crossattn"])
