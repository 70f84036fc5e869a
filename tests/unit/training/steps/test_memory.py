"""The memory plan on the sizes of real models, and the change that each situation calls for."""

from __future__ import annotations

import dataclasses

import pytest
import technique_jobs as jobs
import training_models
from likeness.nodes.training.objective.identity_loss import IdentityLoss
from likeness.nodes.training.recipes.fields import BaseWeights, Optimizer
from likeness.nodes.training.run import session
from likeness.nodes.training.steps.learner import Learner
from likeness.nodes.training.steps.memory import MemoryPlan, cheapest_change
from likeness.nodes.training.steps.out_of_memory import make_plan
from likeness.nodes.training.steps.plan import plan_before

GB = 2 ** 30
# A rank-16 adapter on 560 layers of 1280 columns: 23 million values.
ADAPTERS = ((16, 1280), (1280, 16)) * 560
WHOLE = ((1280, 1280),) * 1220  # 2.0 of SDXL's 2.57 thousand million weights
SDXL = MemoryPlan(stored_bytes=5_135_000_000, code_parameters=2_500_000_000,
                  code_stored_bytes=5_000_000_000, learned_shapes=ADAPTERS,
                  sampling_bytes=962_000_000, resolution=1024, rank=16)
FLUX = MemoryPlan(stored_bytes=23_800_000_000, code_parameters=11_890_000_000,
                  code_stored_bytes=23_780_000_000, learned_shapes=ADAPTERS,
                  sampling_bytes=962_000_000, resolution=1024, rank=16)
DREAMBOOTH = dataclasses.replace(SDXL, learned_shapes=WHOLE, rank=None,
                                 targets=(("attention", 0.5), ("cross-attention", 0.25)))


def _changed(plan: MemoryPlan, **fields) -> MemoryPlan:
    return dataclasses.replace(plan, **fields)


def test_the_parts_are_those_of_the_recipe():
    plan = _changed(SDXL, averaged=True, text_bytes=7, vae_bytes=11)
    learned = 560 * 2 * 16 * 1280
    assert plan.as_dict() == {
        "frozen_weights": 5_135_000_000, "learned": 4 * learned, "gradients": 4 * learned,
        "optimizer_states": 8 * learned, "average": 4 * learned, "activations": 2_886_000_000,
        "text_encoder": 7, "vae": 11,
        "total": 5_135_000_000 + 20 * learned + 2_886_000_000 + 18}
    assert plan.resident == plan.total - 5_135_000_000


def test_codes_take_the_place_of_the_weights_that_they_stand_for():
    fp8 = _changed(FLUX, base_weights=BaseWeights.FP8).frozen
    nf4 = _changed(FLUX, base_weights=BaseWeights.NF4).frozen
    assert fp8 == pytest.approx(11.96e9, rel=0.01) and nf4 == pytest.approx(6.16e9, rel=0.01)
    stored_in_8_bits = _changed(FLUX, stored_bytes=11_900_000_000,
                                code_stored_bytes=11_890_000_000)
    assert _changed(stored_in_8_bits, base_weights=BaseWeights.FP8).frozen == 11_900_000_000


def test_activations_grow_with_the_batch_and_shrink_with_checkpointing():
    assert _changed(SDXL, batch_size=4).activations == 4 * SDXL.activations
    assert _changed(SDXL, gradient_checkpointing=False).activations == 4 * SDXL.activations


def test_sdxl_at_rank_16_fits_8_gigabytes_and_flux_12_with_the_low_memory_recipe():
    assert SDXL.total < 8 * GB
    assert _changed(FLUX, base_weights=BaseWeights.NF4).total < 12 * GB


def test_nothing_is_said_of_a_run_that_fits():
    assert cheapest_change(SDXL, SDXL.total) == ""
    assert cheapest_change(SDXL, SDXL.total - 1) != ""


@pytest.mark.parametrize("plan, free, advice", [
    (_changed(SDXL, gradient_checkpointing=False), 12, "Switch `gradient_checkpointing` on: that "
     "takes 7.8 GB instead of 15.9 GB, of 12.0 GB free."),
    (_changed(SDXL, batch_size=4, accumulate=2), 12,
     "Set `batch_size` to 1 and `accumulate` to 8: that takes 7.8 GB"),
    (DREAMBOOTH, 32, "Set `optimizer` to adamw 8-bit: that takes 26.1 GB instead of 37.3 GB"),
    (FLUX, 16, "Set `base_weights` to fp8: that takes 14.2 GB instead of 25.2 GB"),
    (FLUX, 12, "Set `base_weights` to nf4: that takes 8.8 GB"),
    (_changed(SDXL, base_weights=BaseWeights.NF4, optimizer=Optimizer.ADAMW_8BIT), 3.5,
     "Prepare the photos at 768 pixels: that takes"),
    (_changed(SDXL, base_weights=BaseWeights.NF4, optimizer=Optimizer.ADAMW_8BIT), 2.6,
     "Prepare the photos at 512 pixels: that takes"),
    (_changed(SDXL, base_weights=BaseWeights.NF4, resolution=512, sampling_bytes=240_000_000,
              rank=256, learned_shapes=((256, 1280), (1280, 256)) * 560,
              optimizer=Optimizer.ADAMW_8BIT), 4, "Set `rank` to 128: that takes"),
    (_changed(DREAMBOOTH, base_weights=BaseWeights.NF4, resolution=512, sampling_bytes=240_000_000,
              optimizer=Optimizer.ADAMW_8BIT), 16, "Set `target` to attention: that takes"),
], ids=["checkpointing", "batch", "8-bit states", "fp8", "nf4", "768", "512", "rank", "target"])
def test_the_cheapest_change_that_fits_is_named(plan, free, advice):
    assert cheapest_change(plan, int(free * GB)).startswith(advice)


def test_changes_are_combined_where_none_does_alone_and_idle_ones_are_left_out():
    both = _changed(SDXL, gradient_checkpointing=False, batch_size=2)
    # The learned part is small: 8-bit states come before fp8 in cost and would not help.
    assert cheapest_change(both, 8 * GB) == (
        "Switch `gradient_checkpointing` on and set `batch_size` to 1 and `accumulate` to 2: that "
        "takes 7.8 GB instead of 26.6 GB, of 8.0 GB free.")
    assert cheapest_change(_changed(FLUX, batch_size=4), 16 * GB) == (
        "Set `batch_size` to 1 and `accumulate` to 4 and set `base_weights` to fp8: that takes "
        "14.2 GB instead of 33.3 GB, of 16.0 GB free.")


def test_it_is_said_where_nothing_fits():
    assert cheapest_change(FLUX, 4 * GB).startswith(
        "No setting makes this run fit: with every saving it would still take 6.")


def test_a_change_that_saves_nothing_is_never_proposed():
    stored_in_8_bits = _changed(FLUX, stored_bytes=11_900_000_000,
                                code_stored_bytes=11_890_000_000)
    assert "fp8" not in cheapest_change(stored_in_8_bits, 12 * GB)
    factored = _changed(DREAMBOOTH, optimizer=Optimizer.ADAFACTOR)
    assert "8-bit" not in cheapest_change(factored, 20 * GB)


def _before(trainer, recipe=None, **parts):
    samples = [*trainer.samples, *trainer.class_samples]
    return plan_before(trainer.base, recipe or trainer.recipe, samples, **parts)


@pytest.mark.parametrize("technique", jobs.TECHNIQUES)
def test_the_plan_before_a_run_is_made_is_the_one_of_the_run(technique, tmp_path):
    trainer = session.make_trainer(jobs.make_job("sdxl", tmp_path, jobs.make_recipe(technique)))
    before, plan = _before(trainer, text=trainer.text), make_plan(trainer)
    # The optimiser's groups have an order of their own.
    assert sorted(before.learned_shapes) == sorted(plan.learned_shapes)
    assert dataclasses.replace(before, learned_shapes=()) == dataclasses.replace(
        plan, learned_shapes=())


def test_whole_weights_are_planned_without_a_copy_of_any(tmp_path, monkeypatch):
    trainer = session.make_trainer(jobs.make_job("sd15", tmp_path, jobs.make_recipe("lora")))
    recipe = jobs.make_recipe("dreambooth", target="all linear")
    monkeypatch.setattr("likeness.nodes.training.frozen.layers.read_weight", None)
    monkeypatch.setattr(Learner, "__init__", None)
    plan = _before(trainer, recipe)
    assert plan.learned > 0.3 * 4 * sum(
        value.numel() for value in trainer.base.diffusion_model.parameters())
    shares = [share for _, share in plan.targets]
    assert shares == sorted(shares, reverse=True) and 0 < shares[-1] < shares[0] < 1


def test_keeping_the_class_word_holds_two_graphs_at_once(tmp_path):
    trainer = session.make_trainer(jobs.make_job("sd15", tmp_path, jobs.make_recipe("lora")))
    plain, word = (_before(trainer, jobs.make_recipe("lora", class_word_weight=weight))
                   for weight in (0.0, 1.0))
    assert word.activations == 2 * plain.activations


def test_class_photos_that_are_larger_than_the_persons_count(tmp_path):
    job = jobs.make_job("sd15", tmp_path, jobs.make_recipe("lora"))
    classes = training_models.make_training_set(tmp_path, "sd15", ((32, 32),), seed=5)
    larger = dataclasses.replace(classes.items[0], conditioning_key="", class_key="")
    trainer = session.make_trainer(job)
    before = make_plan(trainer).sampling_bytes
    trainer.class_samples = [dataclasses.replace(
        trainer.samples[0], item=larger, latent=trainer.samples[0].latent.repeat(1, 2, 2))]
    assert make_plan(trainer).sampling_bytes > before


def test_text_encoders_that_learn_keep_their_activations(tmp_path):
    job = jobs.make_job("sd15", tmp_path, jobs.make_recipe("lora of text encoders"))
    trainer = session.make_trainer(job)
    weights = job.clip.patcher.model_size()
    kept = make_plan(trainer).text_bytes - weights
    assert kept > 0
    more = dataclasses.replace(trainer.recipe, batch_size=3)
    assert _before(trainer, more, text=trainer.text).text_bytes - weights == pytest.approx(
        3 * kept, abs=2)
    less = dataclasses.replace(trainer.recipe, gradient_checkpointing=True)
    assert _before(trainer, less, text=trainer.text).text_bytes - weights < kept


def test_the_decoded_part_round_a_face_counts(tmp_path, monkeypatch):
    job = jobs.make_job("sd15", tmp_path, jobs.make_recipe("lora"))
    trainer = session.make_trainer(job)
    identity = object.__new__(IdentityLoss)
    identity.vae, identity.dtype, identity.scale = job.vae, job.vae.vae_dtype, 8
    asked = []
    monkeypatch.setattr(job.vae, "memory_used_decode",
                        lambda shape, dtype: asked.append(tuple(shape)) or 1000)
    plan = _before(trainer, identity=identity)
    assert plan.vae_bytes == job.vae.patcher.model_size() + 2600
    # This face fills the photo; no more than the latent is decoded.
    assert set(asked) == {(1, 4, 16, 16)}
    small = [(72.0, 64.0), (70.0, 64.0), (64.0, 64.0), (66.0, 64.0), (68.0, 68.0)]
    assert identity.decoded_shape((4, 64, 64), small)[2] < 16
