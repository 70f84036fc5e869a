"""Training on models that the host itself has loaded with 8 bits a weight, and what it costs."""

from __future__ import annotations

import pytest
import quantised_models
import technique_jobs as jobs
import text_models
import torch
import training_models
from likeness.nodes.training.frozen.beside import can_run_beside
from likeness.nodes.training.recipes.fields import BaseWeights
from likeness.nodes.training.run import session
from quantised_runs import QuantisedRun

TECHNIQUES = ("lora", "qlora nf4", "qlora fp8", "dora", "oft", "textual inversion")
_LOADED = {"mixed precision": quantised_models.mixed_precision,
           "cast on loading": quantised_models.cast_on_loading}
LOADED = pytest.mark.parametrize("loaded", list(_LOADED))


def _dequantised(model):
    """A MODEL of the same network with plain float32 weights."""
    held = quantised_models.quantised_layers(model)
    plain = training_models.make_model(model.likeness_name)
    weights = dict(model.model.diffusion_model.named_parameters())
    with torch.no_grad():
        for name, parameter in plain.model.diffusion_model.named_parameters():
            weight = weights[name]
            own = name.removesuffix(".weight")
            parameter.copy_(weight.dequantize() if own in held and name != own
                            else weight.float())
    return plain


def test_a_quantised_file_makes_the_hosts_own_quantised_layers():
    model = quantised_models.mixed_precision()
    held = quantised_models.quantised_layers(model)
    assert len(held) > 10
    assert all("MixedPrecisionOps" in type(layer).__qualname__ for layer in held.values())


@LOADED
def test_adapters_learn_as_over_a_model_of_the_same_values_in_float32(loaded, tmp_path):
    model, run = _LOADED[loaded](), QuantisedRun("flux", tmp_path)
    model.model.manual_cast_dtype = torch.float32
    loss, gradients, _ = run(model)
    truth_loss, truth, _ = run(_dequantised(model))
    assert loss == pytest.approx(truth_loss, rel=1e-5)
    assert run(training_models.make_model("flux"))[0] != pytest.approx(truth_loss, rel=1e-5)
    for ours, true in zip(gradients, truth, strict=True):
        assert (ours is None) == (true is None)
        assert ours is None or (ours - true).norm() <= 1e-5 * true.norm()


def _report(load, technique, folder):
    with torch.inference_mode():  # the host loads models under it too
        recipe = jobs.make_recipe(technique)
        return session.run(jobs.make_job("flux", folder, recipe, model=load()), jobs.ignore).report


@pytest.mark.parametrize("technique", TECHNIQUES)
@LOADED
def test_a_run_over_8_bit_weights_says_what_loading_it_again_costs(loaded, technique, tmp_path):
    report = _report(_LOADED[loaded], technique, tmp_path)
    error = report["reload_error"]
    beside = can_run_beside() and technique not in ("dora", "oft")
    if technique == "textual inversion" or beside:  # nothing is added to the weights
        assert error < 1e-2 and report["warnings"] == []
        return
    assert 0.2 < error < 0.9
    said, = report["warnings"]
    assert f"LoRA of the model differs from what was trained by {error:.0%} of what" in said
    assert "rounds the sum to 8 bits or fewer" in said and "model with 16-bit weights" in said


@pytest.mark.parametrize(("stored", "named"), [
    (torch.float8_e4m3fn, "8 bits or fewer; load the text encoder with 16-bit weights"),
    (torch.bfloat16, "bfloat16; train until")])
def test_the_warning_names_the_text_encoder_where_its_weights_alone_are_coarse(stored, named,
                                                                               tmp_path):
    with torch.inference_mode():
        clip = text_models.make_clip("flux", tmp_path / "clip", dtype=stored)
        recipe = jobs.make_recipe("lora of text encoders", learning_rate=1e-5)
        job = jobs.make_job("flux", tmp_path, recipe, clip=clip)
        report = session.run(job, jobs.ignore).report
    if can_run_beside() and stored == torch.float8_e4m3fn:
        assert report["warnings"] == [] and report["reload_error"] < 1e-2
        return
    said, = report["warnings"]
    assert "LoRA of the text encoder differs from what was trained by " in said
    assert f"{report['reload_error']:.0%} of what training changed" in said
    assert f"the text encoder's weights and rounds the sum to {named}" in said


@pytest.mark.parametrize("technique", ["lora", "oft"])
def test_over_the_same_values_in_float32_loading_it_again_costs_nothing(technique, tmp_path):
    report = _report(lambda: _dequantised(quantised_models.mixed_precision()), technique, tmp_path)
    assert report["reload_error"] < 0.01 and report["warnings"] == []


# Cosine between the gradients over codes and those over the model's own weights, measured.
@pytest.mark.parametrize(("name", "kind", "cosine"), [
    ("sd15", BaseWeights.FP8, 0.994), ("sd15", BaseWeights.NF4, 0.940),
    ("flux", BaseWeights.FP8, 0.996), ("flux", BaseWeights.NF4, 0.961)])
def test_gradients_over_codes_point_where_those_over_the_weights_do(name, kind, cosine, tmp_path):
    model, run = training_models.make_model(name), QuantisedRun(name, tmp_path)
    _, gradients, _ = run(model, kind)
    _, truth, _ = run(model)
    ours, true = (torch.cat([part.flatten() for part in parts if part is not None])
                  for parts in (gradients, truth))
    found = float(torch.cosine_similarity(ours, true, dim=0))
    assert found == pytest.approx(cosine, abs=0.003)
