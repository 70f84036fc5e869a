"""What files say of their run, in few bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import training_models
from likeness.nodes.sockets import Subject
from likeness.nodes.training.export.metadata import TOLD, metadata
from likeness.nodes.training.recipes.adapters import (
    DoRARecipe,
    LoHaRecipe,
    LoKrRecipe,
    LoRARecipe,
    OFTRecipe,
    QLoRARecipe,
)

LOSSES = [0.1234567890123 / (1 + step / 100) for step in range(5000)]


def _fields(folder, kind, losses=LOSSES, recipe=None, **said):
    subject = Subject("Ann", "ohwx", "woman", (), (), {}, {}, np.zeros((478, 3)))
    told = {"losses": losses, "looks": [], "loss_by_noise": [], "kept_step": None, "ended": "",
            **said}
    return metadata(training_models.make_model("sd15"),
                    training_models.make_training_set(folder, "sd15"), subject,
                    recipe or LoRARecipe(), 1, "ann", "key", told, kind)


@pytest.mark.parametrize(("kind", "count", "size"), [
    ("embedding", 500, 12_000), ("lora", 5000, 130_000), ("checkpoint", 5000, 130_000)])
def test_a_long_run_says_its_losses_in_few_bytes(kind, count, size, tmp_path):
    fields = _fields(tmp_path, kind)
    losses = json.loads(fields["likeness.losses"])
    assert len(losses) == count
    assert losses[0] == pytest.approx(LOSSES[0], rel=1e-4)
    assert losses[-1] == pytest.approx(LOSSES[-1], rel=1e-4)
    assert sum(map(len, fields.values())) < size


@pytest.mark.parametrize("kind", ["embedding", "lora"])
def test_the_number_of_steps_does_not_hang_on_the_kept_losses(kind, tmp_path):
    fields = _fields(tmp_path, kind)
    told = {name: json.loads(fields[f"likeness.{name}"]) for name in TOLD}
    assert told["steps"] == json.loads(fields["ss_steps"]) == 5000
    again = _fields(tmp_path, kind, **told)
    assert all(again[f"likeness.{name}"] == fields[f"likeness.{name}"] for name in TOLD)


def test_losses_that_are_few_all_stay(tmp_path):
    losses = json.loads(_fields(tmp_path, "embedding", LOSSES[:500])["likeness.losses"])
    assert losses == pytest.approx(LOSSES[:500], rel=1e-4)


def test_qlora_files_name_the_network_that_loads_them(tmp_path):
    fields = _fields(tmp_path, "lora", LOSSES[:3], QLoRARecipe())
    assert fields["ss_network_module"] == "networks.lora"


@pytest.mark.parametrize(("recipe", "wanted"), [
    (DoRARecipe(), {"algo": "lora", "dora_wd": "True", "wd_on_output": "False"}),
    (LoHaRecipe(), {"algo": "loha"}), (LoKrRecipe(factor=16), {"algo": "lokr", "factor": "16"}),
    (OFTRecipe(), {"algo": "diag-oft"})], ids=lambda value: getattr(value, "method", ""))
def test_files_of_lycoris_techniques_name_their_algorithm(recipe, wanted, tmp_path):
    fields = _fields(tmp_path, "lora", LOSSES[:3], recipe)
    assert fields["ss_network_module"] == "lycoris.kohya"
    assert json.loads(fields["ss_network_args"]) == wanted


def test_the_size_of_an_oft_and_of_a_rank_stabilised_lora_is_said_as_kohyas_scripts_read_it(
        tmp_path):
    rotation = _fields(tmp_path, "lora", LOSSES[:3], OFTRecipe(block_size=32))
    assert rotation["ss_network_dim"] == "32"
    stable = _fields(tmp_path, "lora", LOSSES[:3],
                     LoRARecipe(rank=16, alpha=8.0, rank_stabilised=True))
    assert (stable["ss_network_dim"], stable["ss_network_alpha"]) == ("16", "32.0")
    assert "ss_network_args" not in stable
