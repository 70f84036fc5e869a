"""What users' saved graphs rely on: ids, texts and the order of widgets."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import likeness
import pytest

SNAPSHOT = Path(__file__).with_name("widget_order.json")


def _nodes() -> list:
    extension = asyncio.run(likeness.comfy_entrypoint())
    return asyncio.run(extension.get_node_list())


NODES = _nodes()
EXPECTED = {
    "LikenessCropPhotos", "LikenessCaptionPhotos", "LikenessSavePhotos",
    "LikenessLoadPhotos", "LikenessCuratePhotos", "LikenessSubject", "LikenessPrepareTraining",
    "LikenessSelectPhotos", "LikenessCoach",
    "LikenessLoRARecipe", "LikenessQLoRARecipe", "LikenessDoRARecipe", "LikenessLoHaRecipe",
    "LikenessLoKrRecipe", "LikenessOFTRecipe", "LikenessDreamBoothRecipe",
    "LikenessTextualInversionRecipe", "LikenessPivotalRecipe", "LikenessRecipePreset",
    "LikenessObjectiveOptions", "LikenessIdentityLossOptions", "LikenessStepOptions",
    "LikenessClassPhotos", "LikenessTrainingMonitor", "LikenessTokenStart", "LikenessTrain",
    "LikenessApplyTrained", "LikenessExportKohya",
    "LikenessStyle", "LikenessFaceMeshMap", "LikenessPoseMap", "LikenessControlStack",
    "LikenessApplyControlStack", "LikenessLoadFaceAdapter", "LikenessInjectFace",
    "LikenessLoadRestorer", "LikenessRestoreFaces", "LikenessScore", "LikenessImpostorBank",
    "LikenessPick", "LikenessSweep", "LikenessSweepCell", "LikenessSweepResult", "LikenessReport",
}


def _id(node) -> str:
    return node.GET_SCHEMA().node_id


def test_the_nodes_of_the_whole_path_are_registered():
    assert EXPECTED <= {_id(node) for node in NODES}


@pytest.mark.parametrize("node", NODES, ids=_id)
def test_ids_names_and_categories_follow_the_rules(node):
    schema = node.GET_SCHEMA()
    assert re.fullmatch(r"Likeness[A-Z][A-Za-z]+", schema.node_id)
    assert schema.category.startswith("likeness/")
    assert schema.display_name and schema.display_name.isascii()
    assert len(schema.description) > 40


@pytest.mark.parametrize("node", NODES, ids=_id)
def test_every_input_and_output_has_a_tooltip(node):
    schema = node.GET_SCHEMA()
    for socket in [*schema.inputs, *schema.outputs]:
        name = getattr(socket, "id", None) or socket.display_name
        assert socket.tooltip and len(socket.tooltip) > 15, f"{schema.node_id}.{name}"
    assert all(output.display_name for output in schema.outputs)


def test_widget_order_is_what_saved_workflows_expect():
    """Widgets are stored by position: append inputs at the end, never move or rename one."""
    now = {_id(node): [entry.id for entry in node.GET_SCHEMA().inputs] for node in NODES}
    assert now == json.loads(SNAPSHOT.read_text())


@pytest.mark.parametrize("node", NODES, ids=_id)
def test_every_node_has_a_help_page(node):
    page = Path(likeness.__file__).parent / "web" / "docs" / f"{_id(node)}.md"
    assert page.exists(), f"web/docs/{_id(node)}.md is missing"
    text = page.read_text()
    for entry in node.GET_SCHEMA().inputs:
        assert f"`{entry.id}`" in text, f"{page.name} does not explain `{entry.id}`"


@pytest.mark.parametrize("path", sorted((Path(likeness.__file__).parent / "workflows" / "api").glob(
    "*.json")), ids=lambda path: path.stem)
def test_a_shipped_workflow_gives_every_input_that_a_node_requires(path):
    """Also what users have saved: inputs that came later must be optional."""
    schemas = {_id(node): node.GET_SCHEMA() for node in NODES}
    for entry in json.loads(path.read_text()).values():
        known = schemas.get(entry["class_type"])
        for socket in known.inputs if known else ():
            assert socket.optional or socket.id in entry["inputs"], (
                f"{entry['class_type']}.{socket.id}")
