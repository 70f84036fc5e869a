"""Workflow files in API format: reading them and setting inputs by node title or id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from ..problems import Problem
from .api import Client
from .refusals import Prompt, node_title


def load_workflow(path: Path) -> Prompt:
    """Read a workflow in API format.

    Raises:
        Problem: the file is missing, is not JSON, or is a graph for the canvas.
    """
    try:
        prompt = json.loads(path.read_bytes())  # UTF-8 or UTF-16, with a byte order mark or not
    except FileNotFoundError as err:
        raise Problem(f"There is no workflow file {path}; check the path.") from err
    except OSError as err:
        raise Problem(f"The workflow file {path} cannot be read: {err.strerror}.") from err
    except UnicodeDecodeError as err:
        raise Problem(f"{path} is not a text file; give a workflow in API format.") from err
    except json.JSONDecodeError as err:
        raise Problem(f"{path} is not valid JSON (line {err.lineno}: {err.msg}); export the "
                      "workflow again in API format.") from err
    if isinstance(prompt, dict) and isinstance(prompt.get("nodes"), list):
        raise Problem(f"{path} is a graph for the canvas; export it in API format, or use the "
                      "file of the same name under workflows/api/.")
    if not isinstance(prompt, dict) or not prompt or not all(
            isinstance(node, dict) and "class_type" in node for node in prompt.values()):
        raise Problem(f"{path} is not a workflow in API format; export it from ComfyUI with "
                      "Export (API).")
    for node in prompt.values():
        node.setdefault("inputs", {})
    return prompt


def find_node(prompt: Prompt, name: str) -> str:
    """The id of the node with this id or title (or, when only one has it, class).

    Raises:
        Problem: there is none, or more than one.
    """
    if name in prompt:
        return name
    for key in (lambda node: node.get("_meta", {}).get("title"), lambda node: node["class_type"]):
        found = [node_id for node_id, node in prompt.items() if key(node) == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise Problem(f"{len(found)} nodes are called `{name}`; use one of the ids "
                          f"{', '.join(found)}.")
    known = ", ".join(f"`{node_title(prompt, node_id)}`" for node_id in prompt)
    raise Problem(f"The workflow has no node `{name}`; it has {known}.")


def parse_setting(text: str) -> tuple[str, str, str]:
    """Split `node.input=value` into its three parts; the node's name may hold dots.

    Raises:
        Problem: a part is missing.
    """
    target, equals, value = text.partition("=")
    node, dot, name = target.rpartition(".")
    if not (equals and dot and node.strip() and name.strip()):
        raise Problem(f"`--set {text}` is not of the form node.input=value, for example "
                      '--set "Train.steps=200".')
    return node.strip(), name.strip(), value


def typed_value(text: str, like: Any) -> Any:
    """Read a value from the command line as the kind of value that stands there now.

    Raises:
        ValueError: it is not of that kind.
    """
    if isinstance(like, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError("true or false")
        return text.lower() == "true"
    if isinstance(like, int):
        try:
            return int(text)
        except ValueError:
            return _number(text)
    if isinstance(like, float):
        return _number(text)
    if isinstance(like, str):
        return text
    try:  # a link, a list, or an input that is not written in the file
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as err:
        raise ValueError("a number") from err


def with_settings(prompt: Prompt, settings: Mapping[str, Any]) -> Prompt:
    """A copy of the prompt with inputs set from {"node.input": value}.

    Raises:
        Problem: there is no such node.
    """
    changed = deepcopy(prompt)
    for target, value in settings.items():
        node, name, _ = parse_setting(f"{target}=")
        changed[find_node(changed, node)]["inputs"][name] = value
    return changed


def read_settings(prompt: Prompt, texts: list[str]) -> dict[str, Any]:
    """Turn the command line's `node.input=value` texts into settings for this prompt.

    Raises:
        Problem: a text is malformed, names no node, or its value is of the wrong kind.
    """
    settings = {}
    for text in texts:
        node, name, value = parse_setting(text)
        node_id = find_node(prompt, node)
        present = prompt[node_id]["inputs"].get(name)
        try:
            settings[f"{node_id}.{name}"] = typed_value(value, present)
        except ValueError as err:
            raise Problem(f"`--set {text}`: `{name}` of `{node_title(prompt, node_id)}` is now "
                          f"{present!r}, so give {err}.") from err
    return settings


def require_inputs(prompt: Prompt, settings: Mapping[str, Any], client: Client) -> None:
    """Check that every setting names an input that the host's node has.

    The host itself ignores inputs that it does not know, so that a typing mistake would do nothing.

    Raises:
        Problem: the host lacks the node, or the node lacks the input.
    """
    for target in settings:
        node, name, _ = parse_setting(f"{target}=")
        node_class = prompt[find_node(prompt, node)]["class_type"]
        info = client.object_info(node_class).get(node_class)
        if info is None:
            raise Problem(f"The host has no node `{node_class}`; install the pack that brings it.")
        known = [key for part in ("required", "optional")
                 for key in info["input"].get(part, {})]
        if name.split(".")[0] not in known:
            raise Problem(f"`{node_class}` has no input `{name}`; it has {', '.join(known)}.")
