"""LoRAs over quantised weights: what the host's own sampling sees of them."""

from __future__ import annotations

import comfy.sd
import pytest
import quantised_models
import torch
import training_models
from likeness.nodes import runtime
from likeness.nodes.tensors import model_key
from likeness.nodes.training.export.lora import apply_lora
from likeness.nodes.training.frozen.beside import can_run_beside, parts_of
from likeness.nodes.training.objective.denoise import probe
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.samples.data import load_samples
from quantised_runs import QuantisedRun

pytestmark = pytest.mark.skipif(not can_run_beside(), reason="this host adds every LoRA to weights")
FORMATS = pytest.mark.parametrize("kind", quantised_models.formats())
QKV, SINGLE = "double_blocks.0.img_attn.qkv", "single_blocks.1.linear1"


@pytest.fixture
def sample(tmp_path):
    model = training_models.make_model("flux")
    training_set = training_models.make_training_set(tmp_path, "flux")
    return load_samples(model.model, training_set, LoRARecipe(rank=4), torch.device("cpu"))[0]


def _lora(*paths: str, seed: int = 1, size: float = 0.05) -> dict[str, torch.Tensor]:
    """A LoRA of rank 4 in plain keys."""
    generator = torch.Generator().manual_seed(seed)
    network = training_models.make_model("flux").model.diffusion_model
    tensors = {}
    for path in paths:
        rows, columns = network.get_submodule(path).weight.shape
        tensors[f"diffusion_model.{path}.lora_up.weight"] = size * torch.randn(
            rows, 4, generator=generator)
        tensors[f"diffusion_model.{path}.lora_down.weight"] = size * torch.randn(
            4, columns, generator=generator)
        tensors[f"diffusion_model.{path}.alpha"] = torch.tensor(4.0)
    return tensors


def _picture(model, sample) -> torch.Tensor:
    model.model.manual_cast_dtype = torch.float32
    runtime.load_models([model])
    return probe(model, sample)


def _plain(model):
    """A MODEL of the same network, its weights in float32."""
    held = quantised_models.quantised_layers(model)
    plain = training_models.make_model("flux")
    weights = dict(model.model.diffusion_model.named_parameters())
    with torch.no_grad():
        for name, parameter in plain.model.diffusion_model.named_parameters():
            weight = weights[name]
            parameter.copy_(weight.dequantize() if name.removesuffix(".weight") in held
                            and name.endswith(".weight") else weight.float())
    return plain


def _off(found: torch.Tensor, wanted: torch.Tensor, before: torch.Tensor) -> float:
    return float((found - wanted).norm() / (wanted - before).norm())


@FORMATS
def test_a_small_change_of_quantised_weights_is_drawn_whole(kind, sample):
    model, tensors = quantised_models.mixed_precision(kind=kind), _lora(QKV, SINGLE, size=0.02)
    before = _picture(model, sample)
    found = _picture(apply_lora(model, tensors, 1.0), sample)
    theirs, _ = comfy.sd.load_bypass_lora_for_models(model, None, tensors, 1.0, 0.0)
    assert _off(found, _picture(theirs, sample), before) < 1e-4
    assert torch.equal(_picture(model, sample), before)


@pytest.mark.parametrize("kind", [kind for kind in quantised_models.formats()
                                  if kind != "int8_tensorwise"])  # whose inputs are rounded too
def test_it_is_the_change_of_the_weights_behind_the_codes(kind, sample):
    model, tensors = quantised_models.mixed_precision(kind=kind), _lora(QKV, SINGLE, size=0.02)
    plain = _plain(model)
    before = _picture(plain, sample)
    wanted = _picture(apply_lora(plain, tensors, 1.0), sample)
    assert _off(_picture(apply_lora(model, tensors, 1.0), sample), wanted, before) < 0.01
    added, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)
    assert _off(_picture(added, sample), wanted, before) > 0.5  # the sum is quantised anew


def test_several_loras_act_together_and_the_model_stays_as_it_was(sample):
    model = quantised_models.mixed_precision()
    before = _picture(model, sample)
    first, second = _lora(QKV, seed=1), _lora(QKV, SINGLE, seed=2)
    both = apply_lora(apply_lora(model, first, 1.0), second, 0.5)
    plain = _plain(model)
    wanted = _picture(apply_lora(apply_lora(plain, first, 1.0), second, 0.5), sample)
    assert _off(_picture(both, sample), wanted, before) < 2e-3
    assert len(parts_of(both)[f"diffusion_model.{QKV}"]) == 2 and not parts_of(model)
    assert torch.equal(_picture(model, sample), before)
    assert not any("forward" in vars(module) for module in model.model.modules())


def test_a_clone_of_a_model_that_is_loaded_and_another_strength_are_drawn_anew(sample):
    model, tensors = quantised_models.mixed_precision(), _lora(QKV)
    before = _picture(model, sample)
    once = apply_lora(model, tensors, 1.0)
    change = _picture(once, sample) - before
    twice = _picture(apply_lora(once, tensors, 1.0), sample) - before
    double = _picture(apply_lora(model, tensors, 2.0), sample) - before
    again = _picture(once.clone(), sample) - before
    assert float((twice - double).norm() / double.norm()) < 1e-4
    assert float((double - change).norm() / change.norm()) > 0.5
    assert torch.equal(again, change)


def test_a_lora_of_a_part_of_a_fused_layer_changes_its_rows(sample):
    model = quantised_models.mixed_precision()
    generator = torch.Generator().manual_seed(4)
    tensors = {}
    for part in ("to_q", "to_v"):
        stem = f"transformer.transformer_blocks.0.attn.{part}"
        tensors[f"{stem}.lora_A.weight"] = 0.05 * torch.randn(4, 64, generator=generator)
        tensors[f"{stem}.lora_B.weight"] = 0.05 * torch.randn(64, 4, generator=generator)
    before, plain = _picture(model, sample), _plain(model)
    wanted = _picture(apply_lora(plain, tensors, 1.0), sample)
    assert _off(_picture(apply_lora(model, tensors, 1.0), sample), wanted, before) < 2e-3


def test_what_the_host_itself_runs_beside_stays_in_force(sample):
    model, first, second = quantised_models.mixed_precision(), _lora(QKV), _lora(SINGLE, seed=2)
    before = _picture(model, sample)
    theirs, _ = comfy.sd.load_bypass_lora_for_models(model, None, first, 1.0, 0.0)
    plain = _plain(model)
    wanted = _picture(apply_lora(apply_lora(plain, first, 1.0), second, 1.0), sample)
    assert _off(_picture(apply_lora(theirs, second, 1.0), sample), wanted, before) < 2e-3
    assert torch.equal(_picture(model, sample), before)


@pytest.mark.parametrize("made", ["ours", "the host's"])
def test_a_lora_beside_the_layers_is_part_of_what_is_trained_on(made, sample, tmp_path):
    tensors, run = _lora(QKV, SINGLE, size=0.2), QuantisedRun("flux", tmp_path)
    plain = apply_lora(_plain(quantised_models.mixed_precision()), tensors, 1.0)
    runtime.load_models([plain])
    truth_loss, truth, _ = run(plain)
    with torch.inference_mode():  # as in a prompt: what it loads must not be saved for backward
        model = quantised_models.mixed_precision()
        model.model.manual_cast_dtype = torch.float32
        own = {name: value.clone() for name, value in tensors.items()}
        carried = (apply_lora(model, own, 1.0) if made == "ours" else
                   comfy.sd.load_bypass_lora_for_models(model, None, own, 1.0, 0.0)[0])
        runtime.load_models([carried])
    with torch.inference_mode(False):
        loss, gradients, _ = run(carried)
    assert loss == pytest.approx(truth_loss, rel=1e-4)
    for ours, true in zip(gradients, truth, strict=True):
        assert (ours is None) == (true is None)
        assert ours is None or (ours - true).norm() <= 1e-4 * true.norm()


def test_a_model_is_told_by_what_runs_beside_it_whether_it_is_loaded_or_not(sample):
    model = quantised_models.mixed_precision()
    one, other = apply_lora(model, _lora(QKV), 1.0), apply_lora(model, _lora(QKV, seed=2), 1.0)
    key = model_key(one)
    assert len({model_key(model), key, model_key(other),
                model_key(apply_lora(model, _lora(QKV), 0.5))}) == 4
    assert model_key(apply_lora(model, _lora(QKV), 1.0)) == key
    _picture(one, sample)
    assert model_key(one) == key
