"""Text encoders learn through the host's CLIP, which comes out of a run as it went in."""

from __future__ import annotations

import comfy.model_management
import pytest
import text_models
import torch
import training_models
from likeness.nodes import runtime
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.frozen.scope import Scope
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.recipes.base import TokenSettings
from likeness.nodes.training.recipes.fields import Optimizer, Target
from likeness.nodes.training.recipes.whole import TextualInversionRecipe
from likeness.nodes.training.steps.optimizers import make_optimizer
from likeness.nodes.training.text.encoders import TextEncoders

EVERY = pytest.mark.parametrize("name", text_models.ENCODERS)
INFERENCE = pytest.mark.parametrize("inference", [False, True], ids=["normal", "inference mode"])
CAPTION = "photo of ohwx man, smiling"


def _text(clip, tokens=True, **fields):
    fields = {"rank": 4, "text_encoder": True, "target": Target.ALL_LINEAR, **fields}
    recipe = LoRARecipe(tokens=TokenSettings() if tokens else None, **fields)
    return TextEncoders(clip, recipe, "ohwx", "man", generator=torch.Generator().manual_seed(0))


class Untouched:
    """Asserts that a CLIP comes out of a block as it went in."""

    def __init__(self, clip):
        self.patcher, self.tokenizer = clip.patcher, clip.tokenizer

    def _words(self):
        return {name: dict(vars(value)) for name, value in vars(self.tokenizer).items()
                if hasattr(value, "embedding_directory")}

    def __enter__(self):
        self.tree = training_models.tree(self.patcher)
        self.weights, self.words = training_models.weights(self.patcher), self._words()

    def __exit__(self, *_):
        assert training_models.tree(self.patcher) == self.tree
        training_models.assert_same_weights(self.patcher, self.weights)
        assert self._words() == self.words


def _gradients(text):
    text.prepare()
    with torch.inference_mode(False), torch.enable_grad(), Scope() as scope:
        text.attach(scope)
        out = text_models.flat(text.encode(CAPTION))
        pull = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        return torch.autograd.grad((out * pull).sum(), text.parameters())


@EVERY
@INFERENCE
def test_training_leaves_the_clip_untouched(name, inference, tmp_path):
    with torch.inference_mode(inference):
        clip = text_models.make_clip(name, tmp_path)
        stock = text_models.stock_encode(clip, CAPTION)
        with Untouched(clip):
            text = _text(clip)
            assert all(part.abs().sum() > 0 for part in _gradients(text)
                       if part.shape[0] == 2)  # the rows
        assert torch.equal(text_models.stock_encode(clip, CAPTION), stock)


@EVERY
def test_an_earlier_end_layer_is_trained_through_and_put_back(name, tmp_path):
    clip = text_models.make_clip(name, tmp_path).clone()
    clip.clip_layer(-2)
    wanted = text_models.stock_encode(clip, "photo of man man man, smiling")
    text = _text(clip)
    clip.cond_stage_model.reset_clip_options()
    with Untouched(clip), torch.enable_grad(), Scope() as scope:
        text.attach(scope)
        found = text_models.flat(text.encode(CAPTION)).detach()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@INFERENCE
def test_an_error_inside_leaves_the_clip_untouched(inference, tmp_path):
    with torch.inference_mode(inference):
        clip = text_models.make_clip("flux", tmp_path)
        text = _text(clip)
        with Untouched(clip), pytest.raises(ZeroDivisionError), Scope() as scope:
            text.attach(scope)
            text.encode(CAPTION)
            raise ZeroDivisionError


@INFERENCE
def test_a_cancel_inside_an_encoding_leaves_the_clip_untouched(inference, tmp_path):
    def cancel(*_):
        comfy.model_management.interrupt_current_processing()

    with torch.inference_mode(inference):
        clip = text_models.make_clip("sdxl", tmp_path)
        text = _text(clip)
        with Untouched(clip):
            layer = clip.cond_stage_model.clip_l.transformer.text_model.encoder.layers[1]
            hook = layer.register_forward_pre_hook(cancel)
            with pytest.raises(runtime.Interrupted):
                _gradients(text)
            hook.remove()


def test_another_extensions_layer_is_refused_and_nothing_stays_changed(tmp_path):
    clip = text_models.make_clip("sd15", tmp_path)
    text = _text(clip)
    layer = clip.cond_stage_model.clip_l.transformer.text_model.encoder.layers[1].mlp.fc1
    layer.forward = lambda x: x
    with Untouched(clip), pytest.raises(LikenessError, match="replaced by another extension"):
        _gradients(text)
    del layer.forward


@EVERY
def test_gradients_reach_every_adapter_and_agree_with_differences(name, tmp_path):
    clip = text_models.make_clip(name, tmp_path)
    text = _text(clip, tokens=False)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in text.adapters.layers.values():
            layer.up.copy_(0.05 * torch.randn(layer.up.shape, generator=generator))
    found = _gradients(text)
    assert all(part.abs().sum() > 0 for part in found)
    norm = torch.stack([part.norm() for part in found]).norm().item()
    with torch.inference_mode(False), torch.no_grad(), Scope() as scope:
        text.attach(scope)
        values = []
        for size in (3e-3, -6e-3):
            for parameter, part in zip(text.parameters(), found, strict=True):
                parameter.add_(size * part / norm)
            out = text_models.flat(text.encode(CAPTION)).double()
            pull = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
            values.append((out * pull).sum().item())
    assert (values[0] - values[1]) / 6e-3 == pytest.approx(norm, rel=1e-2)


@EVERY
def test_checkpointing_does_not_change_gradients(name, tmp_path):
    clip = text_models.make_clip(name, tmp_path)
    plain, kept = (_gradients(_text(clip, gradient_checkpointing=flag)) for flag in (False, True))
    for first, second in zip(plain, kept, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


def test_layers_that_sdxl_does_not_read_have_no_adapter(tmp_path):
    text = _text(text_models.make_clip("sdxl", tmp_path), target=Target.ATTENTION_FEED_FORWARD)
    last = "clip_l.transformer.text_model.encoder.layers.2."
    assert len(text.skipped) == 6 and all(path.startswith(last) for path in text.skipped)
    assert not any(path.startswith(last) for path in text.adapters.layers)
    assert any(path.startswith("clip_g.") and ".layers.2." in path
               for path in text.adapters.layers)
    assert not any(name.startswith(f"adapters.{last}") for name in text.tensors())


def test_t5_learns_by_every_preset(tmp_path):
    clip = text_models.make_clip("flux", tmp_path)
    for target, names in ((Target.CROSS_ATTENTION, {"q", "k", "v", "o"}),
                          (Target.ATTENTION_FEED_FORWARD, {"q", "k", "v", "o", "wi_0", "wi_1",
                                                           "wo"})):
        text = _text(clip, tokens=False, target=target)
        assert {path.split(".")[-1] for path in text.adapters.layers
                if path.startswith("t5xxl.")} == names
        gradients = dict(zip(map(id, text.parameters()), _gradients(text), strict=True))
        # While `up` is zero no gradient passes it on to `down`.
        assert all(gradients[id(layer.up)].abs().sum() > 0
                   for layer in text.adapters.layers.values())


def test_a_preset_for_cross_attention_means_the_encoders_attention(tmp_path):
    text = _text(text_models.make_clip("sd15", tmp_path), target=Target.CROSS_ATTENTION)
    assert text.adapters.layers and all("self_attn" in path for path in text.adapters.layers)


def test_switched_off_adapters_leave_the_hosts_encoding(tmp_path):
    clip = text_models.make_clip("sd15", tmp_path)
    text = _text(clip, tokens=False)
    with torch.no_grad():
        for layer in text.adapters.layers.values():
            layer.up.add_(0.1)
    with torch.no_grad(), Scope() as scope:
        text.attach(scope)
        with text.switched_off():
            off = text_models.flat(text.encode("a man"))
        on = text_models.flat(text.encode("a man"))
    wanted = text_models.stock_encode(clip, "a man")
    torch.testing.assert_close(off, wanted, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(on, wanted, atol=1e-3)


def test_learned_values_come_back_in_place(tmp_path):
    clip = text_models.make_clip("sdxl", tmp_path)
    text, other = _text(clip), _text(clip)
    with torch.no_grad():
        for parameter in text.parameters():
            parameter.add_(torch.randn(parameter.shape))
    before = other.parameters()
    other.load_tensors(text.tensors())
    assert all(now is then for now, then in zip(other.parameters(), before, strict=True))
    for first, second in zip(text.parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second)


def test_each_part_has_its_own_learning_rate(tmp_path):
    clip = text_models.make_clip("sd15", tmp_path)
    groups = _text(clip, learning_rate=1e-4, text_rate=0.5, plus_ratio=4.0).parameter_groups()
    assert {group["name"]: group["lr"] for group in groups} == pytest.approx({
        "tokens clip_l": 1e-3, "text adapters x1": 5e-5, "text adapters x4": 2e-4})
    assert [group["weight_decay"] for group in groups] == [0.0, 0.01, 0.01]


@pytest.mark.parametrize("name", ["sdxl", "flux"])
def test_prodigy_takes_new_words_of_several_encoders(name, tmp_path):
    recipe = LoRARecipe(rank=4, text_encoder=True, optimizer=Optimizer.PRODIGY, learning_rate=1.0,
                        text_rate=1.0, tokens=TokenSettings(learning_rate=1.0))
    text = TextEncoders(text_models.make_clip(name, tmp_path), recipe, "ohwx", "man",
                        generator=torch.Generator().manual_seed(0))
    groups = text.parameter_groups()
    assert {group["lr"] for group in groups} == {1.0}
    plain = [{key: value for key, value in group.items() if key != "name"} for group in groups]
    optimizer = make_optimizer(recipe.optimizer, plain, recipe)
    assert len(optimizer.optimizer.param_groups) == len(groups) > 2


def test_a_fixed_caption_is_encoded_once_and_usable_in_a_later_step(tmp_path):
    recipe = TextualInversionRecipe(steps=10)
    with torch.inference_mode():
        text = TextEncoders(text_models.make_clip("sd15", tmp_path), recipe, "ohwx", "man",
                            generator=torch.Generator())
        with Scope() as scope:
            text.attach(scope)
            first = text.encode("")
            with torch.inference_mode(False):
                assert text.encode("") is first
                assert not first[0][0].is_inference()


def test_what_learns_nothing_is_refused(tmp_path):
    with pytest.raises(LikenessError, match="teaches nothing"):
        _text(text_models.make_clip("sd15", tmp_path), tokens=False, text_encoder=False)


def test_weights_stored_in_half_precision_train_in_float32(tmp_path):
    with torch.inference_mode():
        clip = text_models.make_clip("flux", tmp_path, dtype=torch.float16)
        text = _text(clip)
        wanted = text_models.stock_encode(clip, "photo of man man man, smiling")
        assert all(part.dtype == torch.float32 for part in _gradients(text))
        with torch.inference_mode(False), Scope() as scope:
            text.attach(scope)
            found = text_models.flat(text.encode(CAPTION)).detach()
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
