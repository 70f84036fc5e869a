"""`run.py inputs`: what a workflow file takes, for a person and as JSON Schema for a service."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .client.api import Client
from .client.photos import LOADER
from .client.refusals import Prompt, node_title
from .client.workflows import load_workflow
from .client.writing import require_file_place, write_whole
from .console import say

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string"}
_HOST_KINDS = {"INT": "integer", "FLOAT": "number", "STRING": "string", "BOOLEAN": "boolean"}


@dataclass(frozen=True)
class Input:
    """A value that a workflow's file holds and `--set` changes."""

    name: str  # as --set takes it: node.input
    node: str  # id
    node_class: str
    value: Any
    schema: Mapping[str, Any]  # JSON Schema of it


def inputs_of(prompt: Prompt, nodes: Mapping[str, Any] | None = None) -> list[Input]:
    """Every value in the order of the file; links between nodes are none.

    Args:
        nodes: the host's `object_info`, which knows ranges, choices and words; None: types alone.
    """
    titles = [node_title(prompt, node) for node in prompt]
    found = []
    for node, content in prompt.items():
        title = node_title(prompt, node)
        called = title if titles.count(title) == 1 else node
        for name, value in content["inputs"].items():
            if _is_link(value, prompt):
                continue
            known = _known(nodes, content["class_type"], name)
            found.append(Input(f"{called}.{name}", node, content["class_type"], value,
                               _schema(value, known)))
    return found


def _is_link(value: Any, prompt: Prompt) -> bool:
    return isinstance(value, list) and len(value) == 2 and str(value[0]) in prompt


def _known(nodes: Mapping[str, Any] | None, node_class: str, name: str) -> list[Any] | None:
    """What the host says of an input; None where it is not asked or does not know."""
    parts = ((nodes or {}).get(node_class) or {}).get("input", {})
    return next((part[name] for part in (parts.get("required", {}), parts.get("optional", {}))
                 if name in part), None)


def _schema(value: Any, known: list[Any] | None) -> dict[str, Any]:
    schema: dict[str, Any] = {"default": value}
    if type(value) in _KINDS:
        schema["type"] = _KINDS[type(value)]
    if known is None:
        return schema
    kind, more = known[0], known[1] if len(known) > 1 else {}
    choices = kind if isinstance(kind, list) else more.get("options") if kind == "COMBO" else None
    if choices:
        schema["enum"] = list(choices)
    elif kind in _HOST_KINDS:
        schema["type"] = _HOST_KINDS[kind]
    names = {"min": "minimum", "max": "maximum", "tooltip": "description"}
    return schema | {ours: more[theirs] for theirs, ours in names.items()
                     if more.get(theirs) is not None}


def as_json_schema(title: str, prompt: Prompt, inputs: list[Input]) -> dict[str, Any]:
    """A schema of the object that maps `--set` names to values."""
    return {"$schema": _DIALECT, "title": title, "type": "object", "additionalProperties": False,
            "properties": {one.name: dict(one.schema) for one in inputs},
            "x-takes-photos": any(node["class_type"] == LOADER for node in prompt.values())}


def run_inputs(workflow: Path, server: str | None, json_file: Path | None) -> None:
    """Print what a workflow takes, and write it as JSON Schema where asked.

    Raises:
        Problem: the file is no workflow, or the server does not answer.
    """
    prompt = load_workflow(workflow)
    if json_file is not None:
        require_file_place(json_file, "--json")
    nodes = None
    if server is not None:
        client = Client(server)
        client.require_comfyui()
        nodes = client.object_info()
    inputs = inputs_of(prompt, nodes)
    for line in _lines(prompt, inputs):
        say(line)
    if json_file is not None:
        schema = as_json_schema(workflow.stem, prompt, inputs)
        write_whole(json_file, json.dumps(schema, indent=1, ensure_ascii=False).encode())


def _lines(prompt: Prompt, inputs: list[Input]) -> Iterator[str]:
    node = None
    for one in inputs:
        if one.node != node:
            node = one.node
            yield f"{node_title(prompt, node)} ({one.node_class})"
        yield f"  {one.name} = {json.dumps(one.value, ensure_ascii=False)}{_range(one.schema)}"


def _range(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        choices = [str(choice) for choice in schema["enum"]]
        rest = f" and {len(choices) - 6} more" if len(choices) > 6 else ""
        return f"   ({', '.join(choices[:6])}{rest})"
    if "minimum" in schema and "maximum" in schema:
        return f"   ({schema['minimum']:g} to {schema['maximum']:g})"
    return ""
