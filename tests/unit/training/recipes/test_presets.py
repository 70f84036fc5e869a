"""Presets: published settings, chosen by the architecture, with a source for each number."""

from __future__ import annotations

import dataclasses
import json
from types import MappingProxyType

import pytest
import training_models
from likeness.nodes.errors import LikenessError
from likeness.nodes.training.recipes import presets
from likeness.nodes.training.recipes.fields import BaseWeights, Optimizer
from likeness.nodes.training.recipes.preset_nodes import RecipePresetNode

PORTRAITS = {"sd15": "sd15_portrait", "sdxl": "sdxl_portrait", "sd3": "sd3_portrait",
             "flux": "flux_portrait", "z_image": "z_image_portrait",
             "qwen_image": "generic_flow", "wan": "generic_flow", "chroma": "generic_flow"}
BY_ID = {preset.id: preset for preset in presets.PRESETS}


def run(model, preset="auto", steps=0, **inputs):
    recipe, count, text = RecipePresetNode.execute(model, preset, steps, **inputs).args
    return recipe, count, json.loads(text)


@pytest.fixture(scope="module")
def sdxl():
    return training_models.make_model("sdxl")


@pytest.mark.parametrize("name", PORTRAITS)
def test_auto_takes_the_portrait_preset_of_the_models_architecture(name):
    _, _, report = run(training_models.make_model(name))
    assert report["preset"] == PORTRAITS[name]


@pytest.mark.parametrize("classes, flow, wanted", [
    (("SSD1B", "SDXL", "BASE"), False, "sdxl"), (("FluxSchnell", "Flux", "BASE"), True, "flux"),
    (("Flux2", "Flux", "BASE"), True, "generic_flow"),
    (("SDXLRefiner", "BASE"), False, "generic_noise"), (("SD20", "BASE"), False, "generic_noise"),
])
def test_an_architecture_is_told_by_the_hosts_class_and_its_bases(classes, flow, wanted):
    assert presets.architecture_of(classes, flow) == wanted


@pytest.mark.parametrize("preset", presets.PRESETS, ids=lambda preset: preset.id)
def test_every_preset_makes_a_recipe_that_holds_its_own_numbers(preset):
    recipe = preset.make(10)
    assert recipe.steps == preset.pace.steps(10)
    assert all(getattr(recipe, name) == setting.value
               for name, setting in preset.settings.items())
    for name, setting in (preset.tokens or {}).items():
        assert getattr(recipe.tokens, name) == setting.value


@pytest.mark.parametrize("preset", presets.PRESETS, ids=lambda preset: preset.id)
def test_the_report_has_every_field_of_the_recipe_with_a_source(preset):
    recipe = preset.make(10)
    report = json.loads(json.dumps(preset.report(recipe, 10)))
    fields = {field.name for field in dataclasses.fields(recipe)}
    if recipe.tokens is None:
        fields -= {"tokens"}
    assert report["settings"].keys() == fields
    told = [*(entry for name, entry in report["settings"].items() if name != "tokens"),
            *report["settings"].get("tokens", {}).values(), *report["advice"].values()]
    assert all(entry["source"] for entry in told)
    assert all(entry["url"].startswith("https://") for entry in told if "url" in entry)


def test_numbers_that_are_published_name_where():
    settings = BY_ID["sdxl_portrait"].report(BY_ID["sdxl_portrait"].make(10), 10)["settings"]
    assert settings["learning_rate"]["url"] == presets.STUDIO.url
    assert "url" not in settings["gradient_clip"]


def test_numbers_that_depart_from_their_source_say_so():
    def told(name):
        settings = BY_ID[name].report(BY_ID[name].make(10), 10)["settings"]
        return {field for field, entry in settings.items()
                if entry.get("source", "").startswith("adapted from")}

    assert told("sd15_portrait") == {"steps", "learning_rate"}
    assert told("sdxl_8gb") == {"learning_rate"}
    for name in ("sd15_pivotal", "sd15_dreambooth", "sd15_textual_inversion", "sdxl_pivotal",
                 "sdxl_dreambooth"):
        assert told(name) == {"steps"}
    # These are taken as they are published, or their source says that none are.
    assert not any(map(told, ("sdxl_portrait", "flux_portrait", "z_image_portrait",
                              "sd3_portrait")))


@pytest.mark.parametrize("photos, wanted", [(2, 1500), (20, 2400), (100, 3500)])
def test_steps_are_so_many_per_photo_within_limits(photos, wanted):
    assert BY_ID["sdxl_portrait"].pace.steps(photos) == wanted


def test_the_training_sets_photos_decide_the_steps(sdxl, tmp_path):
    photos = training_models.make_training_set(tmp_path, "sdxl", ((16, 16),) * 15)
    recipe, steps, report = run(sdxl, training_set=photos)
    assert recipe.steps == steps == 1800
    assert report["settings"]["steps"]["formula"].startswith("120 x 15 photos")


def test_steps_of_the_node_take_the_formulas_place(sdxl):
    recipe, steps, report = run(sdxl, steps=7)
    assert recipe.steps == steps == 7
    assert report["settings"]["steps"] == {"value": 7, "source": "the node's own `steps`"}


def test_options_win_and_the_report_says_so(sdxl):
    recipe, _, report = run(sdxl, options=MappingProxyType({"min_snr": 0.0, "ema": 0.9}))
    assert (recipe.min_snr, recipe.ema) == (0.0, 0.9)
    assert report["settings"]["ema"] == {"value": 0.9, "source": "the connected options"}
    assert report["settings"]["min_snr"]["source"] == "the connected options"


def test_options_that_a_technique_lacks_are_refused(sdxl):
    with pytest.raises(LikenessError, match="`factor` is no setting of the technique `lora`"):
        run(sdxl, options=MappingProxyType({"factor": 4}))


def test_a_preset_of_another_architecture_is_refused(sdxl):
    with pytest.raises(LikenessError, match="`FLUX.1 portrait` is for FLUX.1, and the connected "
                                            "MODEL is SDXL; choose auto or one of SDXL portrait"):
        run(sdxl, "FLUX.1 portrait")


def test_a_generic_preset_of_the_other_kind_of_model_is_refused(sdxl):
    with pytest.raises(LikenessError, match="generic flow"):
        run(sdxl, "generic flow")
    assert run(sdxl, "generic noise")[2]["preset"] == "generic_noise"


def test_a_preset_that_is_not_there_is_refused(sdxl):
    with pytest.raises(LikenessError, match="There is no preset `best`"):
        run(sdxl, "best")


def test_a_negative_number_of_steps_is_refused(sdxl):
    with pytest.raises(LikenessError, match="`steps` must be 0 or more, got -1"):
        run(sdxl, steps=-1)


def test_pivotal_presets_teach_a_word_beside_the_adapters(sdxl):
    recipe, _, report = run(sdxl, "SDXL pivotal")
    assert recipe.method == "lora" and recipe.tokens.share == 0.5
    assert report["settings"]["tokens"]["learning_rate"]["value"] == 3e-4


def test_the_low_memory_preset_keeps_four_bits_and_eight_bit_states():
    recipe = BY_ID["flux_low_memory"].make(10)
    assert recipe.base_weights is BaseWeights.NF4
    assert recipe.optimizer is Optimizer.ADAMW_8BIT
    assert recipe.batch_size == 1 and recipe.gradient_checkpointing


def test_presets_without_published_face_numbers_say_so():
    assert {preset.id for preset in presets.PRESETS if not preset.published} == {
        "sdxl_dreambooth", "sd3_portrait", "generic_flow", "generic_noise"}


def test_ids_and_titles_are_each_used_once():
    for names in ([preset.id for preset in presets.PRESETS],
                  [preset.title for preset in presets.PRESETS]):
        assert len(set(names)) == len(names)
