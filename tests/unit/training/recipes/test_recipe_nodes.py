"""Every recipe and option node as the executor calls it: defaults, chains and refusals."""

from __future__ import annotations

import dataclasses

import pytest
from comfy_api.latest import io
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.recipes import option_nodes, recipe_nodes
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.recipes.base import Recipe, TokenSettings
from likeness.nodes.training.recipes.fields import BaseWeights
from likeness.nodes.training.recipes.whole import TextualInversionRecipe

TECHNIQUES = [node for node in recipe_nodes.NODES if hasattr(node, "RECIPE")]
SOURCES = [*TECHNIQUES, recipe_nodes.TextualInversionRecipeNode]


def _id(node) -> str:
    return node.GET_SCHEMA().node_id


def _widgets(node) -> dict:
    """A node's inputs as the canvas first shows them."""
    return {entry.id: entry.default for entry in node.GET_SCHEMA().inputs
            if hasattr(entry, "default")}


def _made(node, **changed):
    return node.execute(**{**_widgets(node), **changed})[0]


COMBOS = [(node, entry.id) for node in [*SOURCES, *option_nodes.NODES]
          for entry in node.GET_SCHEMA().inputs if isinstance(entry, io.Combo.Input)]


def test_every_technique_has_one_recipe_node():
    methods = [node.RECIPE.method for node in TECHNIQUES]
    assert sorted(methods) == sorted(["lora", "qlora", "dora", "loha", "lokr", "oft", "dreambooth"])


# What a technique wants otherwise than the fields that all recipes share.
OWN = {
    "lokr": {"learning_rate": 1e-3}, "oft": {"learning_rate": 1e-3}, "dreambooth": {"steps": 800},
}


@pytest.mark.parametrize("node", TECHNIQUES, ids=_id)
def test_a_recipe_nodes_defaults_are_the_recipes(node):
    own = OWN.get(node.RECIPE.method, {})
    assert _made(node) == node.RECIPE(**own)


def test_textual_inversions_word_learns_at_the_nodes_rate():
    made = _made(recipe_nodes.TextualInversionRecipeNode, learning_rate=3e-3)
    assert made == TextualInversionRecipe(steps=1500, learning_rate=3e-3,
                                          tokens=TokenSettings(learning_rate=3e-3))


def test_pivotal_tuning_keeps_the_recipe_and_adds_a_word():
    lora = LoRARecipe(steps=40, rank=3)
    made = _made(recipe_nodes.PivotalRecipeNode, recipe=lora)
    assert made.tokens == TokenSettings(share=0.5)
    assert dataclasses.replace(made, tokens=None) == lora


def test_every_widget_of_a_recipe_is_one_of_its_fields():
    for node in TECHNIQUES:
        fields = {field.name for field in dataclasses.fields(node.RECIPE)}
        assert _widgets(node).keys() <= fields, _id(node)


@pytest.mark.parametrize("node", option_nodes.NODES, ids=_id)
def test_options_at_their_defaults_change_only_what_the_node_is_for(node):
    changed = {name for name, value in _made(node).items()
               if getattr(Recipe(), name) != value}
    expected = {"LikenessIdentityLossOptions": {"identity_weight"}}
    assert changed == expected.get(_id(node), set())


@pytest.mark.parametrize("node", SOURCES, ids=_id)
def test_every_recipe_takes_the_options_of_a_chain(node):
    options = None
    for link, changed in zip(option_nodes.NODES, (
            {"loss": "huber", "class_weight": 0.5}, {"identity_weight": 0.07},
            {"accumulate": 3, "ema": 0.9}), strict=True):
        options = _made(link, options=options, **changed)
    made = _made(node, options=options)
    assert (made.loss.value, made.class_weight, made.identity_weight, made.accumulate, made.ema) \
        == ("huber", 0.5, 0.07, 3, 0.9)


def test_the_last_node_of_a_chain_counts_and_leaves_the_first_as_it_was():
    first = _made(option_nodes.StepOptionsNode, accumulate=2)
    second = _made(option_nodes.StepOptionsNode, accumulate=5, options=first)
    assert (first["accumulate"], second["accumulate"]) == (2, 5)


def test_step_options_do_not_undo_the_quantisation_that_the_node_shows():
    options = _made(option_nodes.StepOptionsNode, accumulate=2)
    made = _made(recipe_nodes.QLoRARecipeNode, options=options)
    assert (made.base_weights, made.accumulate) == (BaseWeights.NF4, 2)
    options = _made(option_nodes.StepOptionsNode, base_weights="fp8")
    assert _made(recipe_nodes.LoRARecipeNode, options=options).base_weights is BaseWeights.FP8


@pytest.mark.parametrize(("node", "name"), COMBOS,
                         ids=[f"{_id(node)}-{name}" for node, name in COMBOS])
def test_a_combo_value_that_does_not_exist_is_refused_by_name(node, name):
    with pytest.raises(LikenessError, match=f"`{name}` must be one of .*, got nonsense"):
        made = _made(node, **{name: "nonsense"})
        _made(recipe_nodes.LoRARecipeNode, options=made)  # options are checked by the recipe


def test_a_word_is_not_added_to_a_recipe_of_a_word_alone():
    word = _made(recipe_nodes.TextualInversionRecipeNode)
    with pytest.raises(LikenessError, match="Textual Inversion recipe teaches a word alone; "
                                            "connect a LoRA or DreamBooth") as caught:
        _made(recipe_nodes.PivotalRecipeNode, recipe=word)
    assert "\n" not in str(caught.value)


def test_a_word_that_learns_alone_never_stops_before_the_end():
    with pytest.raises(LikenessError, match="`token_share` must be 1 where only a word learns"):
        TextualInversionRecipe(tokens=TokenSettings(share=0.5))


@pytest.mark.parametrize(("node", "changed", "named"), [
    (recipe_nodes.LoRARecipeNode, {"block_ranks": "middle_block: 4"}, "block_ranks"),
    (recipe_nodes.LoRARecipeNode, {"warmup": 1000}, "warmup"),
    (recipe_nodes.PivotalRecipeNode, {"recipe": LoRARecipe(), "token_share": 0.0}, "token_share"),
    (recipe_nodes.TextualInversionRecipeNode, {"vectors": 0}, "vectors"),
    (recipe_nodes.OFTRecipeNode, {"block_size": 1}, "block_size"),
    (recipe_nodes.LoKrRecipeNode, {"factor": 65}, "factor"),
])
def test_a_number_out_of_range_is_refused_by_name(node, changed, named):
    with pytest.raises(LikenessError, match=f"`{named}`"):
        _made(node, **changed)
