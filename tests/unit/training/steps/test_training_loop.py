"""The loop on tiny models of the real architectures, under the executor's inference mode."""

from __future__ import annotations

import dataclasses
from contextlib import closing

import comfy.model_management
import pytest
import torch
import training_models
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.adapters.attach import compute_type
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.recipes.fields import Precision
from likeness.nodes.training.steps.loop import Trainer

ARCHITECTURES = training_models.ARCHITECTURES
SIZES = ((16, 16), (16, 16), (16, 24))


@pytest.fixture(autouse=True)
def _as_the_executor_runs_prompts():
    with torch.inference_mode():
        yield


def _recipe(**fields) -> LoRARecipe:
    return LoRARecipe(**{"steps": 4, "rank": 4, "alpha": 4.0, "learning_rate": 1e-3, **fields})


def _trainer(name, folder, *, model=None, seed=1, sizes=SIZES, **fields) -> Trainer:
    model = model or training_models.make_model(name)
    return Trainer(model, training_models.make_training_set(folder, name, sizes),
                   _recipe(**fields), seed)


def _train(trainer: Trainer) -> list:
    with closing(trainer.run()) as steps:
        return list(steps)


def _output(model) -> torch.Tensor:
    """What the MODEL gives, as the sampler would call it."""
    generator = torch.Generator().manual_seed(2)
    width, pooled, channels = training_models.TEXT[model.likeness_name]
    conds = {"c_crossattn": torch.randn(1, 12, width, generator=generator)}
    if pooled:
        adm = model.model.adm_channels if model.likeness_name == "sdxl" else pooled
        conds["y"] = torch.randn(1, adm, generator=generator)
    if model.likeness_name == "flux":
        conds["guidance"] = torch.tensor([3.5])
    noise = torch.randn(1, channels, 16, 16, generator=generator)
    return model.model.apply_model(noise, torch.tensor([0.7]), transformer_options={}, **conds)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_float32_trains_on_the_cpu_and_leaves_the_model_as_it_was(name, checkpointing, tmp_path):
    model = training_models.make_model(name)
    assert next(model.model.parameters()).is_inference()
    tree, weights, output = (training_models.tree(model), training_models.weights(model),
                             _output(model))
    results = _train(_trainer(name, tmp_path, model=model, gradient_checkpointing=checkpointing))
    assert [result.step for result in results] == [1, 2, 3, 4]
    assert all(0 < result.gradient_norm < 1e3 for result in results)
    assert training_models.tree(model) == tree
    training_models.assert_same_weights(model, weights)
    assert torch.equal(_output(model), output)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_batch_of_four_is_one_forward_of_four_rows(name, tmp_path):
    model, rows = training_models.make_model(name), []
    hook = model.model.diffusion_model.register_forward_pre_hook(
        lambda module, args: rows.append(len(args[0])))
    _train(_trainer(name, tmp_path, model=model, sizes=((16, 16),) * 4, steps=3, batch_size=4))
    hook.remove()
    assert rows == [4, 4, 4]


def test_a_batch_pairs_each_photo_with_its_own_caption_noise_and_level(tmp_path):
    trainer, seen = _trainer("sd15", tmp_path, sizes=((16, 16),) * 4, batch_size=4,
                             caption_dropout=0.0), []
    model = trainer.base.diffusion_model
    hook = model.register_forward_pre_hook(
        lambda module, args, options: seen.append((args[1], options["context"])), with_kwargs=True)
    result = _train(trainer)[0]
    hook.remove()
    by_name = {sample.photo: sample for sample in trainer.samples}
    timesteps, context = seen[0]
    for row, (photo, sigma) in enumerate(zip(result.photos, result.sigmas, strict=True)):
        sample = by_name[photo]
        assert torch.equal(context[row], sample.conds[sample.captions[0]]["c_crossattn"].cond[0])
        assert trainer.base.model_sampling.timestep(torch.tensor(sigma)) == timesteps[row]
    assert len(set(result.photos)) == 4 and len(set(result.sigmas)) > 1


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_seed_alone_decides(name, tmp_path):
    runs = []
    for noise, seed in ((1, 5), (2, 5), (1, 6)):
        torch.manual_seed(noise)
        trainer = _trainer(name, tmp_path, seed=seed, batch_size=2)
        runs.append((trainer.adapters, _train(trainer)))
    first, second, other = (adapters.tensors() for adapters, _ in runs)
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert not all(torch.equal(value, other[key]) for key, value in first.items())
    assert [step.loss for step in runs[0][1]] == [step.loss for step in runs[1][1]]
    assert [step.sigmas for step in runs[0][1]] == [step.sigmas for step in runs[1][1]]


def test_a_second_run_on_the_same_model_is_unchanged(tmp_path):
    model = training_models.make_model("flux")
    runs = []
    for _ in range(2):
        trainer = _trainer("flux", tmp_path, model=model)
        runs.append(([step.loss for step in _train(trainer)], trainer.adapters.tensors()))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(value, runs[1][1][key]) for key, value in runs[0][1].items())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_checkpointing_changes_no_result(name, tmp_path):
    plain, checkpointed = (_trainer(name, tmp_path, gradient_checkpointing=setting, steps=2)
                           for setting in (False, True))
    assert [step.loss for step in _train(plain)] == pytest.approx(
        [step.loss for step in _train(checkpointed)], rel=1e-6)
    for path, layer in plain.adapters.layers.items():
        assert torch.allclose(layer.up, checkpointed.adapters.layers[path].up, atol=2e-5), path


@pytest.mark.parametrize(("name", "steps", "factor"), [("sd15", 20, 0.75), ("flux", 40, 0.85)])
def test_the_loss_of_four_photos_falls(name, steps, factor, tmp_path):
    trainer = _trainer(name, tmp_path, sizes=((16, 16),) * 4, steps=steps, batch_size=4, rank=16,
                       alpha=16.0, learning_rate=1e-2, target="all linear",
                       gradient_checkpointing=False)
    losses = [step.loss for step in _train(trainer)]
    assert sum(losses[-4:]) < factor * sum(losses[:4])


def test_stored_half_weights_train_in_float32_on_the_cpu_and_in_bfloat16_on_demand(tmp_path):
    model = training_models.make_model("flux", dtype=torch.float16, compute=torch.float32)
    tree = training_models.tree(model)
    assert _trainer("flux", tmp_path, model=model).dtype == torch.float32
    trainer = _trainer("flux", tmp_path, model=model, precision="bfloat16")
    full = _trainer("flux", tmp_path, model=model)
    losses = [step.loss for step in _train(trainer)]
    assert losses == pytest.approx([step.loss for step in _train(full)], rel=0.02)
    assert all(value.dtype == torch.float32 for value in trainer.adapters.parameters())
    assert training_models.tree(model) == tree


def test_a_float16_model_never_trains_in_float16():
    base = training_models.make_model("sd15", dtype=torch.float16).model
    assert compute_type(base, Precision.AUTO, torch.device("cpu")) == torch.float32


def test_a_loss_that_is_no_number_names_photo_and_level_and_keeps_what_was_learned(tmp_path):
    trainer = _trainer("sd15", tmp_path, caption_dropout=0.0)
    order = [step.photos[0] for step in _train(_trainer("sd15", tmp_path))]
    spoiled = [sample.photo for sample in trainer.samples].index(order[2])
    with closing(trainer.run()) as steps:
        next(steps), next(steps)
        learned = trainer.adapters.tensors()
        broken = torch.full_like(trainer.samples[spoiled].latent, float("nan"))
        trainer.samples[spoiled] = dataclasses.replace(trainer.samples[spoiled], latent=broken)
        with pytest.raises(LikenessError, match=rf"loss of step 3 .*{order[2]}; noise level \d"):
            next(steps)
    assert trainer.step == 2 and trainer.whole
    assert all(torch.equal(value, learned[key])
               for key, value in trainer.adapters.tensors().items())


def test_a_model_with_attention_patches_is_refused(tmp_path):
    model = training_models.make_model("sd15")
    model.set_model_attn2_patch(lambda query, key, value, options: (query, key, value))
    with pytest.raises(LikenessError, match="carries patches of other nodes"):
        _trainer("sd15", tmp_path, model=model)


def test_a_model_with_a_wrapper_is_refused(tmp_path):
    model = training_models.make_model("sd15")
    model.add_wrapper("apply_model", lambda executor, *arguments: executor(*arguments))
    with pytest.raises(LikenessError, match="carries a wrapper of other nodes"):
        _trainer("sd15", tmp_path, model=model)


def test_captions_of_another_text_encoder_are_named(tmp_path):
    model = training_models.make_model("sdxl")
    narrow = training_models.make_training_set(tmp_path, "sd15")
    with pytest.raises(LikenessError, match="lacks 'pooled_output'.*its own CLIP"):
        Trainer(model, narrow, _recipe(), 1)
    with pytest.raises(LikenessError, match="does not fit this model.*its own CLIP"):
        _train(Trainer(training_models.make_model("sd15"),
                       training_models.make_training_set(tmp_path, "sdxl"), _recipe(), 1))


def test_a_lora_already_on_the_model_takes_part_and_stays(tmp_path):
    model = training_models.make_model("sd15")
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    changed = model.clone()
    changed.add_patches({key: ("diff", (torch.ones(32, 32),))})
    plain = [step.loss for step in _train(_trainer("sd15", tmp_path, model=model))]
    patched = [step.loss for step in _train(_trainer("sd15", tmp_path, model=changed))]
    again = [step.loss for step in _train(_trainer("sd15", tmp_path, model=model))]
    assert plain == again != patched


def test_newer_hosts_are_told_that_training_is_under_way(tmp_path, monkeypatch):
    monkeypatch.setattr(comfy.model_management, "in_training", False, raising=False)
    trainer, seen = _trainer("flux", tmp_path), []
    with closing(trainer.run()) as steps:
        for _ in steps:
            seen.append(comfy.model_management.in_training)
    assert seen == [True] * 4 and comfy.model_management.in_training is False
