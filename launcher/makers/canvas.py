"""Draws an API prompt as a graph for the canvas (format 0.4).

The API prompts under workflows/api/ are written by hand; the graphs beside them are drawn from
them, so both always say the same. Run inside a host's environment:
`python -m launcher.makers.canvas NAME object_info.json` writes workflows/NAME.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LAYOUTS = Path(__file__).with_name("layouts")
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
NODE_WIDTH, GAP, HEADER, GROUP_PAD = 380, 50, 40, 30
SLOT, WIDGET, TALL_WIDGET = 22, 28, 110

Info = dict[str, Any]


def input_specs(info: Info) -> list[tuple[str, Any, dict]]:
    """The (name, type, options) of a node's inputs in the order of its definition."""
    found = []
    for part in ("required", "optional"):
        for name in info["input_order"].get(part, []):
            spec = info["input"][part][name]
            found.append((name, spec[0], spec[1] if len(spec) > 1 else {}))
    return found


def is_widget(kind: Any, options: dict) -> bool:
    """Whether an input is edited on the node rather than only connected."""
    known = isinstance(kind, list) or kind in WIDGET_TYPES
    return known and not options.get("forceInput")


def to_graph(prompt: dict, object_info: Info, layout: dict) -> dict:
    """Draw a prompt: groups become columns, notes stand on top of their group."""
    numbers = {key: index for index, key in enumerate(prompt, start=1)}
    links: list[list] = []
    nodes = {key: _node(numbers[key], entry, object_info[entry["class_type"]])
             for key, entry in prompt.items()}
    for key, entry in prompt.items():
        info = object_info[entry["class_type"]]
        for name, value in entry["inputs"].items():
            if not _is_link(value):
                continue
            source, slot = nodes[value[0]], value[1]
            link = len(links) + 1
            kind = source["outputs"][slot]["type"]
            source["outputs"][slot]["links"].append(link)
            target_slot = _connect(nodes[key], info, name, link, kind)
            links.append([link, source["id"], slot, numbers[key], target_slot, kind])
    placed, groups = _place(nodes, layout, first_note=len(nodes) + 1)
    for order, node in enumerate(placed):
        node["order"] = order
    return {"last_node_id": max(node["id"] for node in placed), "last_link_id": len(links),
            "nodes": placed, "links": links, "groups": groups, "config": {},
            "extra": {"ds": {"scale": 0.6, "offset": [60, 80]}}, "version": 0.4}


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def _default(kind: Any, options: dict) -> Any:
    if "default" in options:
        return options["default"]
    choices = kind if isinstance(kind, list) else options.get("options", [])
    return choices[0] if choices else ""


def _node(number: int, entry: dict, info: Info) -> dict:
    widgets, height = [], HEADER
    sockets = []
    for name, kind, options in input_specs(info):
        if not is_widget(kind, options):
            sockets.append({"name": name, "type": kind, "link": None})
            continue
        value = entry["inputs"].get(name, _default(kind, options))
        widgets.append(_default(kind, options) if _is_link(value) else value)
        height += TALL_WIDGET if options.get("multiline") else WIDGET
        if options.get("control_after_generate"):
            widgets.append("fixed")
            height += WIDGET
    outputs = [{"name": name, "type": kind, "links": []}
               for name, kind in zip(info["output_name"], info["output"], strict=True)]
    height += SLOT * max(len(sockets), len(outputs))
    if info.get("output_node"):
        height += 260
    properties = {"Node name for S&R": entry["class_type"]}
    if entry["class_type"].startswith("Likeness"):
        properties["cnr_id"] = "likeness"
    return {"id": number, "type": entry["class_type"], "title": entry["_meta"]["title"],
            "pos": [0, 0], "size": [NODE_WIDTH, height], "flags": {}, "order": 0, "mode": 0,
            "inputs": sockets, "outputs": outputs, "properties": properties,
            "widgets_values": widgets}


def _connect(node: dict, info: Info, name: str, link: int, kind: str) -> int:
    """Attach a link to an input slot, turning a widget into a slot when need be."""
    for index, slot in enumerate(node["inputs"]):
        if slot["name"] == name:
            slot["link"] = link
            return index
    node["inputs"].append({"name": name, "type": kind, "link": link, "widget": {"name": name}})
    return len(node["inputs"]) - 1


def _place(nodes: dict[str, dict], layout: dict, first_note: int) -> tuple[list[dict], list[dict]]:
    placed, groups = [], []
    number, left = first_note, 0
    for group in layout["groups"]:
        top = HEADER + GROUP_PAD
        members = []
        if "note" in group:
            members.append(_note(number, group["note"], group.get("note_height", 170)))
            number += 1
        members += [nodes[key] for key in group["nodes"]]
        for node in members:
            node["pos"] = [left + GROUP_PAD, top]
            top += node["size"][1] + GAP
        placed += members
        groups.append({"id": len(groups) + 1, "title": group["title"], "color": group["color"],
                       "bounding": [left, 0, NODE_WIDTH + 2 * GROUP_PAD, top], "font_size": 26,
                       "flags": {}})
        left += NODE_WIDTH + 2 * GROUP_PAD + GAP
    missing = set(nodes) - {key for group in layout["groups"] for key in group["nodes"]}
    if missing:
        raise ValueError(f"The layout places no node {sorted(missing)}.")
    return placed, groups


def _note(number: int, text: str, height: int) -> dict:
    return {"id": number, "type": "MarkdownNote", "title": "Read me", "pos": [0, 0],
            "size": [NODE_WIDTH, height], "flags": {}, "order": 0, "mode": 0, "inputs": [],
            "outputs": [], "properties": {}, "widgets_values": [text], "color": "#432",
            "bgcolor": "#653"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="stem of the prompt in workflows/api/")
    parser.add_argument("object_info", type=Path, help="what /object_info of a host answers")
    args = parser.parse_args()
    prompt = json.loads((ROOT / "workflows" / "api" / f"{args.name}.json").read_text())
    layout = json.loads((LAYOUTS / f"{args.name}.json").read_text())
    graph = to_graph(prompt, json.loads(args.object_info.read_text()), layout)
    (ROOT / "workflows" / f"{args.name}.json").write_text(json.dumps(graph, indent=1) + "\n")


if __name__ == "__main__":
    main()
