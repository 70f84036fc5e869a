"""Training on a MODEL that shows a face already: its patches act, learn nothing and stay whole."""

from __future__ import annotations

import copy
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import training_models
from likeness.nodes.errors import LikenessError
from likeness.nodes.identity.adapter import parse_adapter
from likeness.nodes.identity.blend import FaceTokens
from likeness.nodes.identity.inject import inject
from likeness.nodes.patching import SigmaWindow, add_to_attention, attention_patch, cross_attentions
from likeness.nodes.tensors import model_key
from likeness.nodes.training.frozen.carried import training_options
from likeness.nodes.training.pictures import sampling as pictures
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.samples.data import collate, main_captions
from likeness.nodes.training.steps.loop import Trainer

CPU = torch.device("cpu")
UNETS = pytest.mark.parametrize("name", ["sd15", "sdxl"])


class _Plain:
    """A term that is no dataclass: attention to keys and values of its own, written out."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.keys, self.values = keys, values

    def __call__(self, q: torch.Tensor, options: Any) -> torch.Tensor:
        return 0.8 * _attend(q, self.keys, self.values, options["n_heads"])

    def to(self, where: torch.device | torch.dtype) -> _Plain:
        return _Plain(self.keys.to(where), self.values.to(where))


@dataclass(frozen=True, eq=False)
class _Windowed:
    keys: torch.Tensor
    window: SigmaWindow

    def __call__(self, q: torch.Tensor, options: Any) -> torch.Tensor | None:
        if not self.window.open_at(options["sigmas"]):
            return None
        return _attend(q, self.keys, self.keys, options["n_heads"])

    def to(self, where: torch.device | torch.dtype) -> _Windowed:
        return _Windowed(self.keys.to(where), self.window)


def _attend(q, keys, values, heads):
    def split(x):
        return x.expand(len(q), -1, -1).reshape(len(q), x.shape[1], heads, -1).transpose(1, 2)

    q, keys, values = split(q), split(keys), split(values)
    weights = torch.softmax(q @ keys.transpose(-1, -2) / q.shape[-1] ** 0.5, dim=-1)
    return (weights @ values).transpose(1, 2).flatten(2)


def _draws(seed: int = 3):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(shape, generator=generator)


def _with_plain(model, seed=3):
    draw = _draws(seed)
    with torch.inference_mode():  # as a node makes it
        return add_to_attention(model, {
            layer.place: _Plain(draw(1, 3, layer.width), draw(1, 3, layer.width))
            for layer in cross_attentions(model)})


def _with_face(model, seed=3, **settings):
    """The real injection of a random FaceID adapter, its LoRA included."""
    draw, layers = _draws(seed), cross_attentions(model)
    context = layers[0].context
    projection = {"proj.0.weight": draw(16, 8), "proj.0.bias": draw(16),
                  "proj.2.weight": draw(2 * context, 16), "proj.2.bias": draw(2 * context),
                  "norm.weight": 1 + draw(context), "norm.bias": draw(context)}
    attention = {}
    for index, layer in enumerate(layers):
        for part in ("k", "v"):
            attention[f"{2 * index + 1}.to_{part}_ip.weight"] = (
                draw(layer.width, context) / context ** 0.5)
        attention[f"{2 * index + 1}.to_q_lora.down.weight"] = draw(2, layer.width) * 0.1
        attention[f"{2 * index + 1}.to_q_lora.up.weight"] = draw(layer.width, 2) * 0.1
    with torch.inference_mode():
        adapter = parse_adapter({"image_proj": projection, "ip_adapter": attention}, "face.bin")
        tokens = FaceTokens(draw(1, 2, context), draw(1, 2, context))
        return inject(model, adapter, "face.bin", tokens, **{"weight": 0.8, **settings}).model


PATCHES = pytest.mark.parametrize("patch", [_with_plain, _with_face], ids=["small", "injected"])


def _with_window(model, start, end):
    window = SigmaWindow.from_percent(model.get_model_object("model_sampling"), start, end)
    return add_to_attention(model, {layer.place: _Windowed(_draws()(1, 3, layer.width), window)
                                    for layer in cross_attentions(model)})


def _trainer(model: Any, folder: Path, name: str, **fields: Any) -> Trainer:
    training_set = training_models.make_training_set(folder, name, ((8, 8),) * 2)
    recipe = LoRARecipe(**{"steps": 3, "rank": 2, "alpha": 2.0, "min_snr": 0.0,
                           "precision": "float32", "learning_rate": 1e-2,
                           "gradient_checkpointing": False, **fields})
    trainer = Trainer(model, training_set, recipe, seed=1)
    draw = _draws(11)
    with torch.no_grad():  # else half of the gradients are zero
        for layer in trainer.adapters.layers.values():
            layer.up.copy_(0.1 * draw(*layer.up.shape))
    return trainer


def _loss(trainer: Trainer) -> torch.Tensor:
    sigmas, draw = torch.tensor([1.5, 0.7]), _draws(5)
    batch = collate(trainer.samples, main_captions(trainer.samples), CPU)
    return trainer.loss(batch, sigmas, draw(*batch.latents.shape))


def _gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    with torch.inference_mode(False), torch.enable_grad(), trainer.attached():
        _loss(trainer).backward()
    return {f"{path}.{name}": value.grad for path, layer in trainer.adapters.layers.items()
            for name, value in layer.named_parameters()}


def _held(model):
    return [attention_patch(model, layer.place).terms[0] for layer in cross_attentions(model)]


def _written_out(model: Any) -> Any:
    """A MODEL of its own whose cross-attentions add the terms without any patch.

    Its weights are the patched ones, and what a term adds comes from plain tensor operations.
    """
    twin = model.clone()
    # Newer hosts' description of a model has an answer to every name, so that it cannot be copied.
    config = model.model.model_config
    twin.model = copy.deepcopy(model.model, {id(config): config})
    twin.patches, twin.backup = {}, {}
    twin.model_options = {"transformer_options": {}}
    for layer in cross_attentions(twin):
        term = _held(model)[cross_attentions(twin).index(layer)]
        scale = 0.8
        keys, values = (part[:1].clone() for part in (term.keys, term.values))
        twin.model.get_submodule(f"{layer.name}.attn2").register_buffer("face_keys", keys)
        module = twin.model.get_submodule(f"{layer.name}.attn2")

        def forward(x, context=None, value=None, mask=None, transformer_options=None,
                    module=module, keys=keys, values=values, scale=scale):
            q = module.to_q(x)
            out = _attend_text(q, module.to_k(context), module.to_v(context), module.heads)
            return module.to_out(out + scale * _attend(q, keys, values, module.heads))

        module.forward = forward
    return twin


def _attend_text(q, keys, values, heads):
    return _attend(q, keys, values, heads)


@UNETS
@PATCHES
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
def test_gradients_are_those_of_a_network_that_has_the_patch_written_into_its_layers(
        name, patch, checkpointing, tmp_path):
    with torch.inference_mode():
        model = patch(training_models.make_model(name))
    trainer = _trainer(model, tmp_path, name, gradient_checkpointing=checkpointing)
    found = _gradients(trainer)  # loads the MODEL: its weights carry the file's LoRA now
    wanted = _gradients(_trainer(_written_out(model), tmp_path, name))
    assert found.keys() == wanted.keys()
    for path, value in wanted.items():
        assert (found[path] - value).norm() <= 1e-4 * value.norm() + 1e-9, path


@UNETS
@PATCHES
def test_gradients_agree_with_finite_differences(name, patch, tmp_path):
    trainer = _trainer(patch(training_models.make_model(name)), tmp_path, name)
    found = _gradients(trainer)
    norm = torch.stack([value.norm() for value in found.values()]).norm()
    values = []
    with torch.no_grad(), trainer.attached():
        for size in (1e-2, -2e-2, 1e-2):
            for path, layer in trainer.adapters.layers.items():
                for part, value in layer.named_parameters():
                    value += size * found[f"{path}.{part}"] / norm
            values.append(_loss(trainer).double().item())
    assert (values[0] - values[1]) / 2e-2 == pytest.approx(norm.item(), rel=5e-3)


@PATCHES
def test_training_sees_the_patch(patch, tmp_path):
    model = training_models.make_model("sd15")
    losses = []
    for each in (model, patch(model), patch(model, seed=4)):
        trainer = _trainer(each, tmp_path, "sd15")
        with torch.no_grad(), trainer.attached():
            losses.append(float(_loss(trainer)))
    assert len({round(loss, 4) for loss in losses}) == 3


@PATCHES
def test_patch_and_cached_models_stay_as_they_were(patch, tmp_path):
    with torch.inference_mode():
        model = training_models.make_model("sd15")
        patched = patch(model)
    before, terms = training_models.weights(model), _held(patched)
    copies = [(term.keys.clone(), term.values.clone()) for term in terms]
    options, key = patched.model_options, model_key(patched)
    trainer = _trainer(patched, tmp_path, "sd15")
    with closing(trainer.run()) as steps:
        assert len(list(steps)) == 3
    assert patched.model_options is options and _held(patched) == terms
    for term, (keys, values) in zip(terms, copies, strict=True):
        assert torch.equal(term.keys, keys) and torch.equal(term.values, values)
        assert term.keys.grad is None and not term.keys.requires_grad
    assert model_key(patched) == key
    trainer.patcher.unpatch_model()
    training_models.assert_same_weights(model, before)


def test_training_gets_tensors_of_its_own_that_autograd_may_save():
    with torch.inference_mode():
        model = training_models.make_model("sd15")
    for patched in (_with_plain(model), _with_face(model)):
        with torch.inference_mode(False):
            replaced = training_options(patched.model_options, CPU)["patches_replace"]["attn2"]
        for layer in cross_attentions(model):
            original = attention_patch(patched, layer.place).terms[0]
            own = replaced[tuple(layer.place)].terms[0]
            assert original.keys.is_inference() and not own.keys.is_inference()
            assert not own.values.is_inference() and torch.equal(own.keys, original.keys)


def test_a_window_acts_at_its_noise_levels_alone(tmp_path):
    model = training_models.make_model("sd15")
    sampling = model.get_model_object("model_sampling")
    inside, outside = (sampling.percent_to_sigma(share) for share in (0.3, 0.8))
    patched = _with_window(model, 0.2, 0.5)
    errors = {}
    for sigma in (inside, outside):
        for each, found in ((model, "plain"), (patched, "patched")):
            trainer = _trainer(each, tmp_path, "sd15")
            batch = collate(trainer.samples[:1], main_captions(trainer.samples[:1]), CPU)
            with torch.no_grad(), trainer.attached():
                errors[sigma, found] = float(trainer.loss(batch, torch.tensor([float(sigma)]),
                                                          torch.ones(batch.latents.shape)))
    assert errors[inside, "plain"] != errors[inside, "patched"]
    assert errors[outside, "plain"] == errors[outside, "patched"]


def test_a_window_takes_one_photo_at_a_time(tmp_path):
    model = training_models.make_model("sd15")
    for patched in (_with_window(model, 0.2, 1.0), _with_face(model, end=0.5)):
        with pytest.raises(LikenessError, match=r"set `batch_size` to 1, or its start to 0"):
            _trainer(patched, tmp_path, "sd15", batch_size=2)
        _trainer(patched, tmp_path, "sd15", batch_size=1)
    _trainer(_with_window(model, 0.0, 1.0), tmp_path, "sd15", batch_size=2)


def test_a_window_inside_any_term_is_found(tmp_path):
    patched = _with_window(training_models.make_model("sd15"), 0.2, 1.0)
    place = cross_attentions(patched)[0].place
    hidden = _Plain(torch.zeros(1, 1, 32), torch.zeros(1, 1, 32))
    hidden.inner = [attention_patch(patched, place).terms[0]]
    model = add_to_attention(training_models.make_model("sd15"), {place: hidden})
    with pytest.raises(LikenessError, match="only during a part of sampling"):
        _trainer(model, tmp_path, "sd15", batch_size=2)


def _foreign_replacement(model):
    clone = model.clone()
    clone.set_model_attn2_replace(lambda q, k, v, extra_options: q, "input", 1, 0)
    return clone


def _below_ours(model):
    return _with_plain(_foreign_replacement(model))


def _foreign_patch(model):
    clone = model.clone()
    clone.set_model_attn1_output_patch(lambda out, extra_options: out)
    return clone


def _foreign_wrapper(model):
    clone = model.clone()
    clone.set_model_unet_function_wrapper(lambda apply, given: given)
    return clone


@pytest.mark.parametrize(("foreign", "named"), [
    (_foreign_replacement, "attention patches"), (_below_ours, "attention patches"),
    (_foreign_patch, "patches"), (_foreign_wrapper, "a wrapper")])
def test_patches_of_other_nodes_are_refused(foreign, named, tmp_path):
    model = foreign(training_models.make_model("sd15"))
    with pytest.raises(LikenessError, match=f"carries {named} of other nodes"):
        _trainer(model, tmp_path, "sd15")


@PATCHES
def test_a_run_is_told_by_what_its_patch_holds(patch):
    model = training_models.make_model("sd15")
    keys = [model_key(each)
            for each in (model, patch(model), patch(model, seed=4), patch(model))]
    assert keys[1] == keys[3] and len(set(keys)) == 3


def test_sampling_with_a_window_does_not_change_what_a_run_is_told_by(tmp_path):
    patched = _with_face(training_models.make_model("sd15"), start=0.1, end=0.9)
    before = model_key(patched)
    others = {model_key(_with_face(training_models.make_model("sd15"), **window))
              for window in ({"start": 0.2, "end": 0.9}, {"start": 0.1, "end": 0.8},
                             {"start": 0.1, "end": 0.9, "weight": 0.7}, {})}
    text = [[torch.zeros(1, 12, 64), {}]]
    pictures.sample(patched, text, text, (8, 8), 1, pictures.Sampling(steps=2))
    assert _held(patched)[0].window._seen[0][1] is not None
    assert model_key(patched) == before
    assert before not in others and len(others) == 4
