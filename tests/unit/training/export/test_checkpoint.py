"""Checkpoints of full fine-tuning: upstream patches, number formats, proof of the change."""

from __future__ import annotations

import shutil

import pytest
import quantised_models
import technique_jobs as jobs
import torch
import training_models
from likeness.nodes import runtime
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.export import checkpoint
from likeness.nodes.training.export.rounding import round_evenly
from likeness.nodes.training.run import products, session

NAME = "sd15"
HALVES = (torch.float16, torch.bfloat16)


def _job(folder, **fields):
    recipe = jobs.make_recipe("dreambooth", steps=2, target="cross-attention")
    return jobs.make_job(NAME, folder, recipe, **fields)


def _patched(model):
    """A MODEL with an upstream change of every weight that will learn, and of one that will not."""
    upstream = model.clone()
    generator = torch.Generator().manual_seed(3)
    keys = [key for key in model.model.state_dict()
            if key.endswith("weight") and ("attn2" in key or "attn1.to_q" in key)]
    upstream.add_patches({key: ("diff", (0.1 * torch.randn(
        model.model.state_dict()[key].shape, generator=generator),)) for key in keys})
    return upstream, keys


def _weights(model, keys):
    """The weights that a MODEL samples with."""
    runtime.load_models([model])
    found = model.model.state_dict()
    return {key: found[key].detach().float().clone() for key in keys}


def _nudged(job, size):
    """A trainer whose weights all changed by about `size`, as after a short run."""
    trainer = session.make_trainer(job)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in trainer.learner.parameters:
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return trainer


def _saved(path, job, model):
    checkpoint.write_checkpoint(path, model, job.clip, job.vae, {})
    return path


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_what_learned_from_patched_weights_takes_the_patches_place(dtype, tmp_path):
    model, keys = _patched(training_models.make_model(NAME, dtype=dtype))
    job = _job(tmp_path, model=model)
    carried = {key: list(rows) for key, rows in model.patches.items()}
    started = _weights(model, keys)
    trainer = _nudged(job, 1e-3)
    made = checkpoint.tuned(model, trainer.adapters)
    found = _weights(made, keys)
    learned = [key for key in keys if "attn2" in key]
    for key in learned:
        path = key.removeprefix("diffusion_model.").removesuffix(".weight")
        truth = trainer.adapters.layers[path].weight.detach()
        # A weight plus its change rounds once more, in float32.
        unit = torch.finfo(dtype).eps * truth.abs() + 1e-7
        assert ((found[key] - truth).abs() <= unit).all()
    assert all(torch.equal(found[key], started[key]) for key in keys if key not in learned)
    assert {key: list(rows) for key, rows in model.patches.items()} == carried
    path = _saved(tmp_path / "made.safetensors", job, made)
    assert checkpoint.check_checkpoint(path, trainer) < 0.01


def test_a_run_on_a_model_with_upstream_patches_ends_with_its_learned_weights(tmp_path):
    model, keys = _patched(training_models.make_model(NAME))
    started = _weights(model, keys)
    outcome = session.run(_job(tmp_path, model=model), jobs.ignore)
    ended = _weights(outcome.model, keys)
    # Two steps at a rate of 1e-4 cannot move a weight further.
    assert all((ended[key] - started[key]).abs().max() < 3e-4 for key in keys)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_checkpoint_of_the_model_before_training_does_not_pass(dtype, tmp_path):
    job = _job(tmp_path, model=training_models.make_model(NAME, dtype=dtype))
    trainer = _nudged(job, 1e-5)
    path = _saved(tmp_path / "untrained.safetensors", job, job.model.clone())
    with pytest.raises(LikenessError, match="does not load as it was trained"):
        checkpoint.check_checkpoint(path, trainer)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_change_far_below_a_weights_unit_is_saved_on_average(dtype, tmp_path, caplog):
    job = _job(tmp_path, model=training_models.make_model(NAME, dtype=dtype))
    trainer = _nudged(job, 1e-5)
    path = _saved(tmp_path / "made.safetensors", job, checkpoint.tuned(job.model, trainer.adapters))
    with caplog.at_level("INFO", "likeness"):
        assert checkpoint.check_checkpoint(path, trainer) < 0.01
    kept = int(caplog.text.split("holds ")[1].split(" %")[0])
    assert 80 <= kept <= 120


def test_it_is_said_when_rounding_loses_the_change(tmp_path, monkeypatch):
    job = _job(tmp_path, model=training_models.make_model(NAME, dtype=torch.bfloat16))
    trainer = _nudged(job, 1e-5)
    monkeypatch.setattr(checkpoint, "round_evenly",
                        lambda value, dtype, generator: value.to(dtype).float())
    path = _saved(tmp_path / "made.safetensors", job, checkpoint.tuned(job.model, trainer.adapters))
    with pytest.raises(LikenessError, match="holds only .* raise `learning_rate`"):
        checkpoint.check_checkpoint(path, trainer)


def test_an_untrained_file_under_a_finished_runs_name_is_trained_anew(tmp_path, caplog):
    job = _job(tmp_path)
    outcome = session.run(job, jobs.ignore)
    fields = jobs.stored(outcome.path)[1]
    fake = tmp_path / "fake.safetensors"
    checkpoint.write_checkpoint(fake, job.model.clone(), job.clip, job.vae, fields)
    shutil.move(fake, outcome.path)
    key = fields["likeness.run"]
    assert products.finished(job, session.make_trainer(job), key) is None
    assert "it holds the model before training" in caplog.text


@pytest.mark.parametrize("dtype", HALVES)
def test_rounding_is_even_on_average_and_keeps_what_the_format_holds(dtype):
    exact = torch.cat([torch.randn(4096), 1e-6 * torch.randn(4096), torch.zeros(8)]).to(dtype)
    assert torch.equal(round_evenly(exact.float(), dtype, torch.Generator()), exact.float())
    value = torch.full((200_000,), 1.0 + 0.1 * torch.finfo(dtype).eps)
    rounded = round_evenly(value, dtype, torch.Generator().manual_seed(1))
    assert set(rounded.unique().tolist()) == {1.0, 1.0 + torch.finfo(dtype).eps}
    assert float((rounded - 1).mean()) == pytest.approx(0.1 * torch.finfo(dtype).eps, rel=0.03)
    assert torch.equal(rounded, rounded.to(dtype).float())


def test_weights_in_8_bits_are_refused_with_what_to_do():
    model = training_models.make_model(NAME, dtype=torch.float8_e4m3fn, compute=torch.float32)
    with pytest.raises(LikenessError, match="float8_e4m3fn.*`weight_dtype` default, or train a L"):
        checkpoint.check_storable(model)


def test_scaled_weights_are_refused():
    model = training_models.make_model(NAME)
    model.model.diffusion_model.extra, _ = quantised_models.scaled_layer(24, 40)
    with pytest.raises(LikenessError, match="Layer `extra`"):
        checkpoint.check_storable(model)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_weights_in_16_and_32_bits_are_not_refused(dtype):
    checkpoint.check_storable(training_models.make_model(NAME, dtype=dtype))
