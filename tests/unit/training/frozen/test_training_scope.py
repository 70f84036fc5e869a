"""Whatever ends a run, the cached MODEL is bit for bit and object for object what it was."""

from __future__ import annotations

from contextlib import closing

import comfy.model_management
import comfy.model_patcher
import pytest
import torch
import training_models
from likeness.nodes import runtime
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.frozen.scope import Scope
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.steps.loop import Trainer
from torch import nn

INFERENCE = pytest.mark.parametrize("inference", [False, True], ids=["normal", "inference mode"])


def _model_and_trainer(folder, inference, name="flux", **fields):
    with torch.inference_mode(inference):
        model = training_models.make_model(name)
        training_set = training_models.make_training_set(folder, name)
        recipe = LoRARecipe(**{"steps": 4, "rank": 4, "learning_rate": 1e-3, **fields})
        return model, Trainer(model, training_set, recipe, seed=1)


class Untouched:
    """Asserts that a MODEL comes out of a block as it went in."""

    def __init__(self, model):
        self.model = model

    def __enter__(self):
        self.tree, self.weights = training_models.tree(self.model), training_models.weights(
            self.model)

    def __exit__(self, *_):
        assert training_models.tree(self.model) == self.tree
        training_models.assert_same_weights(self.model, self.weights)


def _losses(trainer):
    with closing(trainer.run()) as steps:
        return [step.loss for step in steps]


@INFERENCE
def test_leaving_the_loop_early_undoes_everything(inference, tmp_path):
    model, trainer = _model_and_trainer(tmp_path, inference)
    with torch.inference_mode(inference), Untouched(model):
        with closing(trainer.run()) as steps:
            next(steps)
            assert "forward" in vars(model.model.diffusion_model.img_in)


@INFERENCE
def test_an_error_of_the_consumer_undoes_everything(inference, tmp_path):
    model, trainer = _model_and_trainer(tmp_path, inference)
    with torch.inference_mode(inference), Untouched(model):
        with pytest.raises(ZeroDivisionError), closing(trainer.run()) as steps:
            for step in steps:
                raise ZeroDivisionError(step)


@INFERENCE
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
def test_a_cancel_in_the_middle_of_an_operation_undoes_everything(inference, checkpointing,
                                                                  tmp_path):
    model, trainer = _model_and_trainer(tmp_path, inference, gradient_checkpointing=checkpointing)
    whole = _losses(_model_and_trainer(tmp_path, inference)[1])

    def cancel(*_):
        comfy.model_management.interrupt_current_processing()

    with torch.inference_mode(inference), Untouched(model):
        with pytest.raises(runtime.Interrupted), closing(trainer.run()) as steps:
            next(steps)
            hook = model.model.diffusion_model.single_blocks[0].register_forward_pre_hook(cancel)
            try:
                next(steps)
            finally:
                hook.remove()
        assert not comfy.model_management.processing_interrupted()
        assert trainer.step == 1 and trainer.whole
        _losses(trainer)
        assert trainer.losses == whole


@INFERENCE
def test_a_cancel_in_the_backward_pass_undoes_everything(inference, tmp_path):
    model, trainer = _model_and_trainer(tmp_path, inference, gradient_checkpointing=True)
    runs = []

    def cancel_second_run(*_):
        runs.append(None)
        if len(runs) == 2:  # a checkpointed block runs again when its gradient is asked for
            comfy.model_management.interrupt_current_processing()

    with torch.inference_mode(inference), Untouched(model):
        layer = model.model.diffusion_model.single_blocks[0].linear1
        hook = layer.register_forward_pre_hook(cancel_second_run)
        with pytest.raises(runtime.Interrupted):
            _losses(trainer)
        hook.remove()
        assert len(runs) == 2 and trainer.step == 0


@INFERENCE
def test_an_error_in_the_backward_pass_undoes_everything(inference, tmp_path):
    model, trainer = _model_and_trainer(tmp_path, inference, gradient_checkpointing=False)

    def fail(*_):
        raise ArithmeticError("in backward")

    def watch(module, args, output):
        output.register_hook(fail)

    with torch.inference_mode(inference), Untouched(model):
        hook = model.model.diffusion_model.single_blocks[1].linear2.register_forward_hook(watch)
        with pytest.raises(ArithmeticError):
            _losses(trainer)
        hook.remove()


def test_an_error_while_attaching_undoes_everything(tmp_path):
    model, trainer = _model_and_trainer(tmp_path, False)
    layer = model.model.diffusion_model.single_blocks[1].linear2
    layer.forward = lambda x: x
    with Untouched(model), pytest.raises(LikenessError, match="replaced by another extension"):
        _losses(trainer)
    del layer.forward


def test_the_modes_of_autograd_do_not_leak_into_the_consumer(tmp_path):
    _, trainer = _model_and_trainer(tmp_path, True)
    with torch.inference_mode(), closing(trainer.run()) as steps:
        for _ in steps:
            assert torch.is_inference_mode_enabled() and not torch.is_grad_enabled()
    with torch.no_grad(), closing(_model_and_trainer(tmp_path, False)[1].run()) as steps:
        next(steps)
        assert not torch.is_grad_enabled()


def test_a_run_after_a_cancelled_one_gives_the_same_as_without_it(tmp_path):
    model, trainer = _model_and_trainer(tmp_path, True)
    with torch.inference_mode():
        training_set = training_models.make_training_set(tmp_path, "flux")
        undisturbed = _losses(trainer)
        cancelled = Trainer(model, training_set, trainer.recipe, seed=2)
        with closing(cancelled.run()) as steps:
            next(steps)
        again = Trainer(model, training_set, trainer.recipe, seed=1)
        assert _losses(again) == undisturbed


def test_changes_are_undone_last_in_first_out_even_when_one_fails():
    class Owner:
        value = "class"

    owner, module = Owner(), nn.Linear(2, 2)
    weight = module.weight
    scope = Scope()
    scope.set_attribute(owner, "value", "first")
    scope.set_attribute(owner, "value", "second")
    scope.swap_parameter(module, "weight", torch.zeros(2, 2))
    scope.override_forward(module, lambda x: x)
    scope.freeze(weight)
    assert owner.value == "second" and not module.weight.any() and not weight.requires_grad
    scope._undo.append(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scope.close()
    assert vars(owner) == {} and owner.value == "class"
    assert module.weight is weight and weight.requires_grad and "forward" not in vars(module)
    scope.close()


def test_what_a_hosts_own_trainer_left_on_a_module_is_tolerated_and_put_back():
    module = nn.Linear(2, 2)
    module.forward = left = module.forward  # core's bypass mode leaves the bound method behind
    with Scope() as scope:
        scope.override_forward(module, lambda x: x + 1)
        assert torch.equal(module(torch.zeros(1)), torch.ones(1))
    assert module.forward is left


def test_small_tensors_born_under_inference_mode_become_ones_autograd_can_save():
    with torch.inference_mode():
        model = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4))
        norm, linear = model
    with torch.inference_mode(False), Scope() as scope:
        scope.borrow_small_tensors(model, [linear])
        x = torch.randn(2, 4, requires_grad=True)
        norm(x).sum().backward()
        assert not norm.weight.is_inference() and not norm.weight.requires_grad
        assert linear.weight.is_inference() and not linear.weight.requires_grad
    assert norm.weight.is_inference() and norm.weight.requires_grad
    assert linear.weight.requires_grad


def test_an_error_inside_the_hosts_clone_is_not_taken_for_an_old_host():
    class Host:
        def is_dynamic(self):
            return False

        def clone(self, disable_dynamic=False):
            raise TypeError("cannot copy a stream")

    with pytest.raises(TypeError, match="cannot copy a stream"):
        runtime.training_clone(Host())


def test_a_clone_for_training_shares_the_weights_of_a_model_that_no_core_loader_made():
    model = training_models.make_model("flux")
    assert runtime.training_clone(model).model is model.model


def _streamed(model, loader=None):
    """The MODEL as a host that streams its weights knows it."""
    class Streamed(type(model)):
        def is_dynamic(self):
            return True

    model.__class__ = Streamed
    model.cached_patcher_init = None if loader is None else (loader, ("flux",))
    return model


STREAMS = hasattr(comfy.model_patcher.ModelPatcher, "is_dynamic")


@pytest.mark.skipif(not STREAMS, reason="this host never streams a MODEL's weights")
def test_a_streamed_model_is_loaded_again_for_training_with_its_patches():
    def load(name, disable_dynamic):
        assert disable_dynamic
        return training_models.make_model(name)

    model = _streamed(training_models.make_model("flux"), load)
    key = "diffusion_model.img_in.weight"
    model.add_patches({key: ("diff", (torch.ones_like(model.model.diffusion_model.img_in.weight),
                                      ))})
    clone = runtime.training_clone(model)
    assert clone.model is not model.model and not clone.is_dynamic()
    assert list(clone.patches) == [key]


@pytest.mark.skipif(not STREAMS, reason="this host never streams a MODEL's weights")
def test_a_streamed_model_of_an_unknown_loader_is_refused_in_a_sentence():
    with pytest.raises(LikenessError, match="load it with a core loader, or start ComfyUI with "
                                            "--disable-dynamic-vram"):
        runtime.training_clone(_streamed(training_models.make_model("flux")))
