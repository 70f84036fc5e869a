"""What tells one MODEL from another: all that nodes put on it, and nothing that one run remembers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import comfy.hooks
import pytest
import torch
from comfy.model_patcher import PatcherInjection
from comfy.patcher_extension import CallbacksMP, WrappersMP
from likeness.nodes import runtime
from likeness.nodes.tensors import model_key

sys.path.append(str(Path(__file__).parents[2] / "training"))
import training_models  # noqa: E402

WEIGHT = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"


@pytest.fixture(scope="module")
def model():
    with torch.inference_mode():
        return training_models.make_model("sd15")


def scaling(scale):
    return lambda executor, *args, **named: executor(*args, **named) * scale


def wrapped(model, wrapper):
    clone = model.clone()
    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", wrapper)
    return clone


def patched(model, part, name="diffusion_model.out"):
    clone = model.clone()
    clone.add_object_patch(name, part)
    return clone


def injected(model, scale):
    clone = model.clone()
    clone.set_injections("test", [PatcherInjection(scaling(scale), scaling(1))])
    return clone


def hooked(model, value):
    clone, hook = model.clone(), comfy.hooks.WeightHook()
    clone.add_hook_patches(hook, {WEIGHT: ("diff", (torch.full((32, 32), value),))})
    return clone


def called(model, scale):
    clone = model.clone()
    clone.add_callback_with_key(CallbacksMP.ON_PRE_RUN, "test", scaling(scale))
    return clone


def computing(model, dtype):
    clone = model.clone()
    clone.set_model_compute_dtype(dtype)
    return clone


@pytest.mark.parametrize("change, one, other", [
    (lambda model, scale: wrapped(model, scaling(scale)), 1, 2), (injected, 1, 2),
    (hooked, 0.1, 0.2), (called, 1, 2), (computing, torch.bfloat16, torch.float16),
    (patched, torch.nn.Identity(), torch.nn.SiLU()),
    (patched, torch.nn.LeakyReLU(0.1), torch.nn.LeakyReLU(0.2))],
    ids=["wrappers", "injections", "hooks", "callbacks", "compute", "object", "its numbers"])
def test_all_that_nodes_put_on_a_model_tells_it_from_others(model, change, one, other):
    keys = [model_key(each) for each in (model, change(model, one), change(model, other),
                                        change(model, one), change(model, one).clone())]
    assert len(set(keys)) == 3 and keys[1] == keys[3] == keys[4]


def test_two_functions_of_one_name_are_told_by_what_they_do(model):
    def plain(scale=1):
        return lambda executor, *args: executor(*args) * 2

    def half():
        return lambda executor, *args, scale=0.5: executor(*args) * scale

    def quarter():
        return lambda executor, *args, scale=0.25: executor(*args) * scale

    for maker in (half, quarter):
        maker.__qualname__ = plain.__qualname__
    keys = []
    for maker in (plain, half, quarter):
        function = maker()
        function.__qualname__ = "same"
        keys.append(model_key(wrapped(model, function)))
    assert len(set(keys)) == 3


def test_a_wrapper_that_holds_its_own_model_can_be_told(model):
    def own(strength):
        clone = model.clone()
        clone.add_wrapper(WrappersMP.APPLY_MODEL, lambda run, *args: run(*args, clone, strength))
        return clone

    keys = [model_key(own(strength)) for strength in (1, 1, 2)]
    assert keys[0] == keys[1] != keys[2]


def test_what_has_no_content_is_never_taken_for_another_and_is_said(model, caplog):
    one, other = (wrapped(model, iter((1,))) for _ in range(2))
    assert model_key(one) == model_key(one) != model_key(other)
    assert "cannot be told by its content" in caplog.text


@pytest.mark.usefixtures("_as_the_executor_runs_prompts")
def test_a_replaced_part_is_no_matter_of_whether_it_is_loaded(model):
    other = patched(model, torch.nn.Identity())
    before, base = model_key(other), model_key(model)
    runtime.load_models([other])
    assert other.object_patches_backup
    assert (model_key(other), model_key(model)) == (before, base)
    other.unpatch_model()
    assert model_key(model) == base


@pytest.fixture
def _as_the_executor_runs_prompts():
    with torch.inference_mode():
        yield
