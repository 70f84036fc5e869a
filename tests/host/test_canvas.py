"""The workflows on the real canvas: every node known, and queued as the API file says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.makers import canvas

ROOT = Path(__file__).resolve().parents[2]
GRAPHS = sorted((ROOT / "workflows").glob("*.json"))


def _load(page, graph: dict) -> dict:
    """Load a graph and answer what the frontend made of it."""
    return json.loads(page.evaluate("""async graph => {
        await window.app.loadGraphData(graph)
        const prompt = (await window.app.graphToPrompt()).output
        const nodes = window.app.graph.nodes ?? window.app.graph._nodes
        const known = window.LiteGraph.registered_node_types
        return JSON.stringify({prompt, missing: nodes.map(n => n.type).filter(t => !(t in known)),
                               groups: window.app.graph._groups.map(g => g.title),
                               count: nodes.length})
    }""", graph))


def _without_places(graph: dict) -> dict:
    """What a graph says: its nodes with what they are given, and its links."""
    nodes = [{name: value for name, value in node.items() if name in (
        "id", "type", "title", "inputs", "widgets_values", "mode")}
        | {"linked": [output.get("links") for output in node.get("outputs", ())
                      if output.get("links")]} for node in graph["nodes"]]
    return {"nodes": sorted(nodes, key=lambda node: node["id"]), "links": graph["links"],
            "groups": [group["title"] for group in graph["groups"]]}


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_the_graph_is_drawn_from_the_api_file(object_info, path):
    prompt = json.loads((ROOT / "workflows" / "api" / path.name).read_text())
    layout = json.loads((canvas.LAYOUTS / path.name).read_text())
    drawn, kept = canvas.to_graph(prompt, object_info, layout), json.loads(path.read_text())
    if object_info["SaveImage"]["output"]:  # newer hosts' core nodes have more outputs, so stand
        drawn, kept = _without_places(drawn), _without_places(kept)  # elsewhere
    assert kept == drawn, (
        f"draw it again: python -m launcher.makers.canvas {path.stem} OBJECT_INFO.json")


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_the_canvas_queues_what_the_api_file_says(page, path):
    graph = json.loads(path.read_text())
    seen = _load(page, graph)
    assert seen["missing"] == []
    assert seen["count"] == len(graph["nodes"])
    assert seen["groups"] == [group["title"] for group in graph["groups"]]
    wanted = json.loads((ROOT / "workflows" / "api" / path.name).read_text())
    numbers = {key: str(index) for index, key in enumerate(wanted, start=1)}
    for key, entry in wanted.items():
        queued = seen["prompt"][numbers[key]]
        assert queued["class_type"] == entry["class_type"]
        for name, value in entry["inputs"].items():
            linked = isinstance(value, list)
            expected = [numbers[value[0]], value[1]] if linked else value
            assert queued["inputs"][name] == expected, f"{entry['class_type']}.{name}"
