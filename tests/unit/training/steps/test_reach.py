"""Layers that the loss does not reach are left out where they are known, and else named."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import comfy.ops
import comfy.supported_models
import pytest
import torch
import training_models
from likeness.nodes.training.adapters.targets import target_layers
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.recipes.fields import Target
from likeness.nodes.training.run import session
from likeness.nodes.training.steps.loop import Trainer
from technique_jobs import ignore, make_job, make_recipe

from launcher.tiny.checkpoints import empty_unet
from launcher.tiny.networks import NETWORKS

_EMPTY = {"device": "meta", "dtype": torch.float32, "operations": comfy.ops.disable_weight_init}


def _idle(name: str) -> dict[str, torch.nn.Module]:
    network = empty_unet(name)
    parts = ("llm_adapter", "ref_image_refiner")
    return {path: module for path, module in network.named_modules()
            if isinstance(module, torch.nn.Linear) and set(parts) & set(path.split("."))}


@pytest.mark.parametrize("name", [name for name in ("omnigen2", "boogu") if name in NETWORKS])
@pytest.mark.parametrize("target", [Target.ALL_LINEAR, Target.ATTENTION_FEED_FORWARD])
def test_what_reads_reference_pictures_is_no_target(name, target):
    idle = _idle(name)
    assert idle and not idle.keys() & target_layers(empty_unet(name), target).keys()


@pytest.mark.skipif(not hasattr(comfy.supported_models, "Anima"), reason="this host has no Anima")
def test_animas_text_adapter_is_no_target():
    from comfy.ldm.anima.model import Anima

    sizes = {**NETWORKS["cosmos_predict2"].sizes, "in_channels": 16,
             "crossattn_emb_channels": 1024}
    network = Anima(**sizes, **_EMPTY)
    assert any(path.startswith("llm_adapter.") for path, _ in network.named_modules())
    for target in (Target.ALL_LINEAR, Target.ATTENTION, Target.ATTENTION_FEED_FORWARD):
        found = target_layers(network, target)
        assert found and not any("llm_adapter" in path for path in found)


def _missed(name: str, folder: Path, steps: int = 3, **fields) -> tuple[str, ...]:
    recipe = LoRARecipe(steps=steps, rank=4, **fields)
    trainer = Trainer(training_models.make_model(name),
                      training_models.make_training_set(folder, name), recipe, seed=1)
    assert trainer.reach.missed == ()  # before any step nobody knows
    with closing(trainer.run()) as run:
        list(run)
    return trainer.reach.missed


@pytest.mark.parametrize("name", ["sd15", "flux", "z_image"])
def test_where_every_layer_is_reached_none_is_named(name, tmp_path):
    assert _missed(name, tmp_path) == ()


def test_layers_behind_the_last_use_of_the_text_are_named(tmp_path):
    missed = _missed("qwen_image", tmp_path)
    assert missed and all(path.startswith("transformer_blocks.1.") for path in missed)
    assert {"transformer_blocks.1.attn.to_add_out"} <= set(missed)


def test_ranks_that_a_step_leaves_out_do_not_make_a_layer_idle(tmp_path):
    assert _missed("flux", tmp_path, steps=8, rank_dropout=0.5) == ()


def test_the_report_names_them_and_a_run_that_trained_nothing_names_none(tmp_path):
    with torch.inference_mode():
        job = make_job("flux", tmp_path, make_recipe("lora"))
        report = session.run(job, ignore).report
        again = session.run(job, ignore).report
    assert report["layers_without_gradient"] == again["layers_without_gradient"] == []
    assert again["reused"] and json.dumps(report)
