"""Recipes: what they accept, what they refuse, and the learning rate over a run."""

from __future__ import annotations

import json

import pytest
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.recipes.adapters import LoRARecipe
from likeness.nodes.training.recipes.fields import Schedule, Target


@pytest.mark.parametrize(("field", "value"), [
    ("steps", 1), ("learning_rate", 0.0), ("learning_rate", 2.0), ("batch_size", 0), ("rank", 0),
    ("alpha", 0.0), ("background", 0.0), ("background", 1.5), ("caption_dropout", 1.0),
    ("min_snr", -1.0), ("warmup", -1), ("warmup", 1000), ("gradient_clip", -0.1),
    ("optimizer", "sgd"), ("schedule", "sudden"), ("target", "everything"),
    ("precision", "float16"), ("timesteps", "often"), ("shift", -1.0), ("weight_decay", 1.5)])
def test_a_value_that_cannot_train_is_refused_by_name(field, value):
    with pytest.raises(LikenessError, match=f"`{field}` must be .*, got {value}"):
        LoRARecipe(**{field: value})


def test_words_become_choices_and_plain_values_again():
    recipe = LoRARecipe(schedule="cosine", target="attention")
    assert recipe.schedule is Schedule.COSINE and recipe.target is Target.ATTENTION
    plain = json.loads(json.dumps(recipe.as_dict()))
    assert plain["method"] == "lora" and plain["schedule"] == "cosine"
    assert plain["target"] == "attention" and plain["rank"] == 8


def test_recipes_with_equal_fields_are_equal():
    assert LoRARecipe(rank=8) == LoRARecipe(rank=8) != LoRARecipe(rank=9)


def test_the_rate_rises_over_the_warm_up_and_stays():
    recipe = LoRARecipe(steps=10, learning_rate=1.0, warmup=4)
    rates = [recipe.learning_rate_at(step) for step in range(10)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8] + [1.0] * 6)


@pytest.mark.parametrize(("schedule", "middle"), [("cosine", 0.5), ("linear", 0.5)])
def test_the_rate_falls_towards_zero(schedule, middle):
    recipe = LoRARecipe(steps=100, learning_rate=1.0, schedule=schedule)
    rates = [recipe.learning_rate_at(step) for step in range(100)]
    assert rates[0] == 1.0 and rates[50] == pytest.approx(middle) and 0 < rates[99] < 0.02
    assert rates == sorted(rates, reverse=True)
