"""OFT whose rotations are held (COFT): trained, saved and loaded within its bound."""

from __future__ import annotations

import comfy.lora
import pytest
import technique_jobs as jobs
import torch
from likeness.nodes.training.recipes.recipe_nodes import OFTRecipeNode
from likeness.nodes.training.run import session

CONSTRAINT = 0.05


@pytest.fixture(scope="module")
def changes(tmp_path_factory):
    """What each layer's weights gained, over their spectral norm, by the recipe's constraint."""
    found = {}
    for constraint in (0.0, CONSTRAINT):
        recipe = jobs.make_recipe("oft", constraint=constraint, learning_rate=0.02)
        with torch.inference_mode():
            job = jobs.make_job("flux", tmp_path_factory.mktemp("oft"), recipe)
            outcome = session.run(job, jobs.ignore)
            found[constraint] = outcome, _relative(job.model, outcome.model)
    return found


def _relative(model, trained):
    shares = []
    for key, patches in trained.patches.items():
        weight = model.model.state_dict()[key].float()
        gained = comfy.lora.calculate_weight(patches, weight.clone(), key) - weight
        shares.append(float(gained.norm() / torch.linalg.matrix_norm(weight, 2)))
    return shares


def test_no_layer_leaves_the_original_by_more_than_twice_the_constraint(changes):
    free, held = changes[0.0][1], changes[CONSTRAINT][1]
    assert max(free) > 4 * CONSTRAINT  # the rate alone would go further
    # Of I + Q and I - Q with a skew Q: |R - I| is at most 2 |Q|.
    assert CONSTRAINT < max(held) < 2.001 * CONSTRAINT


def test_the_file_says_the_constraint_and_loads_as_it_was_trained(changes):
    outcome = changes[CONSTRAINT][0]
    alphas = [float(value) for name, value in outcome.tensors.items() if name.endswith(".alpha")]
    assert alphas == pytest.approx([CONSTRAINT] * len(outcome.model.patches))
    assert outcome.report["reload_error"] < 0.01


def test_the_node_hands_the_constraint_to_the_recipe():
    given = {entry.id: entry.default for entry in OFTRecipeNode.GET_SCHEMA().inputs
             if hasattr(entry, "default")}
    assert OFTRecipeNode.execute(**given)[0].constraint == 0
    assert OFTRecipeNode.execute(**{**given, "constraint": 0.5})[0].constraint == 0.5
